"""The results as tables and a figure: ratios, and seconds where the goal is one of seconds."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.competitors import LABELS, UNIT
from benchmarks.findings import Finding

Results = Mapping[str, Any]


class Entry(NamedTuple):
    """A competitor's time in units of the plain forward's."""

    ratio: float
    low: float
    high: float
    extrapolated: bool
    accurate: bool

    def __str__(self) -> str:
        return f"{'≈ ' * self.extrapolated}{number(self.ratio)}{' (a)' * (not self.accurate)}"


def number(value: float) -> str:
    """Two or three digits."""
    if value >= 99.5:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}" if value >= 0.995 else f"{value:.2g}"


def entry(case: Results, name: str) -> Entry | None:
    """None where no time counts."""
    seconds, unit = (case["competitors"].get(n, {}).get("seconds") for n in (name, UNIT))
    if not seconds or not unit:
        return None
    ratios = [f(seconds) / statistics.median(unit) for f in (statistics.median, min, max)]
    result = case["competitors"][name]
    low_to_high = ratios[0], ratios[1], ratios[2]
    return Entry(*low_to_high, result["extrapolated"], result.get("accurate", True))


def write_summary(results: Results, folder: Path) -> None:
    """results.json, table.md and figure.svg."""
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "table.md").write_text(table(results))
    cases = _cases(results)
    if cases:
        from benchmarks.figure import ratios_figure
        from rnngrad.report.style import to_svg

        entries = [{n: e for n in LABELS if (e := entry(case, n))} for case in cases]
        labels = [case["case"] for case in cases]
        (folder / "figure.svg").write_text(
            to_svg(ratios_figure(list(zip(labels, entries, strict=True))))
        )


def _cases(results: Results) -> list[Results]:
    return [found for found in results["found"] if "competitors" in found]


def table(results: Results) -> str:
    """Markdown: goals, competitors by cases, accuracies, and why times do not count."""
    machine = results["machine"]
    head = (
        "{processor}, {threads} threads for everybody; torch {torch}, NumPy {numpy}, numba {numba}."
    )
    unfinished = "" if results["finished"] else " Unfinished: the run was interrupted."
    rows = [["work", "median (range)", "goal", "note"], *map(_goal_row, results["found"])]
    parts = [head.format(**machine) + unfinished, _markdown(rows)]
    cases = _cases(results)
    if cases:
        parts += [
            _by_case("time of a plain forward = 1", cases, lambda c, n: str(entry(c, n) or "–")),
            "≈ extrapolated from a part of the work. (a) less accurate than 1e-5 (Frobenius) or "
            "1e-4 (column sum) at some step that was run. – no time counts. One t after another "
            "gives the column sum alone.",
            _by_case("worst relative errors: column sum, Frobenius norm", cases, _errors),
            "1: zero was returned where the true value is not.",
            *_refusals(cases),
        ]
    return "\n\n".join(parts) + "\n"


def _goal_row(found: Results) -> list[str]:
    if "refused" in found:
        return [found["what"], "–", "", found["refused"]]
    finding = Finding(**{name: found[name] for name in Finding._fields})
    goal = f"{finding.goal}: {'met' if finding.met else 'missed'}" if finding.goal else ""
    median = f"{number(finding.value)} ({number(finding.low)} to {number(finding.high)})"
    return [finding.what, f"{median} {finding.unit}", goal, finding.note]


def _by_case(head: str, cases: Sequence[Results], cell: Callable[[Results, str], str]) -> str:
    rows = [[label, *(cell(case, name) for case in cases)] for name, label in LABELS.items()]
    return _markdown([[head, *(case["case"] for case in cases)], *rows])


def _errors(case: Results, name: str) -> str:
    errors = case["competitors"].get(name, {}).get("errors", {})
    return ", ".join(f"{error:.0e}" for error in errors.values()) or "–"


def _refusals(cases: Sequence[Results]) -> list[str]:
    lines = [
        f"- {LABELS[name]}, {case['case']}: {result['refused']}"
        for case in cases
        for name, result in case["competitors"].items()
        if "refused" in result
    ]
    return ["\n".join(["No time counts for:", "", *lines])] if lines else []


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
