"""The numbers that the report states, computed from the result tables."""

from typing import Any

import pandas as pd

from rnngrad.report.style import FLOAT32_NORMAL, NAMES, WEIGHTS
from rnngrad.report.why import decades
from rnngrad.study import MILESTONES
from rnngrad.study.results import Results

STATISTICS = {
    "column_sum": "column sum",
    "frobenius": "Frobenius",
    "spectral": "spectral",
    "cell_path": "forget gates alone",
    "hidden_path": "hidden path",
}


def last_step(results: Results) -> int:
    """T, the last step that any comment reaches."""
    return int(results.curves["step"].max())


def curve_table(results: Results) -> pd.DataFrame:
    """log10 of the mean over comments, median over seeds, at a few steps; one row per curve."""
    T = last_step(results)
    wanted = sorted({*(step for step in MILESTONES if step <= T), T})
    rows = []
    keys = ["cell", "weights", "statistic"]
    for (cell, weights, statistic), curve in results.curves.groupby(keys, sort=False):
        by_step = curve.groupby("step")["log10_mean"].median()
        rows.append(
            {
                "cell": NAMES[str(cell)],
                "weights": WEIGHTS[str(weights)],
                "statistic": STATISTICS[str(statistic)],
                **{f"t = {step:,}": decades(by_step[step], 2) for step in wanted},
            }
        )
    return pd.DataFrame(rows)


def below_float32_from(results: Results, cell: str, weights: str) -> int | None:
    """First step from which the column sum stays below float32's smallest normal number.

    Median over seeds and comments; None where the curve ends above.
    """
    curve = _median_curve(results, cell, weights)
    above = curve.index[curve.to_numpy() >= FLOAT32_NORMAL]
    if above.empty:
        return int(curve.index[0])
    return int(above[-1]) + 1 if above[-1] < curve.index[-1] else None


def _median_curve(results: Results, cell: str, weights: str) -> pd.Series:
    chosen = results.curves.query(
        "cell == @cell and weights == @weights and statistic == 'column_sum'"
    )
    return chosen.groupby("step")["log10_median"].median()


def test_table(results: Results) -> pd.DataFrame:
    """Test metrics per cell: mean over seeds with its 95% interval."""
    rows = []
    for cell in results.cells:
        row = {"cell": NAMES[cell]}
        for metric, interval in results.metrics[cell].items():
            low, high = interval["low"], interval["high"]
            # all but the loss are shares, and none is negative
            top = float("inf") if metric == "loss" else 1.0
            spread = "" if low is None else f" ({max(low, 0):.3f} to {min(high, top):.3f})"
            row[metric] = f"{interval['mean']:.3f}{spread}"
        rows.append(row)
    return pd.DataFrame(rows)


def metrics_summary(results: Results) -> dict[str, Any]:
    """The numbers for `dvc metrics show` and `diff`: test metrics and how far gradients reach."""
    summary: dict[str, Any] = {}
    for cell in results.cells:
        reach = {
            weights: {
                "log10_column_sum_at_end": round(
                    float(_median_curve(results, cell, weights).iloc[-1]), 4
                ),
                "below_float32_from": below_float32_from(results, cell, weights),
            }
            for weights in WEIGHTS
        }
        test = {name: interval["mean"] for name, interval in results.metrics[cell].items()}
        summary[cell] = {"test": test, **reach}
    return summary
