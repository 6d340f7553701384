"""The results as tables and a figure: goals, ratios, accuracies, and why times do not count."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cases import EVERYBODY, FORWARD, Case

Results = Mapping[str, Mapping[str, Any]]  # by way, as `rounds.run_case` returns them
ASKED = 1e-4  # relative accuracy at every step; who misses it is marked
HEAD = "{processor}, {threads} threads for everybody; torch {torch}, NumPy {numpy}, numba {numba}."
MARKS = (
    "In brackets: the worst relative error at any step that was run; 1: zero was returned where "
    "the true value is not. ≈ extrapolated from a part of the work. – no time counts. The "
    "question's way gives the column sum alone, the others the Frobenius norm, too."
)
LABEL = "time in plain nn.LSTM forwards (hollow: column sum or norm off by 1e-4; ≈ extrapolated)"
WIDTH, ROW, TITLE = 9.0, 0.2, 0.75  # inches


def number(value: float) -> str:
    return f"{float(f'{value:.3g}'):,g}"


def measured(results: Results, over: str, under: str | None = None) -> tuple[list[float], str]:
    """Seconds of every round, or their ratio, and a median to show; none where no time counts."""
    both = [results[way] for way in (over, under) if way]
    rounds = list(zip(*(one["seconds"] for one in both), strict=False))
    values = [seconds[0] / seconds[1] if under else seconds[0] for seconds in rounds]
    if not values:
        return [], "–"
    around = any(one["extrapolated"] for one in both)
    return values, f"{'≈ ' * around}{number(statistics.median(values))}"


def _error(result: Mapping[str, Any]) -> str:
    return f"{result['error']:.0e}" if "error" in result else ""


def table(
    cases: Mapping[str, Case], results: Mapping[str, Results], machine: Mapping[str, Any]
) -> str:
    """Markdown; goals that are not measured yet have a row, too."""
    head = ["work", "median (range of the rounds)", "goal", "", "worst error"]
    goals = [goal_row(case, results.get(name)) for name, case in cases.items()]
    parts = [HEAD.format(**machine), _markdown([head, *goals])]
    if sizes := _sizes(cases, results):
        head = ["time of a plain forward = 1", *sizes]
        times = [
            [who, *(_time(one, way) for one in sizes.values())] for way, who in EVERYBODY.items()
        ]
        parts += [_markdown([head, *times]), MARKS]
    refused = [
        f"- No time counts of {EVERYBODY.get(way, way)} in {name}: {one['refused']}"
        for name, found in results.items()
        for way, one in found.items()
        if "refused" in one
    ]
    return "\n\n".join([*parts, "\n".join(refused)]).strip() + "\n"


def goal_row(case: Case, results: Results | None) -> list[str]:
    """Work, what was measured, the goal, whether it is reached, the worst error."""
    what, (sign, limit) = case.what.format(case.work), case.goal.split()
    if results is None:
        return [what, "–", case.goal, "not measured", ""]
    values, shown = measured(results, *(case.ways[1::-1] if sign == "≥" else case.ways[:2]))
    if not values:
        return [what, shown, case.goal, "**not reached**: no time counts", ""]
    off = (statistics.median(values) - float(limit)) * (1 if sign == "≤" else -1)
    spread = f"{shown} ({number(min(values))} to {number(max(values))}) {case.unit}"
    verdict = "reached" if off <= 0 else "**not reached**"
    return [what, spread, case.goal, verdict, _error(results[case.ways[0]])]


def _sizes(cases: Mapping[str, Case], results: Mapping[str, Results]) -> dict[str, Results]:
    """The cases that everybody takes part in, by size."""
    names = [name for name in results if cases[name].ways == list(EVERYBODY)]
    return {str(cases[name].work): results[name] for name in names}


def _time(results: Results, way: str) -> str:
    error = _error(results[way])
    return measured(results, way, FORWARD)[1] + f" ({error})" * bool(error)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figure(cases: Mapping[str, Case], results: Mapping[str, Results]) -> str | None:
    """SVG with a panel per size: every competitor's time in units of the plain forward's."""
    from matplotlib.figure import Figure

    from rnngrad.report.style import COLOURS, INK, figure_style, to_svg

    sizes, ways = _sizes(cases, results), [way for way in EVERYBODY if way != FORWARD]
    if not sizes:
        return None
    with figure_style():
        lines = -(-len(sizes) // 2)
        fig = Figure(figsize=(WIDTH, lines * (TITLE + ROW * len(ways)) + 0.3), layout="constrained")
        axes = fig.subplots(lines, 2, sharex=True, sharey=True, squeeze=False).ravel()
        for axis, (size, found) in zip(axes, sizes.items(), strict=False):
            axis.set(title=size, xscale="log", yticks=range(len(ways)))
            axis.set_yticklabels([EVERYBODY[way] for way in ways])
            axis.xaxis.set_major_formatter("{x:,.10g}")  # matplotlib's own is a formula
            axis.grid(visible=False, axis="y")
            axis.margins(x=0.25)
            for row, way in enumerate(ways):
                values, shown = measured(found, way, FORWARD)
                if values:
                    colour = INK if row else COLOURS["lstm"]  # rnngrad is the first
                    face = colour if found[way].get("error", 0) <= ASKED else "white"
                    axis.plot([min(values), max(values)], [row, row], color=colour)
                    axis.plot(statistics.median(values), row, "o", color=colour, mfc=face)
                    axis.text(max(values), row, f"  {shown}", va="center", fontsize="small")
        axes[0].invert_yaxis()
        fig.supxlabel(LABEL, fontsize="medium")
        return to_svg(fig)
