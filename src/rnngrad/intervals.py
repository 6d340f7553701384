"""Means: with intervals over seeds, of numbers that no float holds, and of changes per step."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import special


class Interval(TypedDict):
    """A mean with the ends of its 95% interval; the ends are None for a single value."""

    mean: float
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float]) -> Interval:
    """Give the mean of a handful of seeds with Student's 95% interval."""
    mean = round(float(np.mean(values)), 6)
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    half = float(special.stdtrit(len(values) - 1, 0.975)) * error
    return {"mean": mean, "low": round(mean - half, 6), "high": round(mean + half, 6)}


def log10_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take log10 of the mean over the first axis of numbers given as log10, NaN left out."""
    # 10**-330 is no float64: take the largest value out before the mean
    top = np.nanmax(values, axis=0)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log10(np.nanmean(10.0 ** (values - shift), axis=0)) + shift


def change_per_step(values: NDArray[np.floating], ranges: Sequence[range]) -> float:
    """Give the gain per step of (B, T) values over each example's range; NaN where none counts.

    Ranges of one step, and those that start or end at no finite value, do not count.
    """
    gained, steps = 0.0, 0
    for row, own in zip(values, ranges, strict=True):
        if len(own) > 1 and np.isfinite(row[[own[0], own[-1]]]).all():
            gained += float(row[own[-1]]) - float(row[own[0]])
            steps += len(own) - 1
    return gained / steps if steps else np.nan
