"""Which models the conditions run, and what every condition reads from them. Needs no torch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.params import Params, Setting
from rnngrad.study.conditions.table import curve_numbers
from rnngrad.workers import pool

SMALLEST_NORMAL = {  # log10 of what each arithmetic can still hold with all its digits
    "log": -np.inf,
    "float64": float(np.log10(np.finfo(np.float64).tiny)),
    "float32": float(np.log10(np.finfo(np.float32).tiny)),
    "float32_flushed": float(np.log10(np.finfo(np.float32).tiny)),
}


class Reading(NamedTuple):
    """In which arithmetic which statistic is taken."""

    arithmetic: str
    statistic: str


COLUMN_SUM = Reading("log", "column_sum")


class Job(NamedTuple):
    """One model on the examples of one setting; several conditions may read the same curves."""

    setting: Setting  # but for what the readings and the halving say
    cell: str
    seed: int
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Measured:
    """The measurements of one model.

    Attributes:
        log10: by reading, (B, T) float64; NaN at steps where it was not taken.
        words: for each example the steps (from 0) at which words are read.
        units: H.
        float32_zero_from: first step (from 1) from which autograd's float32 with flush-to-zero is
            zero in every entry of every example; None if never.
    """

    job: Job
    log10: dict[Reading, NDArray[np.float64]]
    words: list[range]
    units: int
    float32_zero_from: int | None


def jobs_of(params: Params, features: int) -> dict[str, list[Job]]:
    """The models of every case, by its name; equal jobs are to be run once.

    ``features`` is the dimension of the word vectors.
    """
    conditions = params.conditions
    found: dict[str, list[Job]] = {}
    readings: dict[tuple[str, str, int], set[Reading]] = {}
    for case in conditions.cases:
        setting = conditions.setting_of(case)
        trained = setting.weights == "trained"
        for cell in setting.cells:
            if trained and cell not in params.cells:
                continue  # nobody trained it
            for seed in params.train_of(cell).seeds if trained else conditions.seeds:
                job = Job(_what_is_run(setting, cell, features), cell, seed, ())
                found.setdefault(case, []).append(job)
                readings.setdefault(_key(job), set()).add(reading_of(setting))
    return {
        case: [job._replace(readings=tuple(sorted(readings[_key(job)]))) for job in jobs]
        for case, jobs in found.items()
    }


def reading_of(setting: Setting) -> Reading:
    return Reading(setting.arithmetic, setting.statistic)


def _what_is_run(setting: Setting, cell: str, features: int) -> Setting:
    """The setting with what does not change the model's run set to one and the same value."""
    same = {"cells": [cell], "arithmetic": "log", "statistic": "column_sum", "halved_mean": False}
    untrained = setting.weights == "initial"
    slices = untrained and setting.sliced_input and setting.units < features
    return setting.model_copy(update=same | {"sliced_input": slices})


def _key(job: Job) -> tuple[str, str, int]:
    return job.setting.model_dump_json(), job.cell, job.seed


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """Every job once; what takes long first, so that no core is left alone with it in the end."""
    return sorted({_key(job): job for job in jobs}.values(), key=_soon_done)


def _soon_done(job: Job) -> tuple[bool, bool, int]:
    # without padding in front no steps are shared; other readings have their own sweeps
    setting = job.setting
    return len(job.readings) == 1, setting.padding == "pre", -setting.steps


def measure(jobs: Sequence[Job], params: Params, build: Path) -> Iterator[Measured]:
    """Run every job, as many at a time as there are cores, and give the results in order.

    Args:
        jobs, params: see :func:`~rnngrad.study.conditions.measuring.measure_job`.
        build: folder of the stages' outputs: embed, train/<cell>.
    """
    with pool(len(jobs)) as executor:
        folders = build / "embed", build / "train"
        futures = [executor.submit(_measure, job, params, *folders) for job in jobs]
        yield from (future.result() for future in futures)


# torch takes seconds to import: only the workers need it
def _measure(*job: Any) -> Measured:
    from rnngrad.study.conditions.measuring import measure_job

    return measure_job(*job)


def tabulate(
    params: Params, cases: dict[str, list[Job]], measured: Iterable[Measured]
) -> tuple[list[dict[str, Any]], list[tuple[str, str, pd.Series]]]:
    """Collect the numbers and curves of every case from the measurements.

    Returns:
        One row per case, cell and seed: condition, factor, cell, seed and
        ``table.NUMBERS``; and for each of them condition, cell and the curve.
    """
    found = {_key(result.job): result for result in measured}
    rows, curves = [], []
    for case, jobs in cases.items():
        setting, factor = params.conditions.setting_of(case), params.conditions.factor_of(case)
        for job in jobs:
            result = found[_key(job)]
            curve, numbers = curve_numbers(
                result.log10[reading_of(setting)],
                result.words,
                0.5 * np.log10(result.units) if setting.statistic == "frobenius" else 0.0,
                SMALLEST_NORMAL[setting.arithmetic],
                setting.halved_mean,
                result.float32_zero_from,
            )
            names = {"condition": case, "factor": factor, "cell": job.cell, "seed": job.seed}
            rows.append(names | numbers)
            curves.append((case, job.cell, curve))
    return rows, curves
