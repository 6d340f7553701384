"""Arithmetic on numbers that are given as their log10, since 10**-330 is no float64."""

import numpy as np
from numpy.typing import NDArray


def log10_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """log10 of the mean over the first axis of numbers that are given as log10; NaN is left out."""
    # 10**-330 is no float64: take the largest value out before the mean
    top = np.nanmax(values, axis=0)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log10(np.nanmean(10.0 ** (values - shift), axis=0)) + shift
