"""The whole work's time, where only a part of it was run."""

from collections.abc import Mapping

import numpy as np


def from_some_steps(seconds: Mapping[int, float], of: int) -> float:
    """All t = 1 .. `of`, each taken by itself, from some t; linear in t between them."""
    steps = sorted(seconds)
    return float(np.interp(np.arange(1, of + 1), steps, [seconds[t] for t in steps]).sum())
