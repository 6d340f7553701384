"""One panel per case: every competitor's time in units of the plain forward's."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from benchmarks.competitors import FLOOR, LABELS, PROBE, UNIT
from benchmarks.summary import Entry, number
from rnngrad.report.style import COLOURS, GRID, INK, figure_style

WIDTH, ROW, HEAD = 9.0, 0.2, 0.75  # inches


def ratios_figure(cases: Sequence[tuple[str, Mapping[str, Entry]]]) -> Figure:
    """Args: label and entries of each case, by competitor."""
    names = [n for n in LABELS if n != UNIT and any(n in entries for _, entries in cases)]
    rows = -(-len(cases) // 2)
    with figure_style():
        height = rows * (HEAD + ROW * len(names)) + 0.3
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
        for axis, (label, entries) in zip(axes, cases, strict=False):
            axis.set(title=label, xscale="log")
            axis.grid(visible=False, axis="y")
            axis.margins(x=0.25)
            for row, name in enumerate(names):
                if name in entries:
                    _draw(axis, row, name, entries[name])
        for axis in axes[len(cases) :]:
            axis.set_visible(False)
        for axis in axes[: len(cases)][-2:]:
            axis.tick_params(labelbottom=True)
        axes[0].set_yticks(range(len(names)), [LABELS[name] for name in names])
        axes[0].invert_yaxis()
        figure.supxlabel(
            "time in plain nn.LSTM forwards (hollow: less accurate than asked; ≈ extrapolated)",
            fontsize="medium",
        )
        return figure


def _draw(axis, row: int, name: str, found: Entry) -> None:
    colour = {PROBE: COLOURS["lstm"], FLOOR: GRID}.get(name, INK)
    axis.plot([found.low, found.high], [row, row], color=colour)
    face = colour if found.accurate else "white"
    axis.plot(found.ratio, row, "o", color=colour, markerfacecolor=face)
    text = f"  {'≈ ' * found.extrapolated}{number(found.ratio)}"
    axis.text(found.high, row, text, va="center", fontsize="small", color=INK)
