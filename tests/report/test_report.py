"""The report of made-up results: what it says, that it is whole, and that it repeats."""

import copy
import html
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from made_up import CLAIMS, TIMES, make_curves, make_powers
from markdown_it import MarkdownIt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnngrad.params import Padding
from rnngrad.report import figures, metrics, words
from rnngrad.report.figures import draw_figures
from rnngrad.report.render import answer, render_html, render_markdown
from rnngrad.report.style import figure_style, to_svg
from rnngrad.study import claims, trained_weights
from rnngrad.study.claims import Claim
from rnngrad.study.results import Results

ROOT = Path(__file__).parent.parent.parent

# of the default study, so that every claim's template is filled
COMMITTED = [Claim(**claim) for claim in json.loads((ROOT / "reports/claims.json").read_text())]

NO_FIGURES: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def drawn(results: Results) -> dict[str, Figure]:
    return draw_figures(results, np.arange(1, 1404), 1403)


@pytest.fixture(scope="module")
def page(results: Results, svgs: dict[str, str]) -> str:
    return render_markdown(results, CLAIMS, svgs, TIMES)


@pytest.fixture(scope="module")
def svgs(drawn: dict[str, Figure]) -> dict[str, str]:
    return {name: to_svg(figure) for name, figure in drawn.items()}


def test_every_figure_has_a_caption_and_an_alternative_text(
    page: str, svgs: dict[str, str]
) -> None:
    shown = re.findall(
        r"^!\[\w[^]]+\.\]\(figures/(\w+)\.svg\)\n\n\*\w[^*]+\.\*$", page, re.MULTILINE
    )
    assert sorted(shown) == sorted(svgs)
    assert "{" not in page.split("## How each number")[0]
    assert "nan" not in page.lower()


def test_lines_are_named_where_they_end_and_names_do_not_cover_one_another(
    drawn: dict[str, Figure],
) -> None:
    assert {text.get_text() for text in drawn["training"].axes[0].texts} == {"RNN", "LSTM"}
    for name in ("conditions", "training", "remembered", "jacobian", "paths"):
        figure = drawn[name]
        figure.draw_without_rendering()
        assert not figure.legends
        for axis in filter(Axes.get_visible, figure.axes):
            assert axis.texts, name
            boxes = sorted((text.get_window_extent() for text in axis.texts), key=lambda b: b.y0)
            assert all(a.y1 <= b.y0 + 1 for a, b in pairwise(boxes)), name  # pixels


def test_the_page_says_how_far_the_trained_models_differ(results: Results) -> None:
    seeds = results.condition_seeds.copy()
    chosen = (seeds["condition"] == "trained") & (seeds["cell"] == "rnn") & (seeds["seed"] == 2)
    seeds.loc[chosen, "log10_at_end"] = 0.5
    rows = of_training(replace(results, condition_seeds=seeds))
    assert "|  | trained with padding |  |  |  |  | −140.0 (−140.0 to 0.5) | 10 |" in rows
    assert "|  | trained with padding | 0.70 | 10.0% |  |  | −36.0 | 20 |" in rows


def of_training(results: Results) -> str:
    """The page's sections on training."""
    page = render_markdown(results, CLAIMS, NO_FIGURES, TIMES)
    return page.split("## Does training open the gates?")[1].split("## Which")[0]


def test_real_comments_stand_beside_where_they_were_measured(results: Results, page: str) -> None:
    assert "real/README.md" not in page
    real = {
        "conditions": {"question": {"lstm": {"log10_at_end": -88.25}}},
        "claims": {"holds": 2, "holds_only_if": 7, "does_not_hold": 1},
    }
    page = render_markdown(results, CLAIMS, NO_FIGURES, TIMES, real)
    (row,) = [line for line in page.splitlines() if "the question's LSTM ends at" in line]
    assert row.endswith("| −88.2 |")
    (row,) = [line for line in page.splitlines() if line.startswith("| claims that hold")]
    assert row.endswith("| 2, 7, 1 |")


def test_the_page_says_whether_the_trained_rnn_comes_to_rest(results: Results) -> None:
    assert "come to rest" not in of_training(results)
    evidence = results.evidence | {"powers": make_powers(1.25)}
    swinging = of_training(replace(results, evidence=evidence))
    assert "In 3 of 3 RNNs trained with padding the gradient keeps its size there" in swinging
    assert "does not come to rest: it still moves by up to 1.2 a step." in swinging
    # a state may move for ever without keeping anything
    evidence = results.evidence | {"powers": make_powers(1.25, measured=-0.1)}
    assert "come to rest" not in of_training(replace(results, evidence=evidence))


def test_numbers_of_seeds_are_those_of_the_cells(results: Results) -> None:
    history = results.history.query("cell != 'rnn' or seed < 3")
    fewer = replace(results, history=history)
    assert "Medians over 2 to 3 seeds, but for" in of_training(fewer)
    said = answer(fewer, CLAIMS[:1])
    assert said[-1].startswith("Of the 1 claim of the question and of three tutorials that was m")


def test_the_report_says_what_padding_makes_of_the_comments(results: Results) -> None:
    def report(max_length: int | None = None, padding: list[str] | None = None) -> str:
        embed = results.params.embed.model_copy(update={"max_length": max_length})
        train = results.params.train.model_copy(update={"padding": padding or ["pre", "none"]})
        params = results.params.model_copy(update={"embed": embed, "train": train})
        return render_markdown(replace(results, params=params), CLAIMS, ("lengths",), TIMES)

    assert (
        "36 words or fewer; padding makes all of them as long as the longest comment." in report()
    )
    assert "makes all of them as long as a comment cut to its last 100 words" in report(
        max_length=100
    )
    assert "36 words or fewer; nothing is padded." in report(padding=["none"])
    assert "zeros in front are run once" in report()
    assert "zeros in front are run once" not in report(padding=["none"])


def test_counts_in_words_are_those_of_what_was_measured(results: Results, page: str) -> None:
    """Whatever params.yaml asked for."""
    page = render_markdown(results, CLAIMS, NO_FIGURES, TIMES)
    assert "log10 of the mean over 4 test comments, median over 3 seeds" in page
    assert "split of 300 comments" in page
    assert re.search(r"^\| `no_padding` RNN \| [^|]*\| 2 \|", page, re.MULTILINE)
    assert re.search(r"^\| `trained` RNN \| [^|]*\| 4 \|", page, re.MULTILINE)
    changed = {"curves": results.curves.assign(examples=1)}
    page = render_markdown(replace(results, **changed), CLAIMS, NO_FIGURES, TIMES)
    assert "log10 of the mean over 1 test comment, median" in page
    card = copy.deepcopy(results.data_card)
    card["sample"]["words"]["max"] = 700
    few = {"condition_curves": results.condition_curves.query("step <= 700"), "data_card": card}
    page = render_markdown(replace(results, **few), CLAIMS, NO_FIGURES, TIMES)
    assert "90% of all steps are padding" in page


def test_the_report_without_a_condition_says_nothing_of_it(results: Results) -> None:
    cases = results.params.conditions.cases
    question = results.params.conditions.model_copy(
        update={"cases": {"question": cases["question"]}}
    )
    params = results.params.model_copy(update={"conditions": question})
    table = results.conditions.query("condition == 'question'")
    seeds = results.condition_seeds.query("condition == 'question'")
    changed = {"params": params, "conditions": table, "condition_seeds": seeds}
    less = replace(results, **changed)
    text = render_markdown(less, CLAIMS, NO_FIGURES, TIMES)
    assert "|sum over i of J_ij|.\n" in text
    assert "minimal_example" not in text
    assert "Where did the question go wrong?" not in text


def test_settings_that_are_others_than_the_questions_are_a_table(
    results: Results, page: str
) -> None:
    assert "| `clip_norm` of training | 1.0 | none |" in page
    assert "| `epochs` of training | 4 | 10 |" in page
    assert "| word vectors | corpus | glove |" in page
    assert "of the question's setting |" not in page
    params, cards = results.params, copy.deepcopy(results.model_cards)
    own = {"data": {"source": "jigsaw"}, "embed": {"vectors": "glove"}}
    update = {key: getattr(params, key).model_copy(update=new) for key, new in own.items()}
    data = copy.deepcopy(results.data_card)
    data["sample"]["comments"] = 40000
    for card in cards.values():
        card["settings"] |= {"epochs": 10, "clip_norm": None}
    same = {"params": params.model_copy(update=update), "model_cards": cards, "data_card": data}
    same["conditions"] = results.conditions.assign(examples=100.0)
    text = render_markdown(replace(results, **same), CLAIMS, NO_FIGURES, TIMES)
    assert "settings that differ" in page
    assert "settings that differ" not in text


def test_the_table_holds_every_curve_at_the_milestones(results: Results, page: str) -> None:
    table = metrics.curve_table(results)
    assert list(table.columns[3:]) == [1, 20, 100, 400, 500]
    assert len(table) == 3 * 3 + 3 * 4
    row = table.query("cell == 'lstm' and weights == 'trained' and statistic == 'frobenius'")
    assert row[100].item() == pytest.approx(-9.98)
    assert (
        "| LSTM | trained with padding | Frobenius | −0.08 | −1.98 | −9.98 | −39.98 | −49.98 |"
        in page
    )


def test_the_page_says_what_training_makes_of_words(page: str) -> None:
    lines = page.split("## Does training open the gates?")[1].split("##")[0].splitlines()
    right = "90.0% (77.6% to 100.0%) |"
    assert [line for line in lines if line.startswith("|")][-6:] == [
        "| RNN | untrained |  |  | −0.107 | −150.0 | −3.0 | over 39 |  |",
        f"|  | trained with padding |  |  |  |  | −140.0 | 10 | {right}",
        f"|  | trained without padding |  |  | −0.093 | −130.0 |  | 10 | {right}",
        "| LSTM | untrained | 0.50 | 0.0% | −0.072 | −101.0 | −96.0 | 20 |  |",
        f"|  | trained with padding | 0.70 | 10.0% |  |  | −36.0 | 20 | {right}",
        f"|  | trained without padding | 0.80 | 20.0% | −0.019 | −26.0 |  | 20 | {right}",
    ]


@pytest.mark.parametrize("padding", ["pre", "none"])
def test_a_study_with_one_way_of_training_has_a_report(padding: Padding, results: Results) -> None:
    train = results.params.train.model_copy(update={"padding": [padding]})
    params = results.params.model_copy(update={"train": train})
    kept = {"init", trained_weights(params)[padding]}
    changed: dict[str, Any] = {
        name: table[table["weights"].isin(kept)]
        for name, table in vars(results).items()
        if isinstance(table, pd.DataFrame) and "weights" in table
    }
    changed["evidence"] = {
        name: table[table["weights"].isin(kept)] if "weights" in table else table
        for name, table in results.evidence.items()
    }
    changed["triangles"] = {k: v for k, v in results.triangles.items() if k[1] in kept}
    one = replace(results, **changed, params=params)
    svgs = draw_figures(one, np.arange(1, 1404), 1403)
    page = render_markdown(one, CLAIMS, svgs, TIMES)
    other = {"pre": "trained without padding", "none": "trained with padding"}[padding]
    words = page.split("## Does training open the gates?")[1].split("## The data")[0]
    assert f"| {other} |" not in words
    # in made-up results the models trained with padding did not read words alone
    told = [line.startswith("Trained without padding,") for line in answer(one, CLAIMS)]
    assert any(told) == (padding == "none")
    assert list(metrics.metrics_summary(one, CLAIMS)["rnn"]) == list(one.weights)[1:]


def test_metrics_are_nested_by_cell(results: Results) -> None:
    summary = metrics.metrics_summary(results, CLAIMS)
    assert summary["claims"] == {"holds": 0, "holds_only_if": 1, "does_not_hold": 1}
    question = summary["conditions"]["question"]["lstm"]
    assert (question["log10_at_end"], question["float32_zero_from"]) == (-96.0, 551)
    # JSON has no infinity, and what was never reached is no number
    assert "log10_at_end" not in summary["conditions"]["float32_flushed"]["lstm"]
    assert summary["rnn"]["trained_without_padding"]["test"]["accuracy"] == 0.9


def test_the_html_is_whole_and_asks_nobody_for_anything(page: str, svgs: dict[str, str]) -> None:
    html = render_html(page, svgs)
    assert html.count("<figure>") == html.count("<figcaption>") == html.count("<svg") == len(svgs)
    links = r"(doi|arxiv)\.org|(discuss\.tensorflow|weberna\.github|prvnk10\.medium)\.\w+"
    links += r"|kikaben\.com|stats\.stackexchange\.com"
    assert not re.search(
        rf'src="(?!data:)|href="(?!#|data:|explore.html"|https://({links})/)', html
    )
    assert "url(http" not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert targets <= set(ids)
    for svg in svgs.values():
        ET.fromstring(svg)


def test_a_term_leads_to_its_words_where_it_first_stands(page: str, svgs: dict[str, str]) -> None:
    shown = render_html(page, svgs)
    links = re.findall(r'<a href="#words-used-here" title="([^"<]+)">(.*?)</a>', shown)
    assert {"orthogonal", "decades"} <= {term for _, term in links}
    assert len({term for _, term in links}) == len(links)
    assert 'id="words-used-here"' in shown


def test_without_a_gated_cell_there_is_no_figure_of_gates(results: Results) -> None:
    params = results.params.model_copy(update={"cells": {"rnn": {}}})
    alone = replace(results, params=params, gates=results.gates.iloc[:0])
    assert figures.gates(alone) is None
    page = render_markdown(alone, CLAIMS, {"jacobian", "training"}, TIMES)
    assert "(figures/gates.svg)" not in page
    assert "| RNN | untrained |  |  |" in page


def test_each_stage_has_the_seconds_of_all_its_cells(page: str) -> None:
    assert "`train, cells, embed` | `build/train/` | 42 |" in page
    assert "`mlflow.db` | – |" in page
    assert "on 3 cores (a chip): 0.8 minutes together" in page


def test_figures_repeat_to_the_last_byte(results: Results, svgs: dict[str, str]) -> None:
    assert to_svg(draw_figures(results, np.ones(3, int), 1)["jacobian"]) == svgs["jacobian"]


def test_curves_that_leave_the_frame_are_named(results: Results) -> None:
    steep = replace(results, curves=make_curves({"rnn": -2.0, "lstm": -0.1}))
    figure = figures.jacobian(steep)
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ["RNN: 3 of 3 seeds below, to -1000", "LSTM", "gates", "RNN"]


def test_a_claim_is_a_verdict_a_sentence_and_a_table(page: str) -> None:
    first, second = page.split("\n### ")[1:3]
    assert first.startswith("1. ∂c<sub>t</sub>/∂c<sub>0</sub> falls sharply")
    assert "**Does not hold.**\nAt the last step the true mean is 10<sup>−96.0</sup>, and" in first
    assert "shows exactly 0 from step 551 on.\n*([the question](#to-read-on))*" in first
    assert "| exact | −1.90 | −96.0 | 0 of 3 seeds |  |" in first
    assert "Decided by" not in first  # there is no interval
    assert "**Holds only with padding.**\nThe RNN's lead over the LSTM is +3.0 decades in" in second
    assert "| without padding | −49.0 | −50.0 to −48.0 |" in second
    assert "*Decided by* the difference in the question's setting: +3 (+2 to +4)." in second


def test_every_claim_is_shown(results: Results, svgs: dict[str, str]) -> None:
    markdown = render_markdown(results, COMMITTED, svgs, TIMES)
    section = markdown.split("## Claims")[1].split("\n## ")[0]
    shown = section.split("\n### ")[1:]
    assert [part.partition(".")[0] for part in shown] == [str(i) for i in range(1, 12)]
    for part in shown:
        assert re.match(r"\d+\. .*[^.]\.\n\n\*\*(Holds|Does not hold)", part)
        assert "\n| --- |" in part
        assert part.count("<details>") == part.count("</details>") == 1
        assert not re.search(r"None|Undefined|nan|\d\.\.|[{}]", part)
    page = render_html(markdown, svgs)
    assert page.count("<summary>How it was judged</summary>") == len(shown)


def test_a_number_without_an_interval_stands_alone(results: Results) -> None:
    def without_ends(claim: Claim) -> Claim:
        measured = {k: v for k, v in claim.measured.items() if not k.endswith(("/low", "/high"))}
        return replace(claim, measured=measured)

    alone = [without_ends(claim) for claim in COMMITTED]
    section = render_markdown(results, alone, NO_FIGURES, TIMES).split("## Claims")[1]
    rows = [line for line in section.split("\n## ")[0].split("\n") if line.startswith("| ")]
    assert len(rows) > 50
    assert not any(re.search(r"\d \(|\(\)", row) for row in rows)


def test_criteria_show_the_thresholds_of_the_code(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = render_markdown(results, COMMITTED, NO_FIGURES, TIMES)
    assert "within 0.04 decades of the forward influence" in before
    monkeypatch.setattr(claims, "AGREEMENT", 0.07)
    after = render_markdown(results, COMMITTED, NO_FIGURES, TIMES)
    assert "within 0.07 decades of the forward influence" in after


@pytest.mark.parametrize("end", [-44.9, -10.8])
def test_a_plateau_of_float32_is_spoken_of_where_there_is_one(end: float, results: Results) -> None:
    table = results.conditions.copy()
    table.loc[table["condition"] == "float32", "log10_at_end"] = end
    page = render_markdown(replace(results, conditions=table), CLAIMS, NO_FIGURES, TIMES)
    assert ("a plateau of denormal numbers" in page) == (end < -38)


def test_a_figure_shows_a_dollar_sign_and_no_tag() -> None:
    with figure_style():
        drawn = Figure()
        drawn.suptitle("$x_1$<b>")
    svg = to_svg(drawn)
    assert svg.count("<use ") == len("$x_1$<b>")  # one glyph each
    assert "<b>" not in svg


@pytest.mark.parametrize("value", ["a", "a`b", "``", "`<b>`", "x|y", "a\nb"])
def test_code_in_a_table_is_shown_as_it_is(value: str) -> None:
    table = f"| |\n| --- |\n| {words.code(value)} |"
    page = MarkdownIt("commonmark").enable("table").render(table)
    shown = html.unescape(re.search("<code>(.*?)</code>", page)[1])  # pyright: ignore
    assert shown == value.replace("\n", r"\n")


@pytest.mark.parametrize("value", ["a_b_c*d*", "<b>x</b>", "`x`", "[a](b)", "&lt;", "x|y", "~~x~~"])
def test_text_in_a_table_is_shown_as_it_is(value: str) -> None:
    table = f"| |\n| --- |\n| {words.text(value)} |"
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(table)
    assert f"<td>{html.escape(value)}</td>" in page
