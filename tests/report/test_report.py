"""The report of made-up results: what it says, that it is whole, and that it repeats."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from rnngrad.params import read_params
from rnngrad.report import figures, findings
from rnngrad.report.render import render_html, render_markdown
from rnngrad.report.style import to_svg
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


@pytest.fixture
def results() -> Results:
    params = read_params(ROOT / "params.yaml")
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
    )


@pytest.fixture
def svgs(results: Results) -> dict[str, str]:
    gates = figures.gates_figure(results)
    assert gates is not None
    return {
        "jacobian": to_svg(figures.jacobian_figure(results)),
        "training": to_svg(figures.training_figure(results)),
        "gates": to_svg(gates),
        "lengths": to_svg(figures.lengths_figure(np.arange(1, 1404), 1403)),
    }


def test_the_answer_says_where_float32_ends(results: Results) -> None:
    untrained, trained, accuracy = findings.answer(results)
    # -0.1 t + 0.02 falls below -37.93 at t = 380
    assert "LSTM dc_t/dc_0 ends at 10^-50.0 (below float32 from step 380)" in untrained
    assert "RNN dh_t/dh_0 ends at 10^-0.5 (never below float32)" in untrained
    assert trained.startswith("Trained, over 500 steps of the median comment")
    assert "LSTM 90.0% (95% interval over seeds 85.0% to 100.0%)" in accuracy


def test_the_table_holds_every_curve_at_the_milestones(results: Results) -> None:
    table = findings.curve_table(results)
    assert list(table.columns[3:]) == ["t = 1", "t = 20", "t = 100", "t = 400", "t = 500"]
    assert len(table) == 2 * 3 + 2 * 4
    row = table.query("cell == 'LSTM' and weights == 'trained' and statistic == 'Frobenius'")
    assert row["t = 100"].item() == "-9.98"


def test_metrics_are_nested_by_cell(results: Results) -> None:
    summary = findings.metrics_summary(results)
    assert summary["lstm"]["init"]["below_float32_from"] == 380
    assert summary["rnn"]["trained"]["below_float32_from"] is None
    assert summary["rnn"]["test"]["accuracy"] == 0.9


def test_the_html_is_whole_and_asks_nobody_for_anything(
    results: Results, svgs: dict[str, str]
) -> None:
    html = render_html(render_markdown(results), svgs)
    assert html.count("<figure>") == html.count("<figcaption>") == html.count("<svg") == 4
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
    markdown = render_markdown(results)
    assert set(re.findall(r"\(figures/(\w+)\.svg\)", markdown)) == set(svgs)
    assert "{" not in markdown.split("## How each number")[0]
    assert "nan" not in markdown.lower()


def test_without_a_gated_cell_there_is_no_gates_section(results: Results) -> None:
    params = results.params.model_copy(update={"cells": {"rnn": {}}})
    alone = Results(**{**vars(results), "params": params, "gates": results.gates.iloc[:0]})
    assert figures.gates_figure(alone) is None
    assert "## The gates" not in render_markdown(alone)


def test_figures_repeat_to_the_last_byte(results: Results, svgs: dict[str, str]) -> None:
    assert to_svg(figures.jacobian_figure(results)) == svgs["jacobian"]


def test_curves_that_leave_the_frame_are_named(results: Results) -> None:
    steep = Results(**{**vars(results), "curves": make_curves({"rnn": -2.0, "lstm": -0.1})})
    figure = figures.jacobian_figure(steep)
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ["RNN: 3 of 3 seeds below, to -1000"]
