"""Jacobian curves of a model on test comments, and their summary over comments."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import rnngrad
from rnngrad.intervals import log10_mean
from rnngrad.study import MILESTONES
from rnngrad.study.runs import Run
from rnngrad.study.runs.open_model import Opened

LOWEST = -1e300  # stands for -inf, the log10 of an exact zero, next to which nothing interpolates


def log_spaced_steps(last: int, count: int) -> list[int]:
    """Some ``count`` steps from 1 to ``last``: even on a logarithmic axis, and the milestones."""
    spread = np.geomspace(1, last, count).round().astype(int).tolist()
    return sorted({*spread, *(step for step in MILESTONES if step <= last)})


def jacobian_curves(
    model: Opened, spectral_steps: list[int], *, paths: bool = False
) -> dict[str, NDArray[np.float64]]:
    """By statistic, log10 (B, T), NaN beyond a comment's end; an LSTM's ``paths`` are two more."""
    names = ["column_sum", "frobenius", "spectral"] + ["hidden_path"] * paths
    how = {"state": model.run.state, "statistics": names, "spectral_steps": spectral_steps}
    found = rnngrad.jacobian_curves(*model.problem, lengths=model.inputs.lengths, **how)
    return {name: getattr(found, f"log10_{name}") for name in names + ["cell_path"] * paths}


def over_comments(run: Run, log10: dict[str, NDArray[np.float64]]) -> pd.DataFrame:
    """One row per statistic and step: log10 of the mean over comments, and their spread.

    Columns: state, statistic, step (from 1), log10_mean, log10_median, log10_low, log10_high (10th
    and 90th percentile), examples (whose comment reaches the step).
    """
    tables = []
    for statistic, values in log10.items():
        reached = ~np.isnan(values).all(axis=0)
        own = values[:, reached]
        quantiles = pd.DataFrame(np.maximum(own, LOWEST)).quantile([0.5, 0.1, 0.9])
        table = pd.DataFrame({"state": run.state, "statistic": statistic}, np.flatnonzero(reached))
        table["step"] = table.index + 1
        table["log10_mean"] = log10_mean(own)
        names = [f"log10_{name}" for name in ("median", "low", "high")]
        table[names] = np.where(quantiles < LOWEST / 1e3, -np.inf, quantiles).T
        table["examples"] = (~np.isnan(own)).sum(axis=0)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
