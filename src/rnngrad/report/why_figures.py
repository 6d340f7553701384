"""The figures of "why is it zero?": the question's own windows, and what they do not show."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rnngrad.report.style import (
    COLOURS,
    DASHES,
    INK,
    NAMES,
    WIDTH,
    draw_limits,
    figure_style,
    thinned,
)

WINDOWS = [  # cell, condition, first and last step (from 1; from -19 on: the last 20)
    ("rnn", "question", 1, 500),
    ("rnn", "question", 900, 1400),
    ("lstm", "float32_flushed", 1, 20),
    ("lstm", "float32_flushed", -19, 0),
]
# What the question printed for steps 1 to 20 of the LSTM; its accumulator began with as
# many rows of zeros as there were batches, so that each value is half of a mean.
PUBLISHED_HALVES = [
    0.36652, 0.26928, 0.19765, 0.14536, 0.10951, 0.08471, 0.06685, 0.05373, 0.04373, 0.03606,
    0.03003, 0.02522, 0.02126, 0.01796, 0.01520, 0.01290, 0.01097, 0.00932, 0.00791, 0.00671,
]  # fmt: skip
PANELS = {  # condition: what is said above its panel
    "question": "The question's setting",
    "no_padding": "No padding",
    "torch_initializer": "Another initialiser",
    "torch_no_padding": "Neither",
}


@figure_style()
def windows_figure(curves: pd.DataFrame) -> Figure | None:
    """Draw the windows that the question looked through, on its own linear axes.

    The columns are condition, cell, step, log10, low, high. None where a window's condition was
    not run.
    """
    parts = [_window(curves, *window) for window in WINDOWS]
    if any(part.empty for part in parts):
        return None
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    for axis, part in zip(figure.subplots(2, 2).flat, parts, strict=True):
        _draw_window(axis, part)
    return figure


def _window(curves: pd.DataFrame, cell: str, condition: str, first: int, last: int) -> pd.DataFrame:
    part = curves.query("condition == @condition and cell == @cell")
    from_the_end = 0 if part.empty or first > 0 else part["step"].max()
    return part[part["step"].between(from_the_end + first, from_the_end + last)]


def _draw_window(axis: Axes, part: pd.DataFrame) -> None:
    cell, first, last = part["cell"].iloc[0], part["step"].min(), part["step"].max()
    low, middle, high = (10 ** part[name] for name in ("low", "log10", "high"))
    axis.plot(part["step"], middle, color=COLOURS[cell])
    axis.fill_between(part["step"], low, high, color=COLOURS[cell], alpha=0.2, lw=0)
    axis.set(
        title=f"{NAMES[cell]}, steps {first:,} to {last:,}",
        xlabel="step t",
        xlim=(first, last),
        ylabel="mean |d s_t / d s_0|",
    )
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if first == 1 and last == 20:
        values = 2 * np.array(PUBLISHED_HALVES)
        axis.plot(
            part["step"], values, "o", ms=4, mfc="none", color=INK, label="published, doubled"
        )
        axis.legend()
    axis.set_ylim(0, 1.05 * high.max() or 1)
    if not high.any():
        axis.annotate("exactly 0 in float32", (0.5, 0.1), xycoords="axes fraction", ha="center")


@figure_style()
def conditions_figure(curves: pd.DataFrame) -> Figure | None:
    """All steps on one log scale: the question's setting, and with padding or initialiser gone."""
    panels = [name for name in PANELS if (curves["condition"] == name).any()]
    if not panels:
        return None
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(WIDTH, 2.9 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    for axis, name in zip(axes.flat, panels, strict=False):
        for cell, curve in curves[curves["condition"] == name].groupby("cell", sort=False):
            at, colour, label = curve[thinned(curve["step"])], COLOURS[str(cell)], NAMES[str(cell)]
            axis.plot(at["step"], at["log10"], color=colour, ls=DASHES[str(cell)], label=label)
            end = at["step"].iloc[-1], at["log10"].iloc[-1]
            axis.annotate(label, end, (0, 8), textcoords="offset points", color=colour, ha="right")
            axis.fill_between(at["step"], at["low"], at["high"], color=colour, alpha=0.2, lw=0)
        draw_limits(axis)
        axis.set_title(PANELS[name])
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("log10 of mean |d state_t / d state_0|", fontsize="small")
    for axis in axes[-1]:
        axis.set(xlabel="step t", xlim=(0, None))
    handles = {h.get_label(): h for axis in axes.flat for h in axis.get_lines()}
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4)
    return figure
