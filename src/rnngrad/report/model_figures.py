"""Figures of the study's models: what they learn, their gradients, gates and paths, their data.

All axes of gradients are log10, so that 10^-300 and 1 fit on one picture.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from rnngrad.intervals import mean_interval
from rnngrad.report import style
from rnngrad.report.style import (
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    NAMES,
    WIDTH,
    figure_style,
)
from rnngrad.study import WEIGHTS
from rnngrad.study.results import Results

FLOOR = -300.0  # log10; a trained RNN may go on to -1000 and would squeeze everything else
PATHS = {  # statistic: label, colour and line; COLOURS are the cells'
    "frobenius": ("total", COLOURS["lstm"], "-"),
    "cell_path": ("cell path: the forget gates alone", INK, ":"),
    "hidden_path": ("hidden path: through h at least once", "#cc79a7", "--"),
}
FIRST_STEPS = 60
YLABELS = {"loss": "cross-entropy (nats)", "accuracy": "share of comments"}


@figure_style()
def training_figure(results: Results) -> Figure:
    """Loss and accuracy per epoch; bands are 95% intervals of the mean over seeds."""
    ways = results.weights[1:]
    figure = Figure(figsize=(WIDTH, 0.8 + 2.6 * len(ways)), layout="constrained")
    axes = figure.subplots(len(ways), 2, sharex=True, sharey="col", squeeze=False)
    for axis, (weights, metric) in zip(axes.flat, product(ways, YLABELS), strict=True):
        history = results.history[results.history["weights"] == weights]
        for cell, (split, width) in product(results.cells, (("validation", 1.8), ("train", 0.7))):
            rows = history.query("cell == @cell and split == @split")
            look = {"label": f"{NAMES[cell]}, {split}", "ls": DASHES[cell], "lw": width}
            _draw_mean(axis, rows, ("epoch", metric), band=split == "validation", **look)
        axis.set(title=f"{metric.capitalize()}, {WEIGHTS[weights]}", ylabel=YLABELS[metric])
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@figure_style()
def remembered_figure(results: Results) -> Figure:
    """Show how well the last telling word is remembered, above how far back the loss reaches.

    A column per way of training; the loss alone where no telling word is known.
    """
    remembered, reach = results.evidence["remembered"], results.evidence["reach"]
    ways, rows = results.weights[1:], 2 - remembered.empty
    figure = Figure(figsize=(WIDTH, 0.8 + 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, len(ways), sharex=True, sharey="row", squeeze=False)
    if rows == 2:
        axes[0, 0].set_ylabel("pairs in the right order (AUROC)", fontsize="small")
        axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[-1, 0].set_ylabel("log10 of |d logit / d state|, relative", fontsize="small")
    for weights, (above, axis) in zip(ways, axes[[0, -1]].T, strict=True):
        above.set_title(WEIGHTS[weights].capitalize())
        for cell in results.cells:
            curves = reach.query("cell == @cell and weights == @weights")
            for state, own in curves.groupby("state"):
                beside = (cell, state) == ("lstm", "h")
                look = {"label": f"{NAMES[cell]}, {state}", "lw": 0.8 if beside else 1.8}
                names = ("distance", "log10")
                _draw_mean(axis, own, names, band=not beside, ls=DASHES[cell], **look)
            telling = remembered.query("cell == @cell and weights == @weights")
            if rows == 2:
                look = {"marker": MARKERS[cell], "ms": 4}
                _draw_mean(above, telling, ("distance_median", "auroc"), band=True, **look)
                look |= {"ls": "none", "mfc": "none"}
                _draw_mean(axis, telling, ("distance_median", "log10_gradient"), band=False, **look)
        axis.set(xlabel="words to the end", xscale="symlog", xlim=(0, None))
        ticks = [t for t in (0, 1, 3, 10, 30, 100, 300) if t <= axis.get_xlim()[1]]
        axis.set_xticks(ticks, [str(t) for t in ticks])
    figure.legend(*axes[-1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_mean(
    axis: Axes, rows: pd.DataFrame, names: tuple[str, str], *, band: bool, **look: Any
) -> None:
    """The mean over a cell's seeds, with a band for its 95% interval; NaN are left out.

    ``names`` are the columns on the axes x and y. The band is cut to what shares can be.
    """
    x, y = names
    by_seed, colour = rows.pivot_table(y, x, "seed"), COLOURS[rows["cell"].iloc[0]]
    found = pd.DataFrame(
        [{**mean_interval(own.dropna().tolist())} for _, own in by_seed.iterrows()]
    )
    axis.plot(by_seed.index, found["mean"], color=colour, **look)
    if band:
        low, high = (found[end].astype(float).fillna(found["mean"]) for end in ("low", "high"))
        if y in ("accuracy", "auroc"):
            low, high = low.clip(0, 1), high.clip(0, 1)
        axis.fill_between(by_seed.index, low, high, color=colour, alpha=0.15, lw=0)


@figure_style()
def jacobian_figure(results: Results) -> Figure:
    """Column-sum statistic of d s_t/d s_0 over all steps, before and after training."""
    figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
    axes = figure.subplots(1, len(results.weights), sharey=True)
    for axis, weights in zip(axes, results.weights, strict=True):
        curves = results.curves[results.curves["weights"] == weights]
        for cell in results.cells:
            own = curves.query("cell == @cell and statistic == 'column_sum'")
            _draw_seeds(axis, own, label=NAMES[cell], color=COLOURS[cell], ls=DASHES[cell])
        if "lstm" in results.cells:
            gates = curves[curves["statistic"] == "cell_path"]
            _draw_seeds(axis, gates, label="forget gates alone (LSTM)", color=INK, ls=":")
        style.draw_limits(axis)
        _note_what_leaves(axis, curves[curves["statistic"] == "column_sum"])
        axis.set(title=WEIGHTS[weights].capitalize(), xlabel="step t", xlim=(0, None))
    axes[0].set_ylabel("log10 of mean |d state_t / d state_0|")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_seeds(axis: Axes, curves: pd.DataFrame, *, label: str, **look: Any) -> None:
    by_step = curves.pivot_table("log10_median", "step", "seed")
    by_step = by_step[style.thinned(by_step.index)]
    axis.plot(by_step.index, by_step.to_numpy(), alpha=0.7, lw=0.7, **look)
    axis.plot(by_step.index, by_step.median(axis=1), lw=2.2, label=label, **look)


def _note_what_leaves(axis: Axes, curves: pd.DataFrame) -> None:
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


@figure_style()
def gates_figure(results: Results) -> Figure | None:
    """Distribution of the gate that keeps the state, before and after training; None for RNNs."""
    gates = results.gates
    cells = [cell for cell in results.cells if cell in set(gates["cell"])]
    if not cells:
        return None
    inputs = [kind for kind in ("padding", "words") if kind in set(gates["input"])]
    figure = Figure(figsize=(WIDTH, 3.0 * len(cells)), layout="constrained")
    rows = figure.subplots(len(cells), len(inputs), sharex=True, squeeze=False)
    for cell, row in zip(cells, rows, strict=True):
        for kind, axis in zip(inputs, row, strict=True):
            own = gates.query("cell == @cell and input == @kind")
            shares = own.pivot_table("share", "activation", "weights")
            edges = np.append(shares.index - 0.01, 1.0)
            axis.stairs(shares["init"], edges, label=WEIGHTS["init"], color=INK, lw=1.2)
            for weights in shares.columns.drop("init"):
                # those that were trained on words alone are a line in the same colour
                look = {"alpha": 0.35, "fill": True} if weights == "trained" else {"lw": 1.8}
                label = WEIGHTS[weights]
                axis.stairs(shares[weights], edges, label=label, color=COLOURS[cell], **look)
            axis.yaxis.set_major_formatter(PercentFormatter(1.0))
            gate = "forget gate" if cell == "lstm" else "update gate"
            axis.set(title=f"{NAMES[cell]}, {gate} on {kind}", xlim=(0, 1), xlabel="activation")
        row[0].set_ylabel("share of activations")
        row[-1].legend()
    return figure


@figure_style()
def triangle_figure(triangles: Mapping[tuple[str, str], NDArray[np.float32]]) -> Figure:
    """Draw trained models' per-step parts of dL_T/dW_hh, one panel per cell.

    ``triangles`` are (T, T) by cell and weights: log10 relative to the largest part of the row.
    """
    cells, kinds = (list(dict.fromkeys(names)) for names in zip(*triangles, strict=True))
    ways = kinds[1:]
    side = WIDTH / len(cells)
    figure = Figure(figsize=(WIDTH, 1.4 + side * len(ways)), layout="constrained")
    axes = figure.subplots(len(ways), len(cells), sharex=True, sharey=True, squeeze=False)
    for axis, (weights, cell) in zip(axes.flat, product(ways, cells), strict=True):
        values = triangles[cell, weights]
        T = len(values)
        axis.imshow(values, vmin=-4, vmax=0, cmap="cividis", extent=(0.5, T + 0.5, T + 0.5, 0.5))
        axis.grid(visible=False)
        axis.set_title(f"{NAMES[cell]}, {WEIGHTS[weights]}", fontsize="small")
    for axis in axes[-1]:
        axis.set_xlabel("step t at which W_hh is used")
    for axis in axes[:, 0]:
        axis.set_ylabel("step T of the loss")
    figure.colorbar(
        axes[0, 0].images[0],
        ax=axes.ravel().tolist(),
        label="log10 of the part's norm, relative to the row's largest",
        location="bottom",
        extend="min",
        shrink=0.6,
        aspect=40,
    )
    return figure


@figure_style()
def paths_figure(curves: pd.DataFrame) -> Figure | None:
    """Draw total, cell path and hidden path of d c_t/d c_0, all steps above the first ones.

    ``curves`` are those of :class:`~rnngrad.study.results.Results`; None where there is no LSTM.
    """
    lstm = curves[(curves["cell"] == "lstm") & curves["statistic"].isin(PATHS)]
    if lstm.empty:
        return None
    by_weights = lstm.groupby("weights", sort=False)
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    axes = figure.subplots(2, len(by_weights), sharey="row", height_ratios=[1.2, 1])
    for column, (weights, chosen) in zip(axes.T, by_weights, strict=True):
        _draw_paths(column[0], chosen)
        _draw_paths(column[1], chosen[chosen["step"] <= FIRST_STEPS])
        column[0].set_title(f"LSTM, {WEIGHTS[str(weights)]}", fontsize="small")
        column[1].set_xlabel("step t")
    axes[0, 0].set_ylim(bottom=max(axes[0, 0].get_ylim()[0], FLOOR))
    for axis in axes[:, 0]:
        axis.set_ylabel("log10 of the Frobenius norm", fontsize="small")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_paths(axis: Axes, curves: pd.DataFrame) -> None:
    for statistic, (label, colour, line) in PATHS.items():
        chosen = curves[curves["statistic"] == statistic]
        median = chosen.groupby("step")["log10_median"].median()
        axis.plot(median.index, median.where(np.isfinite(median)), line, color=colour, label=label)
    axis.set_xlim(0, None)


@figure_style()
def lengths_figure(lengths: NDArray[np.int64], most: int, padded: bool) -> Figure:
    """Show how long comments are, and how many steps they have at most, or padding makes."""
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axis = figure.subplots()
    edges = np.unique(np.geomspace(1, lengths.max() + 1, 40).round()).tolist()
    axis.hist(lengths, edges, color=COLOURS["gru"], alpha=0.7)
    axis.set(xscale="log", xlabel="words of a comment", ylabel="comments")
    axis.axvline(most, color=INK, ls="--", lw=0.9)
    note = f"{'padded to' if padded else 'at most'} {most:,}"
    place = {"xytext": (-5, 0), "textcoords": "offset points", "ha": "right", "va": "top"}
    axis.annotate(note, (most, 0.95), xycoords=axis.get_xaxis_transform(), **place)
    axis.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    return figure
