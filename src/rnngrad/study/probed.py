"""The probe's results for a model, and their summary over comments. Needs no torch."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.study.decades import log10_mean

STATE = {"rnn": "h", "gru": "h", "lstm": "c"}  # the question's d h_t/d h_0 and d c_t/d c_0


class ProbedModel(NamedTuple):
    """The probe's results for one model.

    Attributes:
        log10: by statistic, float64 (B, T); NaN beyond a comment's end.
        gates: histogram of the LSTM's forget gate or the GRU's update gate; None for an RNN.
    """

    seed: int
    weights: str
    log10: dict[str, NDArray[np.float64]]
    gates: pd.DataFrame | None


def summarize(cell: str, model: ProbedModel) -> pd.DataFrame:
    """One row per statistic and step: log10 of the mean over examples, and their spread.

    Columns: cell, seed, weights, state, statistic, step (from 1), log10_mean, log10_median,
    log10_low, log10_high (10th and 90th percentile), examples (whose comment reaches the step).
    """
    parts = []
    for statistic, values in model.log10.items():
        reached = ~np.isnan(values).all(axis=0)
        low, median, high = _quantiles(values[:, reached])
        part = pd.DataFrame(
            {
                "step": np.flatnonzero(reached) + 1,
                "log10_mean": log10_mean(values[:, reached]),
                "log10_median": median,
                "log10_low": low,
                "log10_high": high,
                "examples": (~np.isnan(values[:, reached])).sum(axis=0),
            }
        )
        names = {
            "cell": cell,
            "seed": model.seed,
            "weights": model.weights,
            "state": STATE[cell],
            "statistic": statistic,
        }
        parts.append(part.assign(**names)[[*names, *part.columns]])
    return pd.concat(parts, ignore_index=True)


def _quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """10th, 50th and 90th percentile of what is not NaN in each column, (3, T)."""
    # the log10 of an exact zero is -inf, between which no quantile can be interpolated
    lowest = -1e300
    ascending, counts = np.sort(np.maximum(values, lowest), axis=0), (~np.isnan(values)).sum(axis=0)
    found = np.empty((3, values.shape[1]))
    for n in np.unique(counts):  # np.nanquantile takes one column after another
        columns = counts == n
        found[:, columns] = np.quantile(ascending[:n, columns], [0.1, 0.5, 0.9], axis=0)
    return np.where(found < lowest / 1e3, -np.inf, found)
