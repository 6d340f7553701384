"""From the curves of every model to one row per condition and cell. Needs pandas alone."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.study.decades import log10_mean

STEPS = (20, 100, 400, 1383)
NUMBERS = [
    "examples",
    *(f"log10_at_{step}" for step in STEPS),
    "log10_at_end",
    "float32_zero_from",
    "decades_per_step_padding",
    "decades_per_step_tokens",
    "horizon",
]
COUNTS = ("examples", "float32_zero_from", "horizon")


def curve_numbers(
    log10: NDArray[np.float64],
    words: Sequence[range],
    start: float,
    smallest: float,
    halved: bool,
    zero_from: int | None,
) -> tuple[pd.Series, dict[str, float]]:
    """The curve and the numbers of one model under one condition.

    Args:
        log10: (B, T), NaN at steps that were not recorded.
        words: for each example the steps (from 0) at which words are read.
        start: log10 of the statistic of the identity, step 0.
        smallest: log10 of the smallest number that the arithmetic holds with all its digits; rates
            are taken above it.
        halved: whether the mean is taken over as many zeros again.
        zero_from: see ``NUMBERS``.

    Returns:
        log10 of the mean over examples by step (from 1), and ``NUMBERS``; NaN where there is none.
    """
    recorded = np.flatnonzero(~np.isnan(log10).any(axis=0))
    mean = log10_mean(log10[:, recorded]) - (np.log10(2) if halved else 0.0)
    curve = pd.Series(mean, index=recorded + 1)
    T = log10.shape[1]
    numbers: dict[str, float] = {"examples": len(log10)}
    numbers |= {f"log10_at_{step}": float(curve.get(step, np.nan)) for step in STEPS}
    numbers["log10_at_end"] = float(curve[T])
    numbers["float32_zero_from"] = np.nan if zero_from is None else zero_from
    padding = [_outside(w, T) for w in words]
    numbers["decades_per_step_padding"] = _rate(log10, padding, start, smallest)
    numbers["decades_per_step_tokens"] = _rate(log10, words, start, smallest)
    numbers["horizon"] = _horizon(curve, start)
    return curve, numbers


def _outside(words: range, T: int) -> range:
    return range(words.start) if words.start else range(words.stop, T)


def _rate(
    log10: NDArray[np.float64], regions: Sequence[range], start: float, smallest: float
) -> float:
    """Decades per step within the regions, over all examples; negative is decay."""
    decades = steps = 0.0
    for row, region in zip(log10, regions, strict=True):
        if not region:
            continue
        before = start if region.start == 0 else row[region.start - 1]
        held = np.flatnonzero(row[region.start : region.stop] > smallest)
        if len(held) and np.isfinite(before):
            last = held[-1] + region.start
            decades += row[last] - before
            steps += last + 1 - region.start
    return decades / steps if steps else np.nan


def _horizon(curve: pd.Series, start: float) -> float:
    """First step at which a tenth of the identity's value or less is left; NaN if never."""
    below = np.flatnonzero(curve.to_numpy() <= start - 1)
    if not len(below):
        return np.nan
    first = int(below[0])
    step, value = int(curve.index[first]), float(curve.iloc[first])
    before_step, before = (
        (int(curve.index[first - 1]), float(curve.iloc[first - 1])) if first else (0, start)
    )
    if step - before_step == 1 or not np.isfinite(value):
        return step
    # between two recorded steps the curve is taken to be straight
    return float(
        np.ceil(before_step + (before - start + 1) / (before - value) * (step - before_step))
    )


def over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """One row per condition and cell: the median over seeds of every number.

    Steps (``float32_zero_from``, ``horizon``) are missing where half of the seeds or more never
    come there; the others where they do not exist.
    """
    rows = []
    for (condition, factor, cell), group in seeds.groupby(
        ["condition", "factor", "cell"], sort=False
    ):
        row = {"condition": condition, "factor": factor, "cell": cell}
        for number in NUMBERS:
            values = group[number].to_numpy(dtype=float)
            row[number] = _median_count(values) if number in COUNTS else _median(values)
        rows.append(row)
    return pd.DataFrame(rows).astype(dict.fromkeys(COUNTS, "Int64"))


def _median(values: NDArray[np.float64]) -> float:
    return np.nan if np.isnan(values).all() else float(np.median(values[~np.isnan(values)]))


def _median_count(values: NDArray[np.float64]) -> float:
    middle = float(np.median(np.where(np.isnan(values), np.inf, values)))
    return np.ceil(middle) if np.isfinite(middle) else np.nan


def curves_over_seeds(curves: Iterable[tuple[str, str, pd.Series]]) -> pd.DataFrame:
    """Columns: condition, cell, step, log10 (median over seeds), low, high (least and most).

    Args:
        curves: condition, cell and one seed's curve by step.
    """
    groups: dict[tuple[str, str], list[pd.Series]] = {}
    for condition, cell, curve in curves:
        groups.setdefault((condition, cell), []).append(curve)
    parts = []
    for (condition, cell), found in groups.items():
        values = np.stack([curve.to_numpy() for curve in found])
        part = {"condition": condition, "cell": cell, "step": found[0].index}
        spread = {"log10": np.median(values, axis=0), "low": values.min(0), "high": values.max(0)}
        parts.append(pd.DataFrame(part | spread))
    return pd.concat(parts, ignore_index=True)
