"""The results as a table and a figure: ratios, never seconds."""

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import QUICK, Case
from benchmarks.competitors import COMPETITORS, UNIT

PANELS = 6  # cases in the figure


class Entry(NamedTuple):
    """A competitor's time in units of the plain forward's, and how it came about."""

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


def entry(result: Mapping[str, Any], unit: float) -> Entry | None:
    """None where no time counts."""
    seconds = result.get("seconds")
    if not seconds:
        return None
    accuracy = result.get("accuracy", {}).values()
    return Entry(
        statistics.median(seconds) / unit,
        min(seconds) / unit,
        max(seconds) / unit,
        result["extrapolated"],
        all(curve["within_limit"] for curve in accuracy),
    )


def entries(case: Mapping[str, Any]) -> dict[str, Entry | None]:
    """By competitor, in their order; empty where the unit is missing."""
    results = case["results"]
    if UNIT not in results or not results[UNIT].get("seconds"):
        return {}
    unit = statistics.median(results[UNIT]["seconds"])
    return {name: entry(results[name], unit) for name in COMPETITORS if name in results}


def write_summary(results: Mapping[str, Any], folder: Path) -> None:
    """table.md and figure.svg."""
    (folder / "table.md").write_text(table(results))
    cases = [case for case in results["cases"] if entries(case)]
    if cases:
        from benchmarks.figure import ratios_figure
        from rnngrad.report.style import to_svg

        figure = ratios_figure([(_label(case), entries(case)) for case in _shown(cases)])
        (folder / "figure.svg").write_text(to_svg(figure))


def _shown(cases: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The cases of the quick run; where none of them was run, the first ones."""
    quick = {case.label for case in QUICK}
    return ([case for case in cases if _label(case) in quick] or cases)[:PANELS]


def _label(case: Mapping[str, Any]) -> str:
    return Case(case["steps"], case["hidden"], case["batch"]).label


def table(results: Mapping[str, Any]) -> str:
    """Markdown: competitors by cases, accuracies, further measurements."""
    cases = [case for case in results["cases"] if entries(case)]
    parts = [_machine(results)]
    if cases:
        parts += [_times(cases), _accuracies(cases), _refusals(cases)]
    if results["measurements"]:
        parts.append(_measurements(results["measurements"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    text = (
        f"{machine['processor']}, {machine['threads']} threads for everybody; "
        f"torch {machine['torch']}, NumPy {machine['numpy']}."
    )
    return text if results["finished"] else f"{text} Unfinished: the run was interrupted."


def _times(cases: list[Mapping[str, Any]]) -> str:
    columns = [entries(case) for case in cases]
    head = ["time of a plain forward = 1", *(_label(case) for case in cases)]
    rows = [
        [
            competitor.label,
            *(_cell(case, column, name) for case, column in zip(cases, columns, strict=True)),
        ]
        for name, competitor in COMPETITORS.items()
        if any(name in column for column in columns)
    ]
    return _markdown(head, rows) + (
        "\n\n≈ extrapolated from a part of the work. (a) less accurate than 1e-5 (Frobenius) or "
        "1e-4 (column sum) against float64 at some step that was run. – no verified output. "
        "The last three give the column sum alone."
    )


def _cell(case: Mapping[str, Any], column: Mapping[str, Entry | None], name: str) -> str:
    if column.get(name) is None:
        return "–"
    return str(column[name])


def _accuracies(cases: list[Mapping[str, Any]]) -> str:
    head = ["largest relative error", *(_label(case) for case in cases)]
    rows = []
    for name, competitor in COMPETITORS.items():
        for curve in ("frobenius", "column_sum"):
            errors = [_error(case, name, curve) for case in cases]
            if any(error != "–" for error in errors):
                rows.append([f"{competitor.label}: {curve.replace('_', ' ')}", *errors])
    return _markdown(head, rows) + "\n\n1: zero was returned where the true value is not."


def _error(case: Mapping[str, Any], name: str, curve: str) -> str:
    accuracy = case["results"].get(name, {}).get("accuracy", {}).get(curve)
    return "–" if accuracy is None else f"{accuracy['relative_error']:.0e}"


def _refusals(cases: list[Mapping[str, Any]]) -> str:
    lines = [
        f"- {COMPETITORS[name].label}, {_label(case)}: {result['refused']}"
        for case in cases
        for name, result in case["results"].items()
        if "refused" in result
    ]
    return "\n".join(["No time counts for:", "", *lines]) if lines else ""


def _measurements(found: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for finding in found:
        if "refused" in finding:
            rows.append([finding["what"], "–", finding["refused"]])
        else:
            rows.append([finding["what"], _median(finding), finding["note"]])
    return _markdown(["measurement", "median (range)", "note"], rows)


def _median(finding: Mapping[str, Any]) -> str:
    low, high = number(finding["low"]), number(finding["high"])
    spread = f" ({low} to {high})" if low != high else ""
    return f"{number(finding['value'])}{spread} {finding['unit']}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
