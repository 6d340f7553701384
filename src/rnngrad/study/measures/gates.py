"""How open is the gate through which a state survives a step?"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rnngrad.probe import Trajectory, trajectory
from rnngrad.study.runs.open_model import Opened

BINS = 50


def trajectories(model: Opened) -> Iterator[Trajectory]:
    """The trajectory of every example, one at a time: all at once they may take gigabytes."""
    for b in range(len(model.inputs.x)):
        yield trajectory(*model.of(slice(b, b + 1)).problem)


def memory_gate(path: Trajectory) -> NDArray[np.float64]:
    """(B, T, H) activations of what multiplies a state: the LSTM's gate f or the GRU's z."""
    return path.gates["z" if path.c is None else "f"]


def gates(model: Opened) -> pd.DataFrame:
    """By kind of input, shares of the memory gate's activations in 50 bins, by their centres."""
    edges, ranges = np.linspace(0, 1, BINS + 1), model.inputs.ranges()
    counts = {name: np.zeros(BINS, dtype=int) for name in ranges}
    sums = dict.fromkeys(ranges, 0.0)
    for b, path in enumerate(trajectories(model)):
        for name, steps in ranges.items():
            chosen = memory_gate(path)[0, steps[b]]
            counts[name] += np.histogram(chosen, edges)[0]
            sums[name] += float(chosen.sum())
    tables = []
    for name, own in counts.items():
        if n := own.sum():
            shares = {"input": name, "activation": (edges[:-1] + edges[1:]) / 2, "share": own / n}
            tables.append(pd.DataFrame({**shares, "mean": sums[name] / n}))
    return pd.concat(tables, ignore_index=True)
