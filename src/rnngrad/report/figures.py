"""The figures: the question's own windows, and in log10 what models learn, keep and forget."""

from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from rnngrad import plot
from rnngrad.intervals import mean_interval
from rnngrad.report import style
from rnngrad.report.style import COLOURS, DASHES, INK, MARKERS, NAMES, WIDTH
from rnngrad.study import WEIGHTS
from rnngrad.study.results import Results

WINDOWS = [  # cell, condition, and which of the recorded steps
    ("rnn", "question", slice(500)),
    ("rnn", "question", slice(899, 1400)),
    ("lstm", "float32_flushed", slice(20)),
    ("lstm", "float32_flushed", slice(-20, None)),
]
PUBLISHED_HALVES = np.loadtxt(Path(__file__).with_name("published_halves.txt"))
PANELS = {  # condition: what is said above its panel
    "question": "The question's setting",
    "no_padding": "No padding, all words",
    "torch_initializer": "Another initialiser",
    "torch_no_padding": "Neither",
}
FLOOR = -300.0  # log10; a trained RNN may go on to -1000 and would squeeze everything else
PATHS = {  # statistic: label, colour and line; COLOURS are the cells'
    "frobenius": ("total", COLOURS["lstm"], "-"),
    "cell_path": ("cell path", INK, ":"),
    "hidden_path": ("hidden path", plot.COLOURS[3], "--"),
}
FIRST_STEPS = 60
YLABELS = {"loss": "cross-entropy (nats)", "accuracy": "share of comments"}


@style.figure_style()
def draw_figures(results: Results, lengths: NDArray[np.int64], most: int) -> dict[str, Figure]:
    """Draw what the results allow; ``lengths`` (n,) are words of comments, ``most`` their steps."""
    figures = (windows, conditions, training, remembered, jacobian, gates, triangle, paths)
    drawn = {draw.__name__: draw(results) for draw in figures}
    drawn["lengths"] = histogram(lengths, most, "trained" in results.weights)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _panels(
    height: float, rows: int, columns: int, *, width: float = WIDTH, **shared: Any
) -> tuple[Figure, NDArray[Any]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def windows(results: Results) -> Figure | None:
    """Draw the windows that the question looked through; None where a condition was not run."""
    curves = results.condition_curves
    figure, axes = _panels(4.6, 2, 2)
    for axis, (cell, condition, window) in zip(axes.flat, WINDOWS, strict=True):
        part = curves[(curves["condition"] == condition) & (curves["cell"] == cell)][window]
        if part.empty:
            return None
        steps, ends = part["step"], (part["step"].min(), part["step"].max())
        low, middle, high = (10 ** part[name] for name in ("low", "log10", "high"))
        axis.plot(steps, middle, color=COLOURS[cell])
        axis.fill_between(steps, low, high, color=COLOURS[cell], alpha=0.2, lw=0)
        axis.set(title=f"{NAMES[cell]}, steps {ends[0]:,} to {ends[1]:,}", xlabel="step t")
        axis.set(xlim=ends, ylabel="mean |d s_t / d s_0|")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if ends == (1, 20):
            look = {"ms": 4, "mfc": "none", "color": INK, "label": "published, doubled"}
            axis.plot(steps, 2 * PUBLISHED_HALVES, "o", **look)
            axis.legend()
        axis.set_ylim(0, 1.05 * high.max() or 1)
        if not high.any():
            axis.annotate("exactly 0 in float32", (0.5, 0.1), xycoords="axes fraction", ha="center")
    return figure


def conditions(results: Results) -> Figure | None:
    """All steps on one log scale: the question's setting, and with padding or initialiser gone."""
    by_name = dict(list(results.condition_curves.groupby("condition")))
    panels = [name for name in PANELS if name in by_name]
    if not panels:
        return None
    rows = -(-len(panels) // 2)
    # half a screen wide, or a phone, which shows it at two thirds of this size
    with mpl.rc_context({"font.size": 11.5}):
        height, columns = max(3.6, 2.05 * rows + 0.6), min(2, len(panels))
        figure, axes = _panels(height, rows, columns, width=5.5, sharex=True, sharey=True)
        figure.supxlabel("step t", fontsize="medium")
        figure.supylabel("log10 of mean |d state_t / d state_0|", fontsize="medium")
        for axis, name in zip(axes.flat, panels, strict=False):
            curves = by_name[name]
            for cell, curve in curves.groupby("cell", sort=False):
                at = curve[style.thinned(curve["step"])]
                steps, look = at["step"], {"color": COLOURS[str(cell)]}
                axis.plot(steps, at["log10"], ls=DASHES[str(cell)], label=NAMES[str(cell)], **look)
                axis.fill_between(steps, at["low"], at["high"], **look, alpha=0.2, lw=0)
            style.draw_limits(axis)
            axis.set(title=PANELS[name], xlim=(0, curves["step"].max()))
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(5))
        _name_lines(figure)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    return figure


def _name_lines(figure: Figure) -> None:
    """Write each line's label where it ends, beside its axis, one below the other."""
    for axis in figure.axes:
        inches = axis.bbox.height / mpl.rcParams["figure.dpi"]
        line = 1.35 * mpl.rcParams["font.size"] / 72 / inches  # as a part of the axis's height
        lowest, ends = np.inf, []
        for drawn in axis.get_lines():
            known = np.asarray(drawn.get_ydata(), float)
            known = known[np.isfinite(known)]
            if len(known) and not str(drawn.get_label()).startswith("_"):  # matplotlib's own labels
                ends.append((np.interp(known[-1], axis.get_ylim(), (0, 1)), drawn))
        for end, drawn in sorted(ends, key=itemgetter(0), reverse=True):
            lowest = min(end, lowest - line)
            place, look = (1.02, lowest), {"color": drawn.get_color(), "va": "center"}
            axis.annotate(str(drawn.get_label()), place, xycoords="axes fraction", **look)


def training(results: Results) -> Figure:
    """Loss and accuracy per epoch; bands are 95% intervals of the mean over seeds."""
    ways = results.weights[1:]
    figure, axes = _panels(0.8 + 2.6 * len(ways), len(ways), 2, sharex=True, sharey="col")
    for axis, (weights, metric) in zip(axes.flat, product(ways, YLABELS), strict=True):
        history = results.history[results.history["weights"] == weights]
        for cell, (split, width) in product(results.cells, (("validation", 1.8), ("train", 0.7))):
            rows = history.query("cell == @cell and split == @split")
            judged = split == "validation"
            look = {"label": NAMES[cell] if judged else None, "ls": DASHES[cell], "lw": width}
            look["marker"] = "" if rows["epoch"].max() > 1 else "o"  # one point is no line
            _draw_mean(axis, rows, "epoch", metric, band=judged, **look)
        axis.set(title=f"{metric.capitalize()}, {WEIGHTS[weights]}", ylabel=YLABELS[metric])
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes[0, 1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _name_lines(figure)
    return figure


def remembered(results: Results) -> Figure:
    """How well the last telling word is remembered, if any is known; how far the loss reaches."""
    words, reach = results.evidence["remembered"], results.evidence["reach"]
    ways, rows = results.weights[1:], 2 - words.empty
    figure, axes = _panels(0.8 + 2.8 * rows, rows, len(ways), sharex=True, sharey="row")
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
                name = f"{NAMES[cell]}, {state}" if cell == "lstm" else NAMES[cell]
                look = {"label": name, "lw": 0.8 if beside else 1.8, "ls": DASHES[cell]}
                _draw_mean(axis, own, "distance", "log10", band=not beside, **look)
            telling = words.query("cell == @cell and weights == @weights")
            if rows == 2:
                look = {"x": "distance_median", "marker": MARKERS[cell], "ms": 4}
                _draw_mean(above, telling, y="auroc", band=True, label=NAMES[cell], **look)
                look |= {"ls": "none", "mfc": "none"}
                _draw_mean(axis, telling, y="log10_gradient", band=False, **look)
        axis.set(xlabel="words to the end", xscale="symlog", xlim=(0, None))
        ticks = [t for t in (0, 1, 3, 10, 30, 100, 300) if t <= axis.get_xlim()[1]]
        axis.set_xticks(ticks, [str(t) for t in ticks])
    _name_lines(figure)
    return figure


def _draw_mean(axis: Axes, rows: pd.DataFrame, x: str, y: str, *, band: bool, **look: Any) -> None:
    """The mean over a cell's seeds of a column by another; a band is its 95% interval."""
    known, colour = rows.dropna(subset=y), COLOURS[rows["cell"].iloc[0]]
    intervals = known.groupby(x)[y].agg(mean_interval)
    found = pd.DataFrame([*intervals], intervals.index, dtype=float)
    axis.plot(found.index, found["mean"], color=colour, **look)
    if band:
        ends = (found[end].fillna(found["mean"]) for end in ("low", "high"))
        tops = {"accuracy": 1.0, "auroc": 1.0, "loss": np.inf}
        low, high = (end.clip(0, tops[y]) if y in tops else end for end in ends)
        axis.fill_between(found.index, low, high, color=colour, alpha=0.15, lw=0)


def jacobian(results: Results) -> Figure:
    """Column-sum statistic of d s_t/d s_0 over all steps, before and after training."""
    figure, axes = _panels(4.5, 1, len(results.weights))
    for axis, weights in zip(axes[0], results.weights, strict=True):
        curves = results.curves[results.curves["weights"] == weights]
        sums = curves[curves["statistic"] == "column_sum"]
        for cell in results.cells:
            own = sums[sums["cell"] == cell]
            _draw_seeds(axis, own, label=NAMES[cell], color=COLOURS[cell], ls=DASHES[cell])
        if "lstm" in results.cells:
            gates = curves[curves["statistic"] == "cell_path"]
            _draw_seeds(axis, gates, label="gates", color=INK, ls=":")
        style.draw_limits(axis)
        _note_what_leaves(axis, sums)
        axis.set(title=WEIGHTS[weights].capitalize(), xlabel="step t", xlim=(0, None))
    _name_lines(figure)
    axes[0, 0].set_ylabel("log10 of mean |d state_t / d state_0|")
    return figure


def _draw_seeds(axis: Axes, curves: pd.DataFrame, *, label: str, **look: Any) -> None:
    by_step = curves.pivot_table("log10_median", "step", "seed")
    by_step = by_step[style.thinned(by_step.index)]
    axis.plot(by_step.index, by_step.to_numpy(), alpha=0.7, lw=0.7, **look)
    axis.plot(by_step.index, by_step.median(axis=1), lw=2.2, label=label, **look)


def _note_what_leaves(axis: Axes, curves: pd.DataFrame) -> None:
    lowest = curves.groupby(["cell", "seed"])["log10_median"].min()
    leaving = lowest[lowest < FLOOR].groupby(level="cell")
    notes = [
        f"{NAMES[str(cell)]}: {len(seeds)} of {len(lowest[cell])} seeds below, to {seeds.min():.0f}"
        for cell, seeds in leaving
    ]
    if notes:
        axis.set_ylim(bottom=FLOOR)
        text, place = "\n".join(notes).replace("-inf", "exactly 0"), (0.98, 0.02)
        axis.annotate(text, place, xycoords="axes fraction", ha="right", fontsize="small")


def gates(results: Results) -> Figure | None:
    """Distribution of the gate that keeps the state, before and after training; None for RNNs."""
    found = results.gates
    cells = [cell for cell in results.cells if cell in set(found["cell"])]
    if not cells:
        return None
    inputs = sorted({*found["input"]})  # padding and words, or one of the two
    figure, axes = _panels(3.0 * len(cells), len(cells), len(inputs), sharex=True)
    for axis, (cell, kind) in zip(axes.flat, product(cells, inputs), strict=True):
        own = found.query("cell == @cell and input == @kind")
        shares = own.pivot_table("share", "activation", "weights")
        edges = np.append(shares.index - 0.01, 1.0)
        axis.stairs(shares["init"], edges, label=WEIGHTS["init"], color=INK, lw=1.2)
        for weights in shares.columns.drop("init"):
            # those that were trained on words alone are a line in the same colour
            look = {"alpha": 0.35, "fill": True} if weights == "trained" else {"lw": 1.8}
            look |= {"label": WEIGHTS[weights], "color": COLOURS[cell]}
            axis.stairs(shares[weights], edges, **look)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        gate = "forget gate" if cell == "lstm" else "update gate"
        axis.set(title=f"{NAMES[cell]}, {gate} on {kind}", xlim=(0, 1), xlabel="activation")
    for row in axes:
        row[0].set_ylabel("share of activations")
        row[-1].margins(y=0.45)
        row[-1].legend(loc="upper left")
    return figure


def triangle(results: Results) -> Figure:
    """Draw trained models' per-step parts of dL_T/dW_hh, one panel per cell."""
    cells, ways = results.cells, results.weights[1:]
    height = 1.4 + WIDTH / len(cells) * len(ways)
    figure, axes = _panels(height, len(ways), len(cells), sharex=True, sharey=True)
    for axis, (weights, cell) in zip(axes.flat, product(ways, cells), strict=True):
        values = results.triangles[cell, weights]
        end = len(values) + 0.5
        axis.imshow(values, vmin=-4, vmax=0, cmap="cividis", extent=(0.5, end, end, 0.5))
        axis.grid(visible=False)
        axis.set_title(f"{NAMES[cell]}, {WEIGHTS[weights]}", fontsize="small")
        axis.set(xlabel="step t at which W_hh is used", ylabel="step T of the loss")
        axis.label_outer()
    look = {"location": "bottom", "extend": "min", "shrink": 0.6, "aspect": 40}
    label = "log10 of the part's norm, relative to the row's largest"
    figure.colorbar(axes[0, 0].images[0], ax=axes.ravel().tolist(), label=label, **look)
    return figure


def paths(results: Results) -> Figure | None:
    """Total, cell path and hidden path of d c_t/d c_0, above its first steps; None without LSTM."""
    lstm = results.curves.query("cell == 'lstm' and statistic in @PATHS")
    if lstm.empty:
        return None
    by_weights = lstm.groupby("weights", sort=False)
    figure, axes = _panels(5.6, 2, len(by_weights), height_ratios=[1.2, 1])
    for (upper, lower), (weights, chosen) in zip(axes.T, by_weights, strict=True):
        for axis, last in ((upper, np.inf), (lower, FIRST_STEPS)):
            shown = chosen[chosen["step"] <= last]
            for statistic, (label, colour, line) in PATHS.items():
                own = shown[shown["statistic"] == statistic].groupby("step")["log10_median"]
                median = own.median().where(np.isfinite)
                axis.plot(median.index, median, line, color=colour, label=label)
            axis.set_xlim(0, None)
        upper.set_title(f"LSTM, {WEIGHTS[str(weights)]}", fontsize="small")
        upper.set_ylim(bottom=max(upper.get_ylim()[0], FLOOR))
        lower.set_xlabel("step t")
    _name_lines(figure)
    for axis in axes[:, 0]:
        axis.set_ylabel("log10 of the Frobenius norm", fontsize="small")
    return figure


def histogram(lengths: NDArray[np.int64], most: int, padded: bool) -> Figure:
    """Show how long comments are, and how many steps they have at most or after padding."""
    figure, ((axis,),) = _panels(2.8, 1, 1)
    edges = np.unique(np.geomspace(1, lengths.max() + 1, 40).round()).tolist()
    axis.hist(lengths, edges, color=COLOURS["gru"], alpha=0.7)
    axis.set(xscale="log", xlabel="words of a comment", ylabel="comments")
    axis.axvline(most, color=INK, ls="--", lw=0.9)
    note = f"{'padded to' if padded else 'at most'} {most:,}"
    place = {"xytext": (-5, 0), "textcoords": "offset points", "ha": "right", "va": "top"}
    axis.annotate(note, (most, 0.95), xycoords=axis.get_xaxis_transform(), **place)
    axis.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    return figure
