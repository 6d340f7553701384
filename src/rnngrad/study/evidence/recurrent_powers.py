"""Is the gradient of a tanh RNN that of powers of its recurrent kernel?

d h_t/d h_0 = D_t W ... D_1 W with D = diag(tanh'(a)). Where tanh' = 1 it is W^t, which grows or
decays by log10 of W's spectral radius per step; the largest singular value bounds any step. The
kernels of untrained models are also scaled to spectral radii on either side of 1.

Source: Pascanu, Mikolov and Bengio (2013), "On the difficulty of training recurrent neural
networks", section 2.1.
"""

import copy
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import rnngrad
from rnngrad.study.evidence.stretches import change_per_step, most_of_both, settled_stretches
from rnngrad.study.probing import ProbeInputs

SCALED_TO = (0.9, 1.1)  # spectral radii
COLUMNS = [
    "input",
    "spectral_radius",
    "largest_singular_value",
    "predicted",
    "measured",
    "tanh_slope",
    "last_move",
]


def recurrent_powers(
    module: nn.RNNBase, inputs: ProbeInputs, state: Tensor, log10: NDArray[np.floating]
) -> pd.DataFrame:
    """The decay that the recurrent kernel predicts, and the measured one.

    Args:
        module: a tanh RNN of one layer.
        inputs, state: what it reads, and h_0 (1, B, H).
        log10: (B, T), log10 of the Frobenius norm of d h_t/d h_0.

    Returns:
        A row per input (padding | words) that occurs. Columns: spectral_radius and
        largest_singular_value of W_hh; predicted (log10 of the former) and measured, in decades per
        step; tanh_slope (mean of tanh' over units and steps); last_move (the most that any unit
        moves in the last step of this input, median over comments): on padding 0 if the state comes
        to rest. The first 100 steps of padding of a comment do not count.
    """
    W = cast("Tensor", module.weight_hh_l0).detach().double()
    radius = spectral_radius(W)
    with torch.no_grad():
        h = module(inputs.inputs, state)[0].double()
    slopes = (1 - h.square()).numpy().mean(axis=2)
    moves = torch.diff(h, dim=1, prepend=state[0].double().unsqueeze(1)).abs().amax(dim=2).numpy()
    rows = []
    for name, where in settled_stretches(inputs.steps()).items():
        if where:
            at = [slopes[stretch.example, stretch.steps] for stretch in where]
            rows.append(
                {
                    "input": name,
                    "spectral_radius": radius,
                    "largest_singular_value": float(torch.linalg.matrix_norm(W, 2)),
                    "predicted": float(np.log10(radius)),
                    "measured": change_per_step(log10, where),
                    "tanh_slope": float(np.concatenate(at).mean()),
                    "last_move": float(np.median([moves[s.example, s.stop - 1] for s in where])),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def spectral_radius(W: Tensor) -> float:
    """The largest |eigenvalue|."""
    return float(torch.linalg.eigvals(W).abs().max())


def powers_at_radii(module: nn.RNNBase, inputs: ProbeInputs, state: Tensor) -> pd.DataFrame:
    """:func:`recurrent_powers` with W_hh scaled to other spectral radii, on one comment.

    Args:
        module, inputs, state: as above; the comment is the one that has most of both inputs.

    Returns:
        The same columns, and weights: radius 0.9 | radius 1.1.
    """
    one = most_of_both(inputs.steps())
    rows = slice(one, one + 1)
    own = ProbeInputs(inputs.inputs[rows].double(), inputs.lengths[rows], inputs.is_word[rows])
    h = state[:, rows].double().contiguous()
    found = [_at_radius(r, module, own, h).assign(weights=f"radius {r}") for r in SCALED_TO]
    return pd.concat(found, ignore_index=True)


def _at_radius(
    wanted: float, module: nn.RNNBase, inputs: ProbeInputs, state: Tensor
) -> pd.DataFrame:
    # few directions are soonest carried on in float64, many steps at a time
    model = copy.deepcopy(module).double()
    W = cast("Tensor", model.weight_hh_l0)
    with torch.no_grad():
        W *= wanted / spectral_radius(W)
    curves = rnngrad.jacobian_curves(
        model,
        inputs.inputs,
        state,
        lengths=inputs.lengths,
        method="sketch",
        statistics=["frobenius"],
    )
    return recurrent_powers(model, inputs, state, curves.log10_frobenius)
