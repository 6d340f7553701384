"""Stage 7: verdicts, figures, tables and the page that a person reads.

Writes reports/: report.html and explore.html (one file each, opens offline), report.md, answer.txt,
claims.json, conditions.csv, metrics.json, curves.csv, plots/*.csv, figures/*.svg.
"""

import quiet  # noqa: F401  # isort: skip

import json
from dataclasses import asdict
from pathlib import Path

from rnngrad.stage import DIGEST, read_json, run_stage, seals, whole

BUILD, REPORTS = Path("build"), Path("reports")
TIMES = Path("benchmarks/stages.json")  # of the stages; make bench writes it


def main() -> None:
    from rnngrad.data.tokenized import TokenizedSample
    from rnngrad.params import read_params
    from rnngrad.report import render
    from rnngrad.report.figures import draw_figures
    from rnngrad.report.metrics import metrics_summary, plot_tables
    from rnngrad.report.style import to_svg
    from rnngrad.study.claims import judge_all
    from rnngrad.study.results import load_results

    params = read_params()
    results = load_results(BUILD, params)
    times = read_json(TIMES, "make bench")
    real = REPORTS / "real" / "metrics.json"  # of the study on real comments, where it was made
    others = read_json(real, "make real-study") if real.exists() else None
    claims = judge_all(results)
    sample = TokenizedSample.load(BUILD / "embed" / "tokens.npz")
    longest = sample.max_length(params.embed.max_length)
    drawn = draw_figures(results, sample.lengths, longest)
    svgs = {name: to_svg(figure) for name, figure in drawn.items()}
    with whole(REPORTS / "figures") as folder:
        folder.mkdir()
        for name, svg in svgs.items():
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    with whole(REPORTS / "plots") as folder:
        folder.mkdir()
        for name, table in plot_tables(results).items():
            table.to_csv(folder / f"{name}.csv", float_format="%.4f")
    markdown = render.render_markdown(results, claims, svgs, times, others)
    judged = [asdict(claim) for claim in claims]
    summary = metrics_summary(results, claims)
    texts = {
        "report.md": markdown,
        "report.html": render.render_html(markdown, svgs),
        "explore.html": render.explore_page(results),
        "answer.txt": "\n".join(render.answer(results, claims)) + "\n",
        "claims.json": json.dumps(judged, indent=2, allow_nan=False) + "\n",
        "metrics.json": json.dumps(summary, indent=2, allow_nan=False) + "\n",
        "conditions.csv": (BUILD / "conditions" / "conditions.csv").read_text(encoding="utf-8"),
        "curves.csv": results.curves.to_csv(index=False),
    }
    for name, text in texts.items():
        with whole(REPORTS / name) as path:
            path.write_text(text, encoding="utf-8")
    (REPORTS / DIGEST).write_text(seals(REPORTS / name for name in texts))


if __name__ == "__main__":
    run_stage(main)
