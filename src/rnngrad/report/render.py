"""From results to answer.txt, report.md, and two HTML files that open offline."""

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from rnngrad.plot import FLOAT32_NORMAL
from rnngrad.report import metrics, style
from rnngrad.report.words import NAMED, environment
from rnngrad.study.claims import Claim
from rnngrad.study.results import Results

FEW_STEPS = 100  # the page to play with shows all points of such a curve
NUMBER = re.compile(r"([−+]?\d[\d,. ]*%?( \(.*\)| to .*)?|exactly 0|never|)")  # or nothing
BEYOND_MARKDOWN = {  # additions to Markdown's HTML
    # the emphasised paragraph below an image is its caption
    r'(?s)<p>(<div role="img".*?</div>)</p>\s*<p><em>(.*?)</em></p>': (
        r"<figure>\1<figcaption>\2</figcaption></figure>"
    ),
    "<table>": '<div class="table" tabindex="0"><table>',
    "</table>": "</table></div>",
    r"<p><em>Table: (.*?)</em></p>\s*(<div.*?><table>)": r"\2<caption><span>\1</span></caption>",
    # a cell that names a column or a row is its header
    "<th( style=.*?)?>": r'<th scope="col"\1>',
    r"<tr>\n<td>(.+?)</td>": r'<tr>\n<th scope="row">\1</th>',
    # sentences are broken into lines, numbers are not
    r"<td>(?=(<code>)?[^<]{32})": '<td class="long">',
}


def answer(results: Results, claims: Sequence[Claim]) -> list[str]:
    """The answer in four sentences; one is left out where the results lack what it needs."""
    page = _fill("answer.txt.j2", results, claims)
    return [" ".join(part.split()) for part in page.split("\n\n") if part.strip()]


def _fill(template: str, results: Results, claims: Sequence[Claim], **more: Any) -> str:
    """A template asks `metrics` for the numbers that the results do not hold themselves."""
    more |= {"results": results, "claims": claims, "metrics": metrics}
    more["counts"] = Counter(claim.verdict for claim in claims)
    more["value"] = partial(metrics.value_of, results)
    more["per_word"] = partial(metrics.per_word, results)
    return environment().get_template(template).render(vars(results) | more)


def render_markdown(
    results: Results,
    claims: Sequence[Claim],
    figures: Container[str],
    times: Mapping[str, Any],
    real: Mapping[str, Any] | None = None,
) -> str:
    """The report as GitHub Markdown; figures are links to ``figures/*.svg``.

    ``times`` says how long the stages once took: processor, cores, seconds by stage. ``real`` has
    the metrics of the study on real comments, which then stand beside these.
    """
    seconds = pd.Series(times["seconds"])
    # conditions have a table of their own
    settings = results.params.model_dump(mode="json", exclude={"conditions": {"cases"}})
    more = {
        "answer": answer(results, claims),
        "figures": figures,
        "real": real,
        "seconds": seconds.groupby(lambda name: str(name).partition("@")[0]).sum(),
        "times": times,
        "settings": pd.json_normalize(settings, max_level=2).iloc[0].to_dict(),
    }
    page = _fill("report.md.j2", results, claims, **more)
    page = re.sub(r"[ \t]+$", "", page, flags=re.MULTILINE)
    headings = [h for h in re.findall(r"^## (.+)$", page, re.MULTILINE) if h != "Contents"]
    links = "\n".join(f"- [{heading}](#{anchor(heading)})" for heading in headings)
    page = re.sub(r"(?m)^\|.*\n(\| --- )+\|\n(\|.*\n)+", _numbers_flush_right, page)
    return re.sub(r"\n{3,}", "\n\n", page.replace("[contents]", links, 1))


def _numbers_flush_right(table: re.Match[str]) -> str:
    lines = table[0].splitlines(keepends=True)
    rows = [map(str.strip, re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines[2:]]
    numbers = (
        all(map(NUMBER.fullmatch, column)) and any(column) for column in zip(*rows, strict=True)
    )
    lines[1] = "".join("| ---: " if number else "| --- " for number in numbers) + "|\n"
    return "".join(lines)


def anchor(heading: str) -> str:
    """The name by which GitHub links to a heading."""
    plain = re.sub(r"<.*?>", "", heading).lower()
    return re.sub(r"[^\w -]", "", plain).replace(" ", "-")


def render_html(markdown: str, figures: Mapping[str, str]) -> str:
    """One HTML file: the Markdown report with its figures inside, SVG text by file name's stem."""
    markdown = markdown.replace("(real/report.md)", "(real/report.html)")
    # git holds the page, and not what is beside it
    markdown = markdown.replace("`explore.html`", "[explore.html](explore.html)", 1)
    body = MarkdownIt("commonmark").enable("table").render(markdown)
    body = re.sub(r"<(h\d)>(?=(.*)</)", _with_anchor, body)
    image = r'<img src="figures/([^"]*)\.svg" alt="([^"]*)" />'
    body = re.sub(image, lambda found: _inline_figure(figures[found[1]], *found.groups()), body)
    for found, shown in BEYOND_MARKDOWN.items():
        body = re.sub(found, shown, body)
    body = _with_terms(body, markdown)
    title = markdown.partition("\n")[0].removeprefix("# ")
    first, contents, rest = body.partition('<h2 id="contents">')
    page = environment().overlay(autoescape=True).get_template("page.html.j2")
    return page.render(title=title, first=first, rest=contents + rest)


def _with_terms(body: str, markdown: str) -> str:
    """Link each term, where it first stands in a paragraph, to the words that explain it."""
    before = r"(<(?:p|li)>(?:[^<]|</?(?:strong|sup|sub)>)*?\b)"
    words = markdown.partition("## Words used here")[2].partition("## ")[0]
    for term, meaning in re.findall(r"^- \*(.+?)\*: (.+)", words, re.MULTILINE):
        title = escapeHtml(re.sub(r"\[(.*?)\]\(.*?\)|[*`]", r"\1", meaning))
        link = rf'\1<a href="#words-used-here" title="{title}">\2</a>'
        body = re.sub(rf"{before}({term}s?)\b", link, body, count=1, flags=re.IGNORECASE)
    return body


def _with_anchor(heading: re.Match[str]) -> str:
    tag, name = heading[1], anchor(heading[2])
    link = f'<a class="anchor" href="#{name}" tabindex="-1" aria-hidden="true">#</a>'
    return f'<{tag} id="{name}">{link}'


def _inline_figure(svg: str, name: str, alt: str) -> str:
    svg = svg[svg.index("<svg") :].replace("<svg ", '<svg aria-hidden="true" ', 1)
    # each figure has its own ids, and the page's colours replace the figure's ink and paper
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    lstm = style.COLOURS["lstm"]  # too dark on dark paper
    for colour, name in ((style.INK, "ink"), (style.GRID, "grid"), (lstm, "lstm")):
        svg = svg.replace(colour, f"var(--{name})")
    svg = svg.replace("fill: #ffffff", "fill: none")
    return f'<div role="img" tabindex="0" aria-label="{alt}">{svg}</div>'


def explore_page(results: Results) -> str:
    """The page to play with: conditions, models and triangles, and what to choose from."""
    conditions, triangles = results.condition_curves, results.triangles.items()
    names = {name: name.replace("_", " ") for name in conditions["condition"].unique()}
    models = ["cell", "weights", "statistic", "seed"]
    data = {
        "conditions": _curves(conditions, ["condition", "cell"], "log10"),
        "models": _curves(results.curves, models, "log10_median"),
        "triangles": {" ".join(key): t.astype(float).round(2).tolist() for key, t in triangles},
        "names": names | NAMED,
        "cells": {cell: [style.NAMES[cell], style.COLOURS[cell]] for cell in results.cells},
        "float32": [style.FLOAT32_DENORMAL, FLOAT32_NORMAL],
    }
    page = environment().get_template("explore.html.j2")
    # to_json_plotly writes null for what is no number, and nothing that ends the page's script
    return page.render(plotly=get_plotlyjs(), data=to_json_plotly(data))


def _curves(table: pd.DataFrame, keys: list[str], value: str) -> dict[str, dict[str, Any]]:
    """The first 100 steps, some others, and values, by the keys with spaces between them."""
    steps, of_curve = table["step"], table.groupby(keys)["step"]
    few = of_curve.transform("size") <= FEW_STEPS
    ends = steps == of_curve.transform("max")
    shown = table[few | ends | (steps <= 100) | (steps % style.THIN == 0)]
    return {
        " ".join(map(str, key)): {"x": rows["step"].tolist(), "y": rows[value].round(2).tolist()}
        for key, rows in shown.groupby(keys, sort=False)
    }
