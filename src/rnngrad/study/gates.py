"""How open the gate is through which a state survives a step."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BINS = 50


@torch.inference_mode()
def memory_gate(
    module: nn.RNNBase, inputs: Tensor, state: Tensor | tuple[Tensor, Tensor]
) -> NDArray[np.float64]:
    """(B, T, H) activations of the LSTM's forget gate f or the GRU's update gate z.

    Both multiply the previous state: c_t = f c_{t-1} + ..., h_t = z h_{t-1} + ...; torch stacks the
    gates as i, f, g, o and r, z, n, so it is the second block either way.
    """
    H = module.hidden_size
    hidden, _ = module(inputs, state)
    first = state[0] if isinstance(state, tuple) else state
    previous = torch.cat([first.transpose(0, 1), hidden[:, :-1]], dim=1)
    block = slice(H, 2 * H)
    weights = dict(module.named_parameters())
    preactivation = (
        inputs @ weights["weight_ih_l0"][block].T
        + previous @ weights["weight_hh_l0"][block].T
        + weights["bias_ih_l0"][block]
        + weights["bias_hh_l0"][block]
    )
    return preactivation.sigmoid().numpy().astype(np.float64)


def gate_histogram(
    activations: NDArray[np.float64], steps: dict[str, NDArray[np.bool_]]
) -> pd.DataFrame:
    """Share of activations in each of 50 bins of (0, 1), for each kind of input.

    Args:
        activations: (B, T, H).
        steps: by kind of input, a (B, T) mask of the steps at which it is read.

    Returns:
        Columns: input, activation (bin centre), share (sums to 1 over the bins), mean. A kind of
        input that does not occur has no rows.
    """
    edges = np.linspace(0, 1, BINS + 1)
    parts = []
    for name, mask in steps.items():
        if not mask.any():
            continue
        chosen = activations[mask]
        counts, _ = np.histogram(chosen, edges)
        parts.append(
            pd.DataFrame(
                {
                    "input": name,
                    "activation": (edges[:-1] + edges[1:]) / 2,
                    "share": counts / counts.sum(),
                    "mean": chosen.mean(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
