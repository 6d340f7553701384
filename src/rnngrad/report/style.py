"""One look for all figures: Okabe and Ito's colours, which colour-blind readers can tell apart."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnngrad.intervals import mean_interval

WIDTH = 9.0  # inches: the report's column at 96 dpi
THIN = 4  # steps between the points that are drawn of a curve over all steps: a point per pixel
INK = "#24292f"
GRID = "#c9ced4"
COLOURS = {"rnn": "#d55e00", "lstm": "#0072b2", "gru": "#009e73"}
NAMES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
WEIGHTS = {"init": "untrained", "trained": "trained"}

# The limits of float32 as log10: the smallest normal number and the smallest denormal one.
FLOAT32_NORMAL = -37.93
FLOAT32_DENORMAL = -44.85

_RC: dict[Any, Any] = {
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "path",
    "svg.hashsalt": "rnngrad",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign of somebody's is no formula
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw within this context; nobody else's matplotlib settings are touched."""
    with mpl.rc_context(_RC):
        yield


def to_svg(figure: Figure) -> str:
    """The figure as SVG text, byte for byte the same for the same data."""
    buffer = io.StringIO()
    with figure_style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def draw_float32_limits(axis: Axes) -> None:
    axis.axhline(FLOAT32_NORMAL, color=INK, lw=0.9, ls="--", label="smallest normal float32")
    axis.axhspan(FLOAT32_DENORMAL, FLOAT32_NORMAL, color=INK, alpha=0.12, lw=0)


def draw_mean(
    axis: Axes, by_seed: pd.DataFrame, cell: str, line: str, *, share: bool, band: bool, label: str
) -> None:
    """The mean over seeds with a band for its 95% interval.

    Args:
        axis: where it is drawn.
        by_seed: a row per place on the x axis, a column per seed; NaN are left out.
        cell: whose colour it has.
        line: matplotlib's style of the line.
        share: whether the band is cut to what a share can be.
        band: whether there is a band.
        label: in the legend.
    """
    rows = [mean_interval(row[~np.isnan(row)].tolist()) for row in by_seed.to_numpy()]
    axis.plot(
        by_seed.index, [r["mean"] for r in rows], line, ms=4, color=COLOURS[cell], label=label
    )
    if not band:
        return
    ends = [(r["mean"], r["mean"]) if r["low"] is None else (r["low"], r["high"]) for r in rows]
    low, high = np.array(ends, dtype=float).T
    if share:
        low, high = low.clip(0, 1), high.clip(0, 1)
    axis.fill_between(by_seed.index, low, high, color=COLOURS[cell], alpha=0.15, lw=0)
