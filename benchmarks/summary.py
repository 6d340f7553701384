"""The results as tables and a figure: goals, ratios, accuracies, and why times do not count."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.cases import EVERYBODY, PROBE, UNIT, Case, Goal

Results = Mapping[str, Mapping[str, Any]]  # by competitor, as `rounds.run_case` returns them
ASKED = {"frobenius": 1e-5, "column_sum": 1e-4}  # relative accuracy at every step
MARKS = (
    "≈ extrapolated from a part of the work. (a) less accurate than 1e-5 (Frobenius norm) or 1e-4 "
    "(column sum) at some step that was run. – no time counts. The question's way gives the column "
    "sum alone. An error of 1: zero was returned where the true value is not."
)
WIDTH, ROW, HEAD = 9.0, 0.2, 0.75  # inches


class Measured(NamedTuple):
    """A median with its range over the rounds; around says whether it is extrapolated."""

    value: float
    low: float
    high: float
    around: bool

    def __str__(self) -> str:
        return f"{'≈ ' * self.around}{number(self.value)}"


def number(value: float) -> str:
    """Two or three digits."""
    if value >= 99.5:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}" if value >= 0.995 else f"{value:.2g}"


def measured(results: Results, over: str, under: str | None) -> Measured | None:
    """Seconds, or their ratio round by round; None where no time counts."""
    both = [results.get(name, {"seconds": []}) for name in (over, under) if name]
    rounds = list(zip(*(one["seconds"] for one in both), strict=False))
    values = [seconds[0] / seconds[1] if under else seconds[0] for seconds in rounds]
    if not values:
        return None
    around = any(one["extrapolated"] for one in both)
    return Measured(statistics.median(values), min(values), max(values), around)


def reached(goal: Goal, value: float) -> bool:
    sign, limit = goal.limit.split()
    return value >= float(limit) if sign == "≥" else value <= float(limit)


def accurate(result: Mapping[str, Any]) -> bool:
    return all(result.get("errors", {}).get(name, 0.0) <= ASKED[name] for name in ASKED)


def table(
    cases: Mapping[str, Case], results: Mapping[str, Results], machine: Mapping[str, Any]
) -> str:
    """Markdown; goals that are not measured yet have a row, too."""
    head = "{processor}, {threads} threads for everybody; torch {torch}, NumPy {numpy}, "
    goals = [["work", "median (range of the rounds)", "goal", "", "worst error"]]
    for name, case in cases.items():
        goals += [_goal_row(goal, case, results.get(name)) for goal in case.goals]
    parts = [(head + "numba {numba}.").format(**machine), _markdown(goals)]
    sizes = _sizes(cases, results)
    if sizes:
        times = [[name, *(_time(found, name) for found in sizes.values())] for name in EVERYBODY]
        errors = [[name, *(_errors(found[name]) for found in sizes.values())] for name in EVERYBODY]
        parts.append(_markdown([["time of a plain forward = 1", *sizes], *times]))
        parts.append(_markdown([["worst errors: column sum, Frobenius norm", *sizes], *errors]))
    refused = [
        f"- {cases[case].work}, {name}: {result['refused']}"
        for case, found in results.items()
        for name, result in found.items()
        if "refused" in result
    ]
    parts += [MARKS, *(["\n".join(["No time counts for:", "", *refused])] if refused else [])]
    return "\n\n".join(parts) + "\n"


def _goal_row(goal: Goal, case: Case, results: Results | None) -> list[str]:
    what = goal.what.format(case.work)
    if results is None:
        return [what, "–", goal.limit, "not measured", ""]
    found = measured(results, goal.over, goal.under)
    if found is None:
        return [what, "–", goal.limit, "**not reached**: no time counts", ""]
    verdict = "reached" if reached(goal, found.value) else "**not reached**"
    value = f"{found} ({number(found.low)} to {number(found.high)}) {goal.unit}"
    errors = [
        error
        for name, result in results.items()
        if case.competitors[name].way.startswith(("rnngrad_ways", "training_ways.study"))
        for error in result.get("errors", {}).values()
    ]
    return [what, value, goal.limit, verdict, f"{max(errors):.0e}" if errors else ""]


def _sizes(cases: Mapping[str, Case], results: Mapping[str, Results]) -> dict[str, Results]:
    """The cases that everybody takes part in, by size."""
    all_in = [name for name in results if cases[name].competitors == EVERYBODY]
    return {str(cases[name].work): results[name] for name in all_in}


def _time(results: Results, name: str) -> str:
    ratio = measured(results, name, UNIT)
    return f"{ratio}{'' if accurate(results[name]) else ' (a)'}" if ratio else "–"


def _errors(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{error:.0e}" for error in result.get("errors", {}).values()) or "–"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figure(cases: Mapping[str, Case], results: Mapping[str, Results]) -> str | None:
    """SVG with a panel per size: every competitor's time in units of the plain forward's."""
    from matplotlib.figure import Figure

    from rnngrad.report.style import COLOURS, INK, figure_style, to_svg

    sizes, names = _sizes(cases, results), [name for name in EVERYBODY if name != UNIT]
    if not sizes:
        return None
    with figure_style():
        rows = -(-len(sizes) // 2)
        height = rows * (HEAD + ROW * len(names)) + 0.3
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = drawn.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
        for axis, (size, found) in zip(axes, sizes.items(), strict=False):
            axis.set(title=size, xscale="log")
            axis.grid(visible=False, axis="y")
            axis.margins(x=0.25)
            for row, name in enumerate(names):
                if ratio := measured(found, name, UNIT):
                    colour = COLOURS["lstm"] if name == PROBE else INK
                    face = colour if accurate(found[name]) else "white"
                    axis.plot([ratio.low, ratio.high], [row, row], color=colour)
                    axis.plot(ratio.value, row, "o", color=colour, markerfacecolor=face)
                    axis.text(ratio.high, row, f"  {ratio}", va="center", fontsize="small")
        axes[-1].set_visible(len(sizes) % 2 == 0)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        label = "time in plain nn.LSTM forwards (hollow: less accurate than asked; ≈ extrapolated)"
        drawn.supxlabel(label, fontsize="medium")
        return to_svg(drawn)
