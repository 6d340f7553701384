"""From the curves of every run to one row per condition and cell."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.intervals import change_per_step, log10_mean
from rnngrad.params import Setting
from rnngrad.plot import FLOAT32_NORMAL
from rnngrad.study import MILESTONES
from rnngrad.study.results import read_arrays
from rnngrad.study.runs import Condition, job_name

NAMES = ["condition", "factor", "cell"]
STEPS = MILESTONES[1:]
COUNTS = ["examples", "float32_zero_from", "horizon"]
# log10 of the smallest number that an arithmetic holds with all its digits
SMALLEST = {"log": -math.inf, "float64": math.log10(np.finfo(np.float64).tiny)}
SMALLEST |= dict.fromkeys(("float32", "float32_flushed"), FLOAT32_NORMAL)


def tabulate(conditions: Iterable[Condition], folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give all conditions' numbers, a row per seed, and their curves, from the folder of runs."""
    rows, curves = [], []
    for name, factor, run, reading in conditions:
        found = read_arrays(folder / job_name(run, reading.arithmetic) / "log10.npz")
        true = read_arrays(folder / job_name(run, "log") / "log10.npz")
        words = [range(*ends) for ends in found["words"].tolist()]
        start = math.log10(found["units"]) / 2 if reading.statistic == "frobenius" else 0.0
        curve, numbers = curve_numbers(found[reading.statistic], words, start, reading)
        numbers["float32_zero_from"] = int(true["zero_from"]) or np.nan
        names = {"condition": name, "factor": factor, "cell": run.cell, "seed": run.seed}
        rows.append(names | numbers)
        curves.append(curve.reset_index().assign(condition=name, cell=run.cell))
    return pd.DataFrame(rows), pd.concat(curves)


def curve_numbers(
    log10: NDArray[np.float64], words: Sequence[range], start: float, reading: Setting
) -> tuple[pd.Series, dict[str, float]]:
    """log10 of the mean over examples by step (from 1), and its numbers but float32_zero_from.

    ``log10`` (B, T) is NaN at steps that were not recorded. ``words`` are by example the steps
    (from 0) at which words are read. ``start`` is log10 of the statistic of the identity, step 0.
    The reading's arithmetic says above which number rates are taken.
    """
    recorded = np.flatnonzero(~np.isnan(log10).any(axis=0))
    halved = np.log10(2) if reading.halved_mean else 0.0  # at step 0 as well
    mean = log10_mean(log10[:, recorded]) - halved
    curve = pd.Series(mean, pd.Index(recorded + 1, name="step"), name="log10")
    T, smallest = log10.shape[1], SMALLEST[reading.arithmetic]
    padding = [range(own.start) for own in words]
    from_start = np.insert(log10, 0, start, axis=1)
    numbers: dict[str, float] = {"examples": len(log10)}
    numbers |= {f"log10_at_{step}": float(curve.get(step, np.nan)) for step in STEPS}
    numbers |= {"log10_at_end": float(curve[T]), "float32_zero_from": np.nan}
    for name, ranges in (("padding", padding), ("tokens", words)):
        held = [_held(row, own, smallest) for row, own in zip(log10, ranges, strict=True)]
        numbers[f"decades_per_step_{name}"] = change_per_step(from_start, held)
    numbers["horizon"] = _horizon(curve, start - halved)
    return curve, numbers


def _held(row: NDArray[np.float64], own: range, smallest: float) -> range:
    """The steps (from 0, the start) from before the range to the last one above the smallest."""
    held = np.flatnonzero(row[own.start : own.stop] > smallest)
    return range(own.start, own.start + held[-1] + 2) if len(held) else range(0)


def _horizon(curve: pd.Series, start: float) -> float:
    """First step at which a tenth of the identity's value or less is left; NaN if never."""
    if not (curve <= start - 1).any():
        return np.nan
    first = int(np.argmax(curve <= start - 1))
    (last, step), (before, value) = ([0, *curve.index][first:][:2], [start, *curve][first:][:2])
    if step - last == 1 or not math.isfinite(value):
        return step
    # between two recorded steps the curve is taken to be straight
    return math.ceil(last + (before - start + 1) / (before - value) * (step - last))


def over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """Medians by condition and cell; steps to which most of the seeds never come are missing.

    Counts are those of one seed: of an even number of them, the lower of the two in the middle.
    """
    never = dict.fromkeys(COUNTS, np.inf)
    groups = seeds.drop(columns="seed").fillna(never).groupby(NAMES, sort=False)
    medians, counts = groups.median(), groups[COUNTS].quantile(interpolation="lower")
    medians[COUNTS] = counts.replace(np.inf, np.nan).astype("Int64")
    return medians.reset_index()


def curves_over_seeds(curves: pd.DataFrame) -> pd.DataFrame:
    """Columns: condition, cell, step, log10 (median over seeds), low, high (least and most)."""
    groups = curves.groupby(["condition", "cell", "step"], sort=False)["log10"]
    return groups.agg(log10="median", low="min", high="max").reset_index()
