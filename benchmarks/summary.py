"""The results as tables and a figure: goals, ratios, accuracies, and why times do not count."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.cases import EVERYBODY, FORWARD, Case

Results = Mapping[str, Mapping[str, Any]]  # by competitor, as `rounds.run_case` returns them
ASKED = 1e-4  # relative accuracy at every step; who misses it is marked
HEAD = "{processor}, {threads} threads for everybody; torch {torch}, NumPy {numpy}, numba {numba}."
MARKS = (
    "In brackets the worst relative error at any step that was run; 1: zero was returned where the "
    "true value is not. ≈ extrapolated from a part of the work. – no time counts. The question's "
    "way gives the column sum alone, the others the Frobenius norm, too."
)
LABEL = "time in plain nn.LSTM forwards (hollow: column sum or norm off by 1e-4; ≈ extrapolated)"
WIDTH, ROW, TITLE = 9.0, 0.2, 0.75  # inches


class Measured(NamedTuple):
    """A median with its range over the rounds; around says whether it is extrapolated."""

    value: float
    low: float
    high: float
    around: bool

    def __str__(self) -> str:
        return f"{'≈ ' * self.around}{number(self.value)}"


def number(value: float) -> str:
    return f"{float(f'{value:.3g}'):,g}"


def measured(results: Results, over: str | None, under: str | None) -> Measured | None:
    """Seconds, or their ratio round by round; None where no time counts."""
    both = [results[name] for name in (over, under) if name]
    rounds = list(zip(*(one["seconds"] for one in both), strict=False))
    values = [seconds[0] / seconds[1] if under else seconds[0] for seconds in rounds]
    if not values:
        return None
    around = any(one["extrapolated"] for one in both)
    return Measured(statistics.median(values), min(values), max(values), around)


def against_goal(case: Case, results: Results) -> tuple[Measured | None, bool]:
    """What was measured, and is the goal reached?"""
    sign, limit = case.goal.split()
    ours, other = (*(competitor.name for competitor in case.competitors[:2]), None)[:2]
    found = measured(results, other, ours) if sign == "≥" else measured(results, ours, other)
    if found is None:
        return None, False
    return found, found.value >= float(limit) if sign == "≥" else found.value <= float(limit)


def worst_error(result: Mapping[str, Any]) -> float | None:
    return max(result.get("errors", {}).values(), default=None)


def table(
    cases: Mapping[str, Case], results: Mapping[str, Results], machine: Mapping[str, Any]
) -> str:
    """Markdown; goals that are not measured yet have a row, too."""
    goals = [_goal_row(case, results.get(name)) for name, case in cases.items()]
    head = ["work", "median (range of the rounds)", "goal", "", "worst error"]
    parts = [HEAD.format(**machine), _markdown([head, *goals])]
    if sizes := _sizes(cases, results):
        head = ["time of a plain forward = 1", *(size for size, _ in sizes)]
        times = [[who.name, *(_time(one, who.name) for _, one in sizes)] for who in EVERYBODY]
        parts += [_markdown([head, *times]), MARKS]
    refused = [
        f"- {cases[case].what.format(cases[case].work)}, {name}: {result['refused']}"
        for case, found in results.items()
        for name, result in found.items()
        if "refused" in result
    ]
    parts += ["\n".join(["No time counts for:", "", *refused])] if refused else []
    return "\n\n".join(parts) + "\n"


def _goal_row(case: Case, results: Results | None) -> list[str]:
    row, verdict, error = [case.what.format(case.work), "–", case.goal], "not measured", None
    if results:
        found, reached = against_goal(case, results)
        error, verdict = worst_error(results[case.competitors[0].name]), "**not reached**"
        if found:
            row[1] = f"{found} ({number(found.low)} to {number(found.high)}) {case.unit}"
            verdict = "reached" if reached else verdict
    return [*row, verdict, "" if error is None else f"{error:.0e}"]


def _sizes(cases: Mapping[str, Case], results: Mapping[str, Results]) -> list[tuple[str, Results]]:
    """The cases that everybody takes part in."""
    whole = [name for name in results if cases[name].competitors == EVERYBODY]
    return [(str(cases[name].work), results[name]) for name in whole]


def _time(results: Results, name: str) -> str:
    ratio, error = measured(results, name, FORWARD.name), worst_error(results[name])
    return f"{ratio or '–'}{'' if error is None else f' ({error:.0e})'}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figure(cases: Mapping[str, Case], results: Mapping[str, Results]) -> str | None:
    """SVG with a panel per size: every competitor's time in units of the plain forward's."""
    from matplotlib.figure import Figure

    from rnngrad.report.style import COLOURS, INK, figure_style, to_svg

    sizes, names = _sizes(cases, results), [who.name for who in EVERYBODY if who != FORWARD]
    if not sizes:
        return None
    with figure_style():
        rows = -(-len(sizes) // 2)
        height = rows * (TITLE + ROW * len(names)) + 0.3
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = drawn.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
        for axis, (size, found) in zip(axes, sizes, strict=False):
            axis.set(title=size, xscale="log")
            axis.grid(visible=False, axis="y")
            axis.margins(x=0.25)
            for row, name in enumerate(names):
                if ratio := measured(found, name, FORWARD.name):
                    colour = INK if row else COLOURS["lstm"]  # rnngrad is the first
                    face = colour if (worst_error(found[name]) or 0) <= ASKED else "white"
                    axis.plot([ratio.low, ratio.high], [row, row], color=colour)
                    axis.plot(ratio.value, row, "o", color=colour, markerfacecolor=face)
                    axis.text(ratio.high, row, f"  {ratio}", va="center", fontsize="small")
        axes[-1].set_visible(len(sizes) % 2 == 0)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        drawn.supxlabel(LABEL, fontsize="medium")
        return to_svg(drawn)
