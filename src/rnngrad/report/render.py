"""From findings and figures to report.md, and from that to one HTML file that opens offline."""

import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML

from rnngrad.report import findings
from rnngrad.report.style import GRID, INK, NAMES
from rnngrad.study.results import Results

_ALT = {
    "jacobian": "Curves of log10 mean |d state_t / d state_0| over the steps, per cell, "
    "untrained and trained, with the limit of float32.",
    "training": "Loss and accuracy per epoch of every cell, training and validation split.",
    "gates": "Histograms of gate activations before and after training, on padding and on words.",
    "lengths": "Histogram of the number of words per comment on a logarithmic axis.",
}
_CAPTIONS = {
    "jacobian": "How much of a change of the first state arrives at step t. Thin lines: seeds; "
    "thick: their median; each the median over comments. Below the dashed line float32 cannot hold "
    "the value: grey, as a denormal number with lost digits or, under flush-to-zero, as 0.",
    "training": "Bands: 95% interval of the mean over seeds, for the validation split.",
    "gates": "The gate multiplies the state that it keeps: at 1 nothing is lost. Mean over seeds.",
    "lengths": "Half of the comments are shorter than {median:.0f} words; padding makes all of "
    "them as long as the longest.",
}
_STAGES = [
    ("download", "comments with labels", "build/comments.parquet"),
    ("sample", "balanced classes, filler, splits", "build/sample.parquet, build/data_card.json"),
    ("embed", "tokens and word vectors", "build/embed/"),
    ("train", "one model per cell and seed", "build/train/"),
    ("probe", "Jacobian curves and gates", "build/probe/"),
    ("report", "this page", "reports/"),
    ("publish", "the same as MLflow runs", "mlflow.db"),
]


def render_markdown(results: Results) -> str:
    """The report as GitHub Markdown; figures are links to ``figures/*.svg``."""
    source = resources.files("rnngrad.report").joinpath("templates/report.md.j2").read_text()
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["typeset"] = _typeset
    words = results.data_card["sample"]["words"]
    padded = {
        "pre": "the longest comment; shorter ones have unmasked zeros in front",
        "post": "the longest comment; shorter ones have unmasked zeros behind",
        "none": "the longest comment; nothing is padded, and a step counts those that reach it",
    }
    train = results.params.train
    return environment.from_string(source).render(
        params=results.params,
        answer=findings.answer(results),
        last_step=findings.last_step(results),
        seeds=len(train.seeds),
        hidden=train.hidden,
        identity_frobenius=f"{math.log10(math.sqrt(train.hidden)):.2f}",
        padding_words=padded[results.params.embed.padding],
        test_comments=next(iter(results.model_cards.values()))["test_comments"],
        gates=not results.gates.empty,
        alt=_ALT,
        captions=_CAPTIONS | {"lengths": _CAPTIONS["lengths"].format(**words)},
        curve_table=_markdown_table(findings.curve_table(results)),
        test_table=_markdown_table(findings.test_table(results)),
        data_table=_markdown_table(_data_table(results)),
        model_table=_markdown_table(_model_table(results)),
        stage_table=_markdown_table(_stage_table()),
        params_table=_markdown_table(_params_table(results)),
    )


def render_html(markdown: str, figures: Mapping[str, str]) -> str:
    """One HTML file: the Markdown report with its SVG figures inside.

    Args:
        markdown: what :func:`render_markdown` gave.
        figures: SVG text by file name without its ending.
    """
    converter = MarkdownIt("commonmark").enable("table")
    converter.add_render_rule("image", _inline_figure)
    converter.add_render_rule("table_open", _open_table)
    converter.add_render_rule("table_close", _close_table)
    body = converter.render(markdown, {"figures": figures})
    # the emphasised paragraph below an image is its caption; Markdown knows no figures
    body = re.sub(
        r"<p>(<div role=\"img\".*?</div>)</p>\s*<p><em>(.*?)</em></p>",
        r"<figure>\1<figcaption>\2</figcaption></figure>",
        body,
        flags=re.DOTALL,
    )
    page = resources.files("rnngrad.report").joinpath("templates/page.html.j2").read_text()
    title = markdown.partition("\n")[0].removeprefix("# ")
    return Environment(undefined=StrictUndefined).from_string(page).render(title=title, body=body)


def _inline_figure(
    renderer: RendererHTML, tokens: Any, index: int, options: Any, env: dict[str, Any]
) -> str:
    token = tokens[index]
    name = token.attrs["src"].removeprefix("figures/").removesuffix(".svg")
    svg = env["figures"][name]
    svg = svg[svg.index("<svg") :].replace("<svg ", '<svg aria-hidden="true" ', 1)
    # each figure has its own ids, and the page's colours replace the figure's ink and paper
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    svg = svg.replace("fill: #ffffff", "fill: none")
    alt = renderer.renderInlineAsText(token.children, options, env)
    return f'<div role="img" aria-label="{escapeHtml(alt)}">{svg}</div>'


def _typeset(text: str) -> str:
    """Derivatives and powers of ten as HTML, which Markdown lets pass."""
    text = re.sub(r"d([hc])_t/d\1_0", r"∂\1<sub>t</sub>/∂\1<sub>0</sub>", text)
    return re.sub(r"10\^-([\d.]+)", r"10<sup>−\1</sup>", text)


def _open_table(*_: Any) -> str:
    return '<div class="table"><table>\n'


def _close_table(*_: Any) -> str:
    return "</table></div>\n"


def _markdown_table(table: pd.DataFrame) -> str:
    def line(cells: Any) -> str:
        return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"

    rows = [line(row) for row in table.itertuples(index=False)]
    return "\n".join([line(table.columns), line("---" for _ in table.columns), *rows])


def _data_table(results: Results) -> pd.DataFrame:
    card, embed = results.data_card, results.embed_card
    given, sample = card["given"], card["sample"]
    words = sample["words"]
    rows = [
        ("source", card["source"]),
        ("comments given", f"{given['comments']:,} ({_classes(given['classes'])})"),
        ("comments in the sample", f"{sample['comments']:,} ({_classes(sample['classes'])})"),
        (
            "words of a comment",
            f"mean {words['mean']:.0f}, median {words['median']:.0f}, p95 {words['p95']:.0f}, "
            f"p99 {words['p99']:.0f}, longest {words['max']:,}",
        ),
        (
            "replaced by the filler",
            f"{card['filler']['words_replaced']:,} words by “{card['filler']['word']}”; "
            f"{card['filler']['comments_left_whole']:,} comments left whole",
        ),
        ("word vectors", f"{embed['vectors']}, {embed['dimensions']} dimensions"),
        (
            "coverage",
            f"{embed['coverage_of_tokens']:.1%} of the tokens, "
            f"{embed['coverage_of_types']:.1%} of {embed['types']:,} word types",
        ),
    ]
    return pd.DataFrame(rows, columns=["the sample", ""])


def _classes(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} labelled {label}" for label, count in sorted(counts.items()))


def _model_table(results: Results) -> pd.DataFrame:
    rows = []
    for cell in results.cells:
        settings = results.model_cards[cell]["settings"]
        rows.append(
            {
                "cell": NAMES[cell],
                "parameters": f"{results.model_cards[cell]['parameters']:,}",
                "hidden units": settings["hidden"],
                "initialiser": settings["initializer"],
                "epochs": settings["epochs"],
                "batch": settings["batch_size"],
                "learning rate": settings["learning_rate"],
                "clipping": settings["clip_norm"] or "none",
                "seeds": ", ".join(map(str, settings["seeds"])),
            }
        )
    return pd.DataFrame(rows)


def _stage_table() -> pd.DataFrame:
    rows = [(f"`dvc repro {stage}`", what, f"`{where}`") for stage, what, where in _STAGES]
    return pd.DataFrame(rows, columns=["command", "makes", "in"])


def _params_table(results: Results) -> pd.DataFrame:
    flat = pd.json_normalize(results.params.model_dump(mode="json"), max_level=2).iloc[0]
    rows = [(f"`{key}`", f"`{value}`") for key, value in flat.items()]
    return pd.DataFrame(rows, columns=["key of params.yaml", "value"])
