"""What the whole work would take, where only a part of it was run."""

from collections.abc import Mapping

import numpy as np


def from_first_steps(seconds: float, steps: int, of: int, power: int) -> float:
    """Of T = `of` steps, from the first `steps` of them.

    power: 1 where every step costs the same, as forwards; 2 where step t costs t, as backwards.
    """
    return seconds * (of / steps) ** power


def from_some_steps(seconds: Mapping[int, float], of: int) -> float:
    """Of all t = 1 .. `of`, each taken by itself, from some t; linear in t between them."""
    steps = sorted(seconds)
    return float(np.interp(np.arange(1, of + 1), steps, [seconds[t] for t in steps]).sum())


def longest_prefix(seconds: float, steps: int, of: int, power: int, budget: float) -> int:
    """How many first steps fit the budget, where `steps` took `seconds`: all, or for half of it."""
    if from_first_steps(seconds, steps, of, power) <= budget:
        return of
    return min(of, max(steps, int(steps * (budget / 2 / seconds) ** (1 / power))))
