"""How open the gate is through which a state survives a step."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from rnngrad.probe import Trajectory, trajectory

BINS = 50
State = Tensor | tuple[Tensor, Tensor]  # h, or (h, c) of an LSTM


def trajectories(module: nn.RNNBase, inputs: Tensor, state: State) -> Iterator[Trajectory]:
    """The trajectory of every example, one at a time: all at once they may take gigabytes."""
    for b in range(len(inputs)):
        own = slice(b, b + 1)
        start = (state[0][:, own], state[1][:, own]) if isinstance(state, tuple) else state[:, own]
        yield trajectory(module, inputs[own], start)


def memory_gate(path: Trajectory) -> NDArray[np.float64]:
    """(B, T, H) activations of the LSTM's forget gate f or the GRU's update gate z.

    Both multiply the previous state: c_t = f c_{t-1} + ..., h_t = z h_{t-1} + ...
    """
    return path.gates["z" if path.c is None else "f"]


def gate_histogram(
    module: nn.RNNBase,
    inputs: Tensor,
    state: State,
    steps: dict[str, NDArray[np.bool_]],
) -> pd.DataFrame:
    """Share of the memory gate's activations in each of 50 bins of (0, 1), by kind of input.

    Args:
        module: an LSTM or GRU of one layer.
        inputs, state: what it reads, and its initial state (1, B, H), or a pair of them.
        steps: by kind of input, a (B, T) mask of the steps at which it is read.

    Returns:
        Columns: input, activation (bin centre), share (sums to 1 over the bins), mean. A kind of
        input that does not occur has no rows.
    """
    edges = np.linspace(0, 1, BINS + 1)
    counts = {name: np.zeros(BINS, dtype=int) for name in steps}
    sums = dict.fromkeys(steps, 0.0)
    for b, path in enumerate(trajectories(module, inputs, state)):
        for name, mask in steps.items():
            chosen = memory_gate(path)[0, mask[b]]
            counts[name] += np.histogram(chosen, edges)[0]
            sums[name] += float(chosen.sum())
    parts = [
        pd.DataFrame(
            {
                "input": name,
                "activation": (edges[:-1] + edges[1:]) / 2,
                "share": count / count.sum(),
                "mean": sums[name] / count.sum(),
            }
        )
        for name, count in counts.items()
        if count.any()
    ]
    return pd.concat(parts, ignore_index=True)
