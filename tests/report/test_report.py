"""The report of made-up results: what it says, that it is whole, and that it repeats."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from rnngrad.params import read_params
from rnngrad.report import figures, findings, why
from rnngrad.report.all_figures import all_figures
from rnngrad.report.answer import answer
from rnngrad.report.captions import ALT, CAPTIONS
from rnngrad.report.render import render_html, render_markdown
from rnngrad.report.style import to_svg
from rnngrad.study.claims.claim import Claim
from rnngrad.study.conditions.table import NUMBERS, STEP_NUMBERS, over_seeds
from rnngrad.study.results import Results

ROOT = Path(__file__).parent.parent.parent
T = 500


def make_curves(rate: dict[str, float]) -> pd.DataFrame:
    """Straight lines of ``rate`` decades per step: three seeds, both weights, all statistics."""
    parts = []
    for cell, decades in rate.items():
        statistics = ["column_sum", "frobenius", "spectral"] + ["cell_path"] * (cell == "lstm")
        for seed in (1, 2, 3):
            for weights in ("init", "trained"):
                for statistic in statistics:
                    step = np.arange(1, T + 1)
                    log10 = decades * step + 0.01 * seed
                    names = {"cell": cell, "seed": seed, "weights": weights}
                    values = dict.fromkeys(
                        ("log10_mean", "log10_median", "log10_low", "log10_high"), log10
                    )
                    names |= {"state": "h", "statistic": statistic}
                    parts.append(pd.DataFrame({**names, "step": step, **values, "examples": 4}))
    return pd.concat(parts)


ENDS = {  # condition: log10 at the end of RNN and LSTM
    "question": (-3.0, -96.0),
    "float32_flushed": (-3.0, -np.inf),
    "float32": (-3.0, -44.9),
    "no_padding": (-150.0, -101.0),
    "trained": (-140.0, -36.0),
    "averaging_bug": (-3.3, -96.3),
}
TIMES = {
    "processor": "a chip",
    "cores": 3,
    "seconds": {"sample": 5.0, "train@rnn": 10.4, "train@lstm": 31.2},
}
CLAIMS = [
    Claim(
        1, "dc_t/dc_0 is zero.", "the question", "zero", "10^-96.0; not 0", None, "does not hold"
    ),
    Claim(
        2,
        "The RNN's gradients behave better than the LSTM's on this task and sample.",
        "the question",
        "larger",
        "-3.0 decades",
        {"mean": -3.0, "low": -4.0, "high": -2.0},
        "holds only if …",
    ),
]


def make_condition_seeds() -> pd.DataFrame:
    rows = []
    for condition, ends in ENDS.items():
        for cell, end in zip(("rnn", "lstm"), ends, strict=True):
            for seed in (1, 2, 3):
                numbers = dict.fromkeys(NUMBERS, end)
                numbers["decades_per_step_padding"] = -0.001 if cell == "rnn" else -0.07
                numbers["float32_zero_from"] = 551 if end < -38 else np.nan
                numbers["horizon"] = 9 if cell == "lstm" else np.nan
                names = {"condition": condition, "factor": "some", "cell": cell, "seed": seed}
                rows.append(names | numbers)
    return pd.DataFrame(rows)


def make_condition_curves() -> pd.DataFrame:
    step = np.arange(1, 1404)
    parts = []
    for condition, ends in ENDS.items():
        for cell, end in zip(("rnn", "lstm"), ends, strict=True):
            line = np.where(step > 551, end, -0.07 * step) if end == -np.inf else end * step / 1403
            names = {"condition": condition, "cell": cell}
            parts.append(pd.DataFrame({**names, "step": step, "log10": line}))
    return pd.concat(parts).assign(low=lambda c: c["log10"], high=lambda c: c["log10"])


def make_remembered() -> pd.DataFrame:
    rows = [
        (cell, seed, distance, 0.9 - 0.001 * distance, -0.05 * distance)
        for cell in ("rnn", "lstm")
        for seed in (1, 2, 3)
        for distance in (3.0, 12.0, 40.0)
    ]
    columns = ["cell", "seed", "distance_median", "auroc", "log10_gradient"]
    return pd.DataFrame(rows, columns=columns)


def make_powers(last_move: float, measured: float = 0.0) -> pd.DataFrame:
    trained = {("trained", "padding"): (last_move, measured)}
    rows = [
        (seed, weights, kind, *trained.get((weights, kind), (1.5, -0.1)))
        for seed in (1, 2, 3)
        for weights in ("init", "trained")
        for kind in ("padding", "words")
    ]
    return pd.DataFrame(rows, columns=["seed", "weights", "input", "last_move", "measured"])


@pytest.fixture(scope="module")
def results() -> Results:
    params = read_params(ROOT / "params.yaml")
    params = params.model_copy(update={"cells": {"rnn": {}, "lstm": {}}})
    words = {"mean": 68.0, "median": 36.0, "p90": 149.0, "p95": 225.0, "p99": 618.0, "max": 1403}
    counts = {"comments": 10, "classes": {"0": 5, "1": 5}, "words": words}
    interval = {"mean": 0.9, "low": 0.85, "high": 1.05}
    epochs = pd.DataFrame(
        [
            (cell, seed, epoch, split, 0.7 / epoch, 1 - 0.5 / epoch)
            for cell in params.cells
            for seed in (1, 2, 3)
            for epoch in (1, 2)
            for split in ("train", "validation")
        ],
        columns=["cell", "seed", "epoch", "split", "loss", "accuracy"],
    )
    gates = pd.DataFrame(
        [
            (kind, (i + 0.5) / 50, 0.02, 0.5, "lstm", 1, weights)
            for kind in ("padding", "words")
            for weights in ("init", "trained")
            for i in range(50)
        ],
        columns=["input", "activation", "share", "mean", "cell", "seed", "weights"],
    )
    card: dict[str, Any] = {
        "parameters": 1234,
        "test_comments": 300,
        "settings": params.train.model_dump(),
        "test": {"per_seed": {"accuracy": [0.9, 0.9, 0.9]}},
    }
    metrics: dict[str, Any] = dict.fromkeys(("accuracy", "auroc", "f1", "loss"), interval)
    return Results(
        params=params,
        curves=make_curves({"rnn": -0.001, "lstm": -0.1}),
        gates=gates,
        history=epochs,
        metrics=dict.fromkeys(params.cells, metrics),
        model_cards=dict.fromkeys(params.cells, card),
        data_card={
            "source": "demo",
            "given": counts,
            "sample": counts,
            "filler": {"word": "the", "words_replaced": 7, "comments_left_whole": 1},
        },
        embed_card={
            "vectors": "corpus",
            "dimensions": 100,
            "types": 50,
            "coverage_of_tokens": 0.99,
            "coverage_of_types": 0.9,
        },
        # as it is read from its file: missing steps are NaN
        conditions=over_seeds(make_condition_seeds()).astype(dict.fromkeys(STEP_NUMBERS, float)),
        condition_seeds=make_condition_seeds(),
        condition_curves=make_condition_curves(),
        evidence={
            "remembered": make_remembered(),
            "powers": make_powers(0.0),
            "tutorial": pd.DataFrame(
                {"loss": [1, 2, 2], "step": [1, 1, 2], "norm": [0.4, 0.083, 0.19]}
            ),
        },
        triangles={
            (cell, weights): np.where(np.tri(9) > 0, -1.0 - i, np.nan).astype(np.float32)
            for i, cell in enumerate(params.cells)
            for weights in ("init", "trained")
        },
    )


@pytest.fixture(scope="module")
def svgs(results: Results) -> dict[str, str]:
    drawn = all_figures(results, np.arange(1, 1404), 1403)
    return {name: to_svg(figure) for name, figure in drawn.items()}


def test_every_figure_has_a_caption_and_an_alternative_text(svgs: dict[str, str]) -> None:
    assert set(svgs) == set(ALT) == set(CAPTIONS)


def test_the_answer_has_five_sentences_with_the_numbers(results: Results) -> None:
    zeros, padding, rnn, training, tutorials = answer(results, CLAIMS)
    assert "ends at 10^-96.0" in zeros
    assert "from step 551 on" in zeros
    assert "plateau of 10^-44.9" in zeros
    assert "keeps 85% of it per step" in padding
    assert "looked better only because" in rnn
    assert "10^-3.0 with padding and at 10^-150.0 without" in rnn
    assert "gets 90.0% (85.0% to 100.0%)" in training
    assert "10^-140.0" in training
    assert tutorials.startswith("2 statements")
    assert "0 of them hold, 1 only under a condition, and 1 not" in tutorials


def test_the_answer_says_how_far_the_trained_models_differ(
    results: Results, svgs: dict[str, str]
) -> None:
    seeds = results.condition_seeds.copy()
    chosen = (seeds["condition"] == "trained") & (seeds["cell"] == "rnn") & (seeds["seed"] == 2)
    seeds.loc[chosen, "log10_at_end"] = 0.5
    scattered = Results(**{**vars(results), "condition_seeds": seeds})
    training = answer(scattered, CLAIMS)[3]
    assert "ends at 10^-140.0 (10^-140.0 to 10^0.5, by seed); the LSTM" in training
    assert training.count("by seed") == 1
    page = render_markdown(scattered, CLAIMS, svgs, TIMES)
    assert "(10<sup>−140.0</sup> to 10<sup>0.5</sup>, by seed)" in page


def test_the_answer_does_without_what_was_not_run(results: Results) -> None:
    few = results.conditions.query("condition == 'trained'")
    short = answer(Results(**{**vars(results), "conditions": few}), [])
    assert len(short) == 1
    assert short[0].startswith("Trained")


def test_the_answer_does_not_call_the_rnn_worse_where_it_is_better(results: Results) -> None:
    table = results.conditions.copy()
    table.loc[table["condition"] == "no_padding", "log10_at_end"] = -5.0
    _, _, rnn, _, _ = answer(Results(**{**vars(results), "conditions": table}), CLAIMS)
    assert "looks better with padding and without" in rnn
    _, _, unsure, _, _ = answer(results, [replace(CLAIMS[0], id=2, verdict="does not hold")])
    assert "does not look better" in unsure


def test_the_answer_says_whether_the_trained_rnn_comes_to_rest(results: Results) -> None:
    _, _, _, resting, _ = answer(results, CLAIMS)
    assert "swings" not in resting
    evidence = results.evidence | {"powers": make_powers(1.25)}
    _, _, _, swinging, _ = answer(Results(**{**vars(results), "evidence": evidence}), CLAIMS)
    assert "10^-140.0, kept up in 3 of 3 models by a state that on padding never" in swinging
    assert "swings by up to 1.2 a step; the LSTM" in swinging
    # a state may move for ever without keeping anything
    evidence = results.evidence | {"powers": make_powers(1.25, measured=-0.1)}
    _, _, _, fading, _ = answer(Results(**{**vars(results), "evidence": evidence}), CLAIMS)
    assert "swings" not in fading


def test_the_answer_says_nothing_of_what_was_not_measured(results: Results) -> None:
    table = results.conditions.assign(decades_per_step_tokens=np.nan)
    assert not any("nan" in line for line in answer(with_conditions(results, table), CLAIMS))
    table = results.conditions.assign(decades_per_step_padding=0.02)
    assert (
        "a step of padding brings it 0.020 decades"
        in answer(with_conditions(results, table), CLAIMS)[1]
    )


def test_numbers_of_seeds_are_those_of_the_cells(results: Results) -> None:
    params = results.params.model_copy(update={"cells": {"rnn": {"seeds": [1, 2]}, "lstm": {}}})
    training = answer(Results(**{**vars(results), "params": params}), CLAIMS[:1])
    assert training[3].startswith("Trained (2 to 5 seeds; 95% intervals")
    assert training[4].startswith("1 statement of the question and of three tutorials was measured")


def with_conditions(results: Results, conditions: pd.DataFrame) -> Results:
    return Results(**{**vars(results), "conditions": conditions})


def test_a_cause_shows_only_what_was_run(results: Results) -> None:
    table = results.conditions
    lstm_alone = table[~((table["condition"] == "averaging_bug") & (table["cell"] == "rnn"))]
    row = why.printed_causes(lstm_alone).query("condition == '`averaging_bug`'").iloc[0]
    assert [row[name] for name in ("RNN ends at", "RNN moves by", "lead moves by")] == ["", "", ""]
    assert row["LSTM moves by"] == "−0.3"
    assert why.printed_causes(table[table["condition"] == "question"]).empty
    neither = table[table["condition"].isin(["question", "float32"])]
    assert why.cause_table(neither).empty


def test_the_report_says_what_padding_makes_of_the_comments(results: Results) -> None:
    def report(**changed: Any) -> str:
        embed = results.params.embed.model_copy(update=changed)
        params = results.params.model_copy(update={"embed": embed})
        return render_markdown(Results(**{**vars(results), "params": params}), CLAIMS, ALT, TIMES)

    assert "36 words; padding makes all of them as long as the longest comment." in report()
    assert "makes all of them as long as a comment cut to its last 100 words" in report(
        max_length=100
    )
    assert "36 words; nothing is padded." in report(padding="none")
    assert "zeros in front are run once" in report()
    assert "zeros in front are run once" not in report(padding="none")


def test_the_report_without_a_condition_says_nothing_of_it(results: Results) -> None:
    cases = results.params.conditions.cases
    question = results.params.conditions.model_copy(
        update={"cases": {"question": cases["question"]}}
    )
    params = results.params.model_copy(update={"conditions": question})
    table = results.conditions.query("condition == 'question'")
    less = Results(**{**vars(results), "params": params, "conditions": table})
    text = render_markdown(less, CLAIMS, ALT, TIMES)
    assert "|sum over i of J_ij|.\n" in text
    assert "minimal_example" not in text
    assert "Where did the question go wrong?" not in text


def test_causes_are_in_the_order_of_their_effect(results: Results) -> None:
    causes = why.cause_table(results.conditions).set_index("condition")
    assert list(causes.index) == ["trained", "no_padding", "float32_flushed", "averaging_bug"]
    # the question's lead is 93 decades
    assert causes.loc["trained", "lead_change"] == pytest.approx(-140 + 36 - 93)
    assert causes.loc["averaging_bug", "lead_change"] == pytest.approx(0)
    hidden = causes.loc["float32_flushed", "lstm_change"]
    assert hidden == pytest.approx(-96 + 37.93)
    assert why.printed_causes(results.conditions)["LSTM ends at"].tolist()[2] == "exactly 0"


def test_causes_need_the_question_s_own_setting(results: Results) -> None:
    assert why.cause_table(results.conditions.query("condition != 'question'")).empty


def test_the_table_holds_every_curve_at_the_milestones(results: Results) -> None:
    table = findings.curve_table(results)
    assert list(table.columns[3:]) == ["t = 1", "t = 20", "t = 100", "t = 400", "t = 500"]
    assert len(table) == 2 * 3 + 2 * 4
    row = table.query("cell == 'LSTM' and weights == 'trained' and statistic == 'Frobenius'")
    assert row["t = 100"].item() == "−9.98"


def test_metrics_are_nested_by_cell(results: Results) -> None:
    summary = findings.metrics_summary(results)
    assert summary["lstm"]["init"]["below_float32_from"] == 380
    assert summary["rnn"]["trained"]["below_float32_from"] is None
    assert summary["rnn"]["test"]["accuracy"] == 0.9


def test_the_html_is_whole_and_asks_nobody_for_anything(
    results: Results, svgs: dict[str, str]
) -> None:
    html = render_html(render_markdown(results, CLAIMS, svgs, TIMES), svgs)
    assert html.count("<figure>") == html.count("<figcaption>") == html.count("<svg") == len(svgs)
    assert not re.search(r'(src|href)="(?!#|data:)', html)
    assert "url(http" not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert targets <= set(ids)
    for svg in svgs.values():
        ET.fromstring(svg)


def test_markdown_links_every_figure_and_fills_every_number(
    results: Results, svgs: dict[str, str]
) -> None:
    markdown = render_markdown(results, CLAIMS, svgs, TIMES)
    assert set(re.findall(r"\(figures/(\w+)\.svg\)", markdown)) == set(svgs)
    assert "{" not in markdown.split("## How each number")[0]
    assert "nan" not in markdown.lower()


def test_without_a_gated_cell_there_is_no_gates_section(results: Results) -> None:
    params = results.params.model_copy(update={"cells": {"rnn": {}}})
    alone = Results(**{**vars(results), "params": params, "gates": results.gates.iloc[:0]})
    assert figures.gates_figure(alone) is None
    assert "## The gates" not in render_markdown(alone, CLAIMS, {"jacobian", "training"}, TIMES)


def test_each_stage_has_the_seconds_of_all_its_cells(
    results: Results, svgs: dict[str, str]
) -> None:
    markdown = render_markdown(results, CLAIMS, svgs, TIMES)
    assert "`train, cells, embed` | `build/train/` | 42 |" in markdown
    assert "`mlflow.db` | – |" in markdown
    assert "on 3 cores (a chip): 0.8 minutes together" in markdown


def test_figures_repeat_to_the_last_byte(results: Results, svgs: dict[str, str]) -> None:
    assert to_svg(figures.jacobian_figure(results)) == svgs["jacobian"]


def test_curves_that_leave_the_frame_are_named(results: Results) -> None:
    steep = Results(**{**vars(results), "curves": make_curves({"rnn": -2.0, "lstm": -0.1})})
    figure = figures.jacobian_figure(steep)
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ["RNN: 3 of 3 seeds below, to -1000"]


def test_claims_are_set_as_a_table_of_sentences(results: Results, svgs: dict[str, str]) -> None:
    markdown = render_markdown(results, CLAIMS, svgs, TIMES)
    assert "| 1 | ∂c<sub>t</sub>/∂c<sub>0</sub> is zero. *(the question)* |" in markdown
    assert "| **holds only if …** | −3.0 decades<br>[−3; −4 to −2] |" in markdown
    assert "10<sup>−96.0</sup>;<br>not 0 |" in markdown
    assert "1. zero\n2. larger" in markdown
    assert '<div class="table prose">' in render_html(markdown, svgs)


@pytest.mark.parametrize("end", [-44.9, -10.8])
def test_a_plateau_of_float32_is_spoken_of_where_there_is_one(end: float) -> None:
    conditions = pd.DataFrame({"condition": ["float32", "question"], "log10_at_end": [end, -96.0]})
    assert why.falls_below_float32(conditions, "float32") == (end < -38)
    assert not why.falls_below_float32(conditions, "not_run")
