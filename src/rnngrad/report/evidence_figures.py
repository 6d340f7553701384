"""Figures behind the claims: the triangle of weight gradients, two paths, what is remembered."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from rnngrad.intervals import mean_interval
from rnngrad.report.figures import FLOOR, WIDTH
from rnngrad.report.style import COLOURS, INK, NAMES, WEIGHTS, figure_style

PATHS = {  # statistic: label, colour and line; COLOURS are the cells'
    "frobenius": ("total", COLOURS["lstm"], "-"),
    "cell_path": ("cell path: the forget gates alone", INK, ":"),
    "hidden_path": ("hidden path: through h at least once", "#cc79a7", "--"),
}
FIRST_STEPS = 60


def triangle_figure(triangles: Mapping[tuple[str, str], NDArray[np.float32]]) -> Figure:
    """The triangle of per-step parts of dL_T/dW_hh, trained models, one panel per cell.

    Args:
        triangles: by cell and weights, (T, T) log10 relative to the largest part of the row.
    """
    trained = {
        cell: values for (cell, weights), values in triangles.items() if weights == "trained"
    }
    with figure_style():
        figure = Figure(figsize=(WIDTH, 1.4 + WIDTH / len(trained)), layout="constrained")
        axes = figure.subplots(1, len(trained), sharey=True, squeeze=False)[0]
        for axis, (cell, values) in zip(axes, trained.items(), strict=True):
            T = len(values)
            axis.imshow(
                values, vmin=-4, vmax=0, cmap="cividis", extent=(0.5, T + 0.5, T + 0.5, 0.5)
            )
            axis.grid(visible=False)
            axis.set(title=f"{NAMES[cell]}, trained", xlabel="step t at which W_hh is used")
        axes[0].set_ylabel("step T of the loss")
        figure.colorbar(
            axes[0].images[0],
            ax=axes.tolist(),
            label="log10 of the part's norm, relative to the row's largest",
            location="bottom",
            extend="min",
            shrink=0.6,
            aspect=40,
        )
        return figure


def paths_figure(curves: pd.DataFrame) -> Figure | None:
    """Total, cell path and hidden path of d c_t/d c_0, all steps above and the first ones below.

    Args:
        curves: those of :class:`~rnngrad.study.results.Results`; None where there is no LSTM.
    """
    lstm = curves[(curves["cell"] == "lstm") & curves["statistic"].isin(PATHS)]
    if lstm.empty:
        return None
    with figure_style():
        figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
        axes = figure.subplots(2, 2, sharey="row", height_ratios=[1.2, 1])
        for column, weights in zip(axes.T, WEIGHTS, strict=True):
            chosen = lstm[lstm["weights"] == weights]
            _draw_paths(column[0], chosen)
            _draw_paths(column[1], chosen[chosen["step"] <= FIRST_STEPS])
            column[0].set_title(f"LSTM, {WEIGHTS[weights]}")
            column[1].set_xlabel("step t")
        _keep_above(axes[0, 0], FLOOR)
        for axis in axes[:, 0]:
            axis.set_ylabel("log10 of the Frobenius norm", fontsize="small")
        handles = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
        return figure


def _draw_paths(axis: Axes, curves: pd.DataFrame) -> None:
    for statistic, (label, colour, line) in PATHS.items():
        chosen = curves[curves["statistic"] == statistic]
        median = chosen.groupby("step")["log10_median"].median()
        axis.plot(median.index, median.where(np.isfinite(median)), line, color=colour, label=label)
    axis.set_xlim(0, None)


def _keep_above(axis: Axes, floor: float) -> None:
    if axis.get_ylim()[0] < floor:
        axis.set_ylim(bottom=floor)


def remembered_figure(remembered: pd.DataFrame) -> Figure | None:
    """A figure of how well the last telling word is remembered, and how much gradient reaches it.

    Args:
        remembered: cell, seed, distance_median, auroc, log10_gradient; None where it is empty.
    """
    if remembered.empty:
        return None
    with figure_style():
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for cell, rows in remembered.groupby("cell", sort=False):
            _draw_over_distance(left, rows, str(cell), "auroc")
            _draw_over_distance(right, rows, str(cell), "log10_gradient")
        for axis in (left, right):
            axis.set(xlabel="words between the last telling word and the end", xscale="symlog")
            axis.set_xlim(0, None)
            ticks = [t for t in (0, 1, 3, 10, 30, 100, 300) if t <= axis.get_xlim()[1]]
            axis.set_xticks(ticks, [str(t) for t in ticks])
        left.set(title="What is remembered", ylabel="pairs in the right order (AUROC)")
        left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        right.set(title="What gradient reaches it", ylabel="log10 of |d logit / d state|, relative")
        left.axhline(0.5, color=INK, lw=0.9, ls="--", label="chance")
        left.legend(loc="best")
        return figure


def _draw_over_distance(axis: Axes, rows: pd.DataFrame, cell: str, column: str) -> None:
    by_bin = rows.pivot_table(index="distance_median", columns="seed", values=column)
    intervals = [mean_interval(values[~np.isnan(values)].tolist()) for values in by_bin.to_numpy()]
    mean = np.array([interval["mean"] for interval in intervals])
    axis.plot(by_bin.index, mean, "o-", ms=4, color=COLOURS[cell], label=NAMES[cell])
    low, high = (
        np.array([i["mean"] if i[end] is None else i[end] for i in intervals], dtype=float)
        for end in ("low", "high")
    )
    if column == "auroc":
        low, high = low.clip(0, 1), high.clip(0, 1)
    axis.fill_between(by_bin.index, low, high, color=COLOURS[cell], alpha=0.15, lw=0)
