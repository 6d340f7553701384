"""Numbers that vary with the seed: their intervals, and these in words."""

import pandas as pd

from rnngrad.intervals import Interval, mean_interval

WEIGHTS_IN_WORDS = {"init": "untrained", "trained": "trained"}


def over_seeds(values: pd.Series) -> Interval:
    """The interval of one number per seed, in the order of the seeds; NaN are left out."""
    return mean_interval(values.dropna().sort_index().tolist())


def paired_difference(frame: pd.DataFrame, column: str, one: str, other: str) -> Interval | None:
    """The interval of ``one`` minus ``other``, two cells' means per seed, over the seeds of both.

    None if they share fewer than two seeds: one difference has no interval.
    """
    by_seed = frame.pivot_table(index="seed", columns="cell", values=column)
    if not {one, other} <= {*by_seed.columns}:
        return None
    differences = (by_seed[one] - by_seed[other]).dropna()
    return over_seeds(differences) if len(differences) > 1 else None


def above_zero(interval: Interval) -> bool:
    """Does the whole interval lie above zero? Never without ends."""
    return interval["low"] is not None and interval["low"] > 0


def below_zero(interval: Interval) -> bool:
    """Does the whole interval lie below zero? Never without ends."""
    return interval["high"] is not None and interval["high"] < 0


def in_words(interval: Interval, form: str, unit: str) -> str:
    """Such as "+0.42 nats (95% interval +0.31 to +0.53)"; without ends, the mean alone."""
    mean = f"{interval['mean']:{form}} {unit}"
    if interval["low"] is None or interval["high"] is None:
        return f"{mean} (one seed)"
    return f"{mean} (95% interval {interval['low']:{form}} to {interval['high']:{form}})"


def points_in_words(share: Interval) -> str:
    """A difference of shares in percentage points."""
    low, high = (None if end is None else 100 * end for end in (share["low"], share["high"]))
    return in_words({"mean": 100 * share["mean"], "low": low, "high": high}, "+.1f", "points")
