"""Stage 6: figures, tables and the page that a person reads.

Writes reports/: report.html (one file, opens offline), report.md, answer.txt (three lines),
metrics.json, curves.csv, figures/*.svg.
"""

import json
from pathlib import Path

from rnngrad.params import read_params
from rnngrad.stage import run_stage, whole

BUILD, REPORTS = Path("build"), Path("reports")


def main() -> None:
    params = read_params()

    from rnngrad.data.tokenized import TokenizedSample
    from rnngrad.report import figures, findings, render
    from rnngrad.report.style import to_svg
    from rnngrad.study.results import load_results

    results = load_results(BUILD, params)
    sample = TokenizedSample.load(BUILD / "embed" / "tokens.npz")
    drawn = {
        "jacobian": figures.jacobian_figure(results),
        "training": figures.training_figure(results),
        "gates": figures.gates_figure(results),
        "lengths": figures.lengths_figure(
            sample.lengths, sample.max_length(params.embed.max_length)
        ),
    }
    svgs = {name: to_svg(figure) for name, figure in drawn.items() if figure is not None}
    with whole(REPORTS / "figures") as folder:
        folder.mkdir()
        for name, svg in svgs.items():
            (folder / f"{name}.svg").write_text(svg)
    with whole(REPORTS / "curves.csv") as path:
        results.curves.to_csv(path, index=False)
    markdown = render.render_markdown(results)
    texts = {
        "report.md": markdown,
        "report.html": render.render_html(markdown, svgs),
        "answer.txt": "\n".join(findings.answer(results)) + "\n",
        "metrics.json": json.dumps(findings.metrics_summary(results), indent=2) + "\n",
    }
    for name, text in texts.items():
        with whole(REPORTS / name) as path:
            path.write_text(text)


if __name__ == "__main__":
    run_stage(main)
