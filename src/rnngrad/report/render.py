"""From findings and figures to report.md, and from that to one HTML file that opens offline."""

import math
import re
from collections.abc import Container, Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML

from rnngrad.report import findings, tables, why
from rnngrad.report.answer import answer, counted
from rnngrad.report.captions import ALT, CAPTIONS
from rnngrad.report.style import GRID, INK
from rnngrad.study.claims.claim import Claim
from rnngrad.study.results import Results

OWN_TAGS = "(</?(?:sub|sup|br|details|summary)>)"


def render_markdown(
    results: Results, claims: Sequence[Claim], figures: Container[str], times: Mapping[str, Any]
) -> str:
    """The report as GitHub Markdown; figures are links to ``figures/*.svg``.

    ``times`` says how long the stages once took: processor, cores, seconds by stage. They are
    measured apart, so that the same results give the same report.
    """
    source = resources.files("rnngrad.report").joinpath("templates/report.md.j2").read_text()
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"typeset": _typeset, "text": tables.text}
    words = results.data_card["sample"]["words"]
    embed, conditions = results.params.embed, results.conditions
    longest = "the longest comment"
    if embed.max_length is not None and embed.max_length < words["max"]:
        longest = f"a comment cut to its last {embed.max_length:,} words"
    padded = {
        "pre": f"{longest}; shorter ones have unmasked zeros in front",
        "post": f"{longest}; shorter ones have unmasked zeros behind",
        "none": f"{longest}; nothing is padded, and a step counts those that reach it",
    }
    lengths = {"none": "nothing is padded."}.get(
        embed.padding, f"padding makes all of them as long as {longest}."
    )
    causes = why.printed_causes(conditions)
    cases = results.params.conditions.cases
    identity = results.params.conditions.setting_of("frobenius") if "frobenius" in cases else None
    untrained = identity is not None and identity.weights == "initial"
    return environment.from_string(source).render(
        params=results.params,
        answer=answer(results, claims),
        figures=figures,
        conditions=results.params.conditions,
        claims=claims,
        why_table=tables.markdown_table(why.why_table(conditions)),
        cause_table="" if causes.empty else tables.markdown_table(causes),
        lead=why.lead(conditions),
        horizon_table=tables.markdown_table(why.horizon_table(conditions)),
        claims_table=tables.markdown_table(tables.claims_table(claims)),
        last_step=findings.last_step(results),
        seeds=counted(results.numbers_of_seeds, "seed"),
        condition_seeds=_condition_seeds(results),
        probed=counted([int(results.curves["examples"].max())], "test comment"),
        norms=[f"`{name}`" for name in ("frobenius", "spectral") if name in cases],
        identity_frobenius=identity
        and untrained
        and f"{math.log10(math.sqrt(identity.units)):.2f}",
        float32_plateau=why.falls_below_float32(conditions, "float32"),
        padding_words=padded[embed.padding],
        test_comments=next(iter(results.model_cards.values()))["test_comments"],
        alt=ALT,
        captions=CAPTIONS | {"lengths": CAPTIONS["lengths"].format(**words) + lengths},
        curve_table=tables.markdown_table(findings.curve_table(results)),
        test_table=tables.markdown_table(findings.test_table(results)),
        data_table=tables.markdown_table(tables.data_table(results)),
        model_table=tables.markdown_table(tables.model_table(results)),
        stage_table=tables.markdown_table(tables.stage_table(times["seconds"])),
        times=times,
        tutorial_table=_tutorial_table(results),
        params_table=tables.markdown_table(tables.params_table(results)),
    )


def _condition_seeds(results: Results) -> str:
    """Such as "untrained: 5 seeds, trained: 2 to 3 seeds"."""
    seeds = results.condition_seeds.groupby(["condition", "cell"])["seed"].nunique()
    names = {"initial": "untrained", "trained": "trained"}
    found: dict[str, list[int]] = {}
    for condition, number in seeds.droplevel("cell").items():
        weights = results.params.conditions.setting_of(str(condition)).weights
        found.setdefault(names[weights], []).append(number)
    return ", ".join(f"{name}: {counted(numbers, 'seed')}" for name, numbers in found.items())


def _tutorial_table(results: Results) -> str:
    found = results.evidence.get("tutorial")
    return "" if found is None else tables.markdown_table(tables.tutorial_table(found))


def render_html(markdown: str, figures: Mapping[str, str]) -> str:
    """One HTML file: the Markdown report with its SVG figures inside.

    Args:
        markdown: what :func:`render_markdown` gave.
        figures: SVG text by file name without its ending.
    """
    converter = MarkdownIt("commonmark").enable("table")
    converter.add_render_rule("image", _inline_figure)
    converter.add_render_rule("html_inline", _own_html)
    converter.add_render_rule("html_block", _own_html)
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
    # sentences need another table than numbers do
    sentences = r'<div class="table">(?=(?:(?!</table>).)*<td>[^<]{60})'
    body = re.sub(sentences, '<div class="table prose">', body, flags=re.DOTALL)
    page = resources.files("rnngrad.report").joinpath("templates/page.html.j2").read_text()
    title = markdown.partition("\n")[0].removeprefix("# ")
    environment = Environment(undefined=StrictUndefined, autoescape=True)
    return environment.from_string(page).render(title=title, body=body)


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
    return f'<div role="img" aria-label="{escapeHtml(alt)}">{svg}</div>'


def _typeset(text: str) -> str:
    """Derivatives and powers of ten as HTML, which Markdown lets pass."""
    text = re.sub(r"\bd ?([hc])_t ?/ ?d ?\1_0", r"∂\1<sub>t</sub>/∂\1<sub>0</sub>", text)
    text = re.sub(r"\bdc_t/dc_\(t-1\)", "∂c<sub>t</sub>/∂c<sub>t−1</sub>", text)
    text = re.sub(r"10\^(-?[\d.]*\d)", r"10<sup>\1</sup>", text).replace("<sup>-", "<sup>−")
    return re.sub(r"(?<=[ \[|>])-(?=\d)", "−", text)


def _open_table(*_: Any) -> str:
    return '<div class="table"><table>\n'


def _close_table(*_: Any) -> str:
    return "</table></div>\n"
