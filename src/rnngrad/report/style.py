"""One look for all figures: Okabe and Ito's colours, which colour-blind readers can tell apart."""

import io
from functools import partial
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnngrad import plot
from rnngrad.plot import FLOAT32_NORMAL

WIDTH = 9.0  # inches: the report's column at 96 dpi
THIN = 4  # steps between the points that are drawn of a curve: a point per pixel
INK, GRID = "#24292f", "#c9ced4"
COLOURS = {cell: plot.COLOURS[n] for cell, n in plot.CELLS.items()}
DASHES = {"rnn": "-", "lstm": (0, (6, 1.5)), "gru": (0, (4, 1.5, 1, 1.5))}
MARKERS = {"rnn": "o", "lstm": "s", "gru": "^"}
NAMES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}

FLOAT32_DENORMAL = float(np.log10(np.finfo(np.float32).smallest_subnormal))

# figures.mplstyle for a block, or as a function's decorator; other figures keep their settings
figure_style = partial(style.context, "rnngrad.report.figures")


@figure_style()
def to_svg(figure: Figure) -> str:
    """The figure as SVG text, byte for byte the same for the same data."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def thinned(steps: Any, thin: int = THIN) -> Any:
    """Tell which of a curve's steps are drawn: one in ``thin``, and the last one."""
    return (steps % thin == 1) | (steps == steps.max())


def draw_limits(axis: Axes) -> None:
    """Mark where float32 ends: its normal numbers at a line, its denormal ones with a band."""
    axis.axhline(FLOAT32_NORMAL, color=INK, lw=0.9, ls="--")
    axis.axhspan(FLOAT32_DENORMAL, FLOAT32_NORMAL, color=INK, alpha=0.12, lw=0)
