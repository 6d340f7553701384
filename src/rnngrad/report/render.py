"""From results to figures, answer.txt, report.md, and one HTML file that opens offline."""

import math
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rnngrad.report import metrics, model_figures, why_figures
from rnngrad.report.style import GRID, INK
from rnngrad.report.words import environment
from rnngrad.study.claims import Claim
from rnngrad.study.results import Results

OWN_TAGS = "(</?(?:sub|sup|details|summary)>)"


def draw_figures(results: Results, lengths: NDArray[np.int64], most: int) -> dict[str, Figure]:
    """Draw every figure that the results allow, in their order on the page.

    ``lengths`` (n,) are the words of each comment, ``most`` the steps that a padded one has.
    """
    drawn = {
        "windows": why_figures.windows_figure(results.condition_curves),
        "conditions": why_figures.conditions_figure(results.condition_curves),
        "training": model_figures.training_figure(results),
        "remembered": model_figures.remembered_figure(results),
        "jacobian": model_figures.jacobian_figure(results),
        "gates": model_figures.gates_figure(results),
        "triangle": model_figures.triangle_figure(results.triangles),
        "paths": model_figures.paths_figure(results.curves),
        "lengths": model_figures.lengths_figure(lengths, most, "trained" in results.weights),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def answer(results: Results, claims: Sequence[Claim]) -> list[str]:
    """Six sentences: the zeros, the padding, the RNN, the gates and words, the tutorials.

    A sentence is left out where params.yaml does without a cell or a condition that it needs.
    """
    rows, template = metrics.opened_gates(results), environment().get_template("answer.txt.j2")
    page = template.render(
        value=partial(metrics.value_of, results.conditions),
        question=results.params.conditions.question,
        padding_share=metrics.padding_share(results),
        on_words={row["weights"]: row for row in rows if row["cell"] == "lstm"},
        trained=results.weights[-1],
        claims=claims,
        verdicts={2: None} | {claim.id: claim.verdict for claim in claims},
        counts=Counter(claim.verdict for claim in claims),
    )
    return [" ".join(part.split()) for part in page.split("\n\n") if part.strip()]


def render_markdown(
    results: Results,
    claims: Sequence[Claim],
    figures: Container[str],
    times: Mapping[str, Any],
    real: Mapping[str, Any] | None = None,
) -> str:
    """The report as GitHub Markdown; figures are links to ``figures/*.svg``.

    ``times`` says how long the stages once took: processor, cores, seconds by stage. They are
    measured apart, so that the same results give the same report. ``real`` has the metrics of the
    study on real comments, which then stand beside these.
    """
    conditions, evidence = results.conditions, results.evidence
    tutorial = evidence.get("tutorial", pd.DataFrame(columns=["loss", "step", "norm"]))
    curves = metrics.curve_table(results)
    seconds = pd.Series(times["seconds"]).groupby(lambda name: str(name).partition("@")[0]).sum()
    # conditions have a table of their own
    settings = results.params.model_dump(mode="json", exclude={"conditions": {"cases"}})
    found = {
        "answer": answer(results, claims),
        "figures": figures,
        "claims": claims,
        "counts": Counter(claim.verdict for claim in claims),
        "real": real,
        "conditions": conditions.to_dict("records"),
        "condition_seeds": metrics.condition_seeds(results),
        "log10": math.log10,
        "causes": metrics.cause_table(conditions).to_dict("records"),
        "value": partial(metrics.value_of, conditions),
        "padding_share": metrics.padding_share(results),
        "weights": results.weights,
        "on_words": metrics.opened_gates(results),
        "nearly_open": metrics.NEARLY_OPEN,
        "tests": metrics.test_scores(results),
        "swing": metrics.swing(results),
        "seeds": results.history.groupby("cell")["seed"].nunique().tolist(),
        "probed": int(results.curves["examples"].max()),
        "curves": curves.to_dict("records"),
        "curve_steps": curves.columns[3:],
        "tutorial": tutorial.pivot_table("norm", "loss", "step").to_dict("index"),
        "seconds": seconds,
        "times": times,
        "settings": pd.json_normalize(settings, max_level=2).iloc[0].to_dict(),
    }
    page = environment().get_template("report.md.j2").render(vars(results) | found)
    page = re.sub(r"[ \t]+$", "", page, flags=re.MULTILINE)
    headings = [h for h in re.findall(r"^## (.+)$", page, re.MULTILINE) if h != "Contents"]
    links = "\n".join(f"- [{heading}](#{anchor(heading)})" for heading in headings)
    return re.sub(r"\n{3,}", "\n\n", page.replace("[contents]", links, 1))


def anchor(heading: str) -> str:
    """The name by which GitHub links to a heading."""
    plain = re.sub(r"<.*?>", "", heading).lower()
    return re.sub(r"[^\w -]", "", plain).replace(" ", "-")


def render_html(markdown: str, figures: Mapping[str, str]) -> str:
    """One HTML file: the Markdown report with its figures inside, SVG text by file name's stem."""
    converter = MarkdownIt("commonmark").enable("table")
    converter.add_render_rule("image", _inline_figure)
    converter.add_render_rule("heading_open", _with_anchor)
    converter.add_render_rule("th_open", lambda *_: '<th scope="col">')
    converter.add_render_rule("html_inline", _own_html)
    converter.add_render_rule("html_block", _own_html)
    converter.add_render_rule("table_open", lambda *_: '<div class="table" tabindex="0"><table>\n')
    converter.add_render_rule("table_close", lambda *_: "</table></div>\n")
    body = converter.render(markdown, {"figures": figures})
    # the emphasised paragraph below an image is its caption; Markdown knows no figures
    body = re.sub(
        r"<p>(<div role=\"img\".*?</div>)</p>\s*<p><em>(.*?)</em></p>",
        r"<figure>\1<figcaption>\2</figcaption></figure>",
        body,
        flags=re.DOTALL,
    )
    # and no captions of tables
    body = re.sub(
        r'<p><em>Table: (.*?)</em></p>\s*(<div class="table".*?><table>)',
        r"\2<caption>\1</caption>",
        body,
    )
    # sentences are broken into lines, numbers are not
    body = re.sub(r"<td>(?=(<code>)?[^<]{32})", '<td class="long">', body)
    title = markdown.partition("\n")[0].removeprefix("# ")
    page = environment().overlay(autoescape=True).get_template("page.html.j2")
    return page.render(title=title, body=body)


def _with_anchor(_: RendererHTML, tokens: Any, index: int, *__: Any) -> str:
    name = anchor(tokens[index + 1].content)
    tag = tokens[index].tag
    link = f'<a class="anchor" href="#{name}" tabindex="-1" aria-hidden="true">#</a>'
    return f'<{tag} id="{name}">{link}'


def _own_html(_: RendererHTML, tokens: Any, index: int, *__: Any) -> str:
    """The few tags that the report itself writes; other HTML is shown as text."""
    parts = re.split(OWN_TAGS, tokens[index].content)
    return "".join(p if re.fullmatch(OWN_TAGS, p) else escapeHtml(p) for p in parts)


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
    return f'<div role="img" tabindex="0" aria-label="{escapeHtml(alt)}">{svg}</div>'
