"""The figures of the report, from result tables to matplotlib figures.

All axes of gradients are log10, so that 10^-300 and 1 fit on one picture.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from rnngrad.intervals import mean_interval
from rnngrad.report.style import (
    COLOURS,
    FLOAT32_DENORMAL,
    FLOAT32_NORMAL,
    INK,
    NAMES,
    WEIGHTS,
    figure_style,
)
from rnngrad.study.results import Results

WIDTH = 9.0  # inches: the report's column at 96 dpi
THIN = 4  # steps between the points that are drawn of a curve over all steps: a point per pixel
FLOOR = -300.0  # log10; a trained RNN may go on to -1000 and would squeeze everything else


def jacobian_figure(results: Results) -> Figure:
    """Column-sum statistic of d s_t/d s_0 over all steps: untrained left, trained right."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, weights in zip(axes, WEIGHTS, strict=True):
            for cell in results.cells:
                _draw_curves(axis, results.curves, cell, weights, "column_sum")
            if "lstm" in results.cells:
                _draw_curves(axis, results.curves, "lstm", weights, "cell_path")
            draw_float32_limits(axis)
            _note_what_leaves(axis, results, weights)
            axis.set(title=WEIGHTS[weights].capitalize(), xlabel="step t", xlim=(0, None))
        axes[0].set_ylabel("log10 of mean |d state_t / d state_0|")
        lines = axes[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=3)
        return figure


def _draw_curves(axis: Axes, curves: pd.DataFrame, cell: str, weights: str, statistic: str) -> None:
    chosen = curves.query("cell == @cell and weights == @weights and statistic == @statistic")
    by_step = chosen.pivot_table(index="step", columns="seed", values="log10_median")
    by_step = by_step[(by_step.index % THIN == 1) | (by_step.index == by_step.index.max())]
    is_cell_path = statistic == "cell_path"
    label = "forget gates alone (LSTM)" if is_cell_path else NAMES[cell]
    style: dict[str, Any] = {
        "color": INK if is_cell_path else COLOURS[cell],
        "ls": ":" if is_cell_path else "-",
    }
    axis.plot(by_step.index, by_step.to_numpy(), alpha=0.35, lw=0.8, **style)
    axis.plot(by_step.index, by_step.median(axis=1), label=label, **style)


def _note_what_leaves(axis: Axes, results: Results, weights: str) -> None:
    curves = results.curves.query("weights == @weights and statistic == 'column_sum'")
    lowest = curves.groupby(["cell", "seed"])["log10_median"].min()
    leaving = lowest[lowest < FLOOR]
    if leaving.empty:
        return
    axis.set_ylim(bottom=FLOOR)
    notes = [
        f"{NAMES[str(cell)]}: {len(seeds)} of {len(lowest[cell])} seeds below, to {seeds.min():.0f}"
        for cell, seeds in leaving.groupby(level="cell")
    ]
    axis.annotate(
        "\n".join(notes), (0.98, 0.02), xycoords="axes fraction", ha="right", fontsize="small"
    )


def draw_float32_limits(axis: Axes) -> None:
    axis.axhline(FLOAT32_NORMAL, color=INK, lw=0.9, ls="--", label="smallest normal float32")
    axis.axhspan(FLOAT32_DENORMAL, FLOAT32_NORMAL, color=INK, alpha=0.12, lw=0)


def training_figure(results: Results) -> Figure:
    """Loss and accuracy per epoch; bands are 95% intervals of the mean over seeds."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.subplots(1, 2)
        for axis, metric in zip(axes, ("loss", "accuracy"), strict=True):
            for cell in results.cells:
                for split, line in (("validation", "-"), ("train", "--")):
                    _draw_epochs(axis, results.history, cell, split, metric, line)
            axis.set(title=metric.capitalize(), xlabel="epoch")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylabel("cross-entropy (nats)")
        axes[1].set_ylabel("share of comments")
        axes[1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return figure


def _draw_epochs(
    axis: Axes, history: pd.DataFrame, cell: str, split: str, metric: str, line: str
) -> None:
    chosen = history.query("cell == @cell and split == @split")
    by_epoch = chosen.pivot_table(index="epoch", columns="seed", values=metric)
    intervals = [mean_interval(row.tolist()) for row in by_epoch.to_numpy()]
    mean = [interval["mean"] for interval in intervals]
    label = f"{NAMES[cell]}, {split}"
    axis.plot(by_epoch.index, mean, line, color=COLOURS[cell], label=label)
    if split == "validation" and by_epoch.shape[1] > 1:
        low = np.array([interval["low"] for interval in intervals], dtype=float)
        high = np.array([interval["high"] for interval in intervals], dtype=float)
        if metric == "accuracy":
            low, high = low.clip(0, 1), high.clip(0, 1)
        axis.fill_between(by_epoch.index, low, high, color=COLOURS[cell], alpha=0.15, lw=0)


def gates_figure(results: Results) -> Figure | None:
    """Distribution of the gate that keeps the state, before and after training; None for RNNs."""
    gates = results.gates
    cells = [cell for cell in results.cells if cell in set(gates["cell"])]
    if not cells:
        return None
    inputs = [kind for kind in ("padding", "words") if kind in set(gates["input"])]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 3.0 * len(cells)), layout="constrained")
        rows = figure.subplots(len(cells), len(inputs), sharex=True, squeeze=False)
        for cell, row in zip(cells, rows, strict=True):
            for kind, axis in zip(inputs, row, strict=True):
                _draw_gates(axis, gates.query("cell == @cell and input == @kind"), COLOURS[cell])
                gate = "forget gate" if cell == "lstm" else "update gate"
                axis.set(title=f"{NAMES[cell]}, {gate} on {kind}", xlim=(0, 1), xlabel="activation")
            row[0].set_ylabel("share of activations")
            row[0].legend()
        return figure


def _draw_gates(axis: Axes, gates: pd.DataFrame, colour: str) -> None:
    for weights, fill in (("init", False), ("trained", True)):
        shares = gates[gates["weights"] == weights].groupby("activation")["share"].mean()
        edges = np.append(shares.index - 0.01, 1.0)
        style = {"color": colour, "alpha": 0.45} if fill else {"color": INK, "lw": 1.2}
        axis.stairs(shares, edges, fill=fill, label=WEIGHTS[weights], **style)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def lengths_figure(lengths: NDArray[np.int64], most: int, padding: str) -> Figure:
    """How long the comments are, and how many steps they have at most, or padding makes of all."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        axis = figure.subplots()
        edges = np.unique(np.geomspace(1, lengths.max() + 1, 40).round()).tolist()
        axis.hist(lengths, edges, color=COLOURS["gru"], alpha=0.7)
        axis.set(xscale="log", xlabel="words of a comment", ylabel="comments")
        axis.axvline(most, color=INK, ls="--", lw=0.9)
        axis.annotate(
            f"{'at most' if padding == 'none' else 'padded to'} {most:,}",
            (most, 0.95),
            xycoords=axis.get_xaxis_transform(),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            va="top",
        )
        axis.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        return figure
