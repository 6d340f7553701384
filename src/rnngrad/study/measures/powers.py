"""Does a tanh RNN's gradient follow the powers of its recurrent kernel?

d h_t/d h_0 = D_t W ... D_1 W with D = diag(tanh'(a)). Where tanh' = 1 it is W^t, which grows or
decays by log10 of W's spectral radius per step. The largest singular value bounds any step. Source:
Pascanu, Mikolov and Bengio (2013), "On the difficulty of training recurrent neural networks", 2.1.
"""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

import rnngrad
from rnngrad.intervals import change_per_step
from rnngrad.study.runs.open_model import Opened


def powers(model: Opened, log10: NDArray[np.floating]) -> pd.DataFrame:
    """The decay of a tanh RNN's log10 ||d h_t/d h_0||_F (B, T), and what its kernel predicts.

    A row per input (padding | words) that occurs. spectral_radius, largest_singular_value: of W_hh.
    predicted (log10 of the radius), measured: in decades per step. tanh_slope: mean of tanh' over
    units and steps. last_move: the most that any unit moves in the last step of this input,
    median over comments. The first 100 steps of a comment's padding do not count.
    """
    W, radius, rows = model.kernel.double(), spectral_radius(model.kernel.double()), []
    with torch.no_grad():
        h = model.module(model.inputs.x, model.start)[0].double()
    slopes = (1 - h.square()).numpy().mean(axis=2)
    before = model.start[0].double().unsqueeze(1)
    moves = torch.diff(h, dim=1, prepend=before).abs().amax(dim=2).numpy()
    for name, ranges in model.inputs.ranges(settled=True).items():
        if read := [(b, steps) for b, steps in enumerate(ranges) if steps]:
            slope = np.concatenate([slopes[b, steps] for b, steps in read])
            row = {
                "input": name,
                "spectral_radius": radius,
                "largest_singular_value": torch.linalg.matrix_norm(W, 2).item(),
                "predicted": np.log10(radius),
                "measured": change_per_step(log10, ranges),
                "tanh_slope": slope.mean(),
                "last_move": np.median([moves[b, steps[-1]] for b, steps in read]),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def spectral_radius(W: Tensor) -> float:
    """The largest |eigenvalue|."""
    return torch.linalg.eigvals(W).abs().max().item()


def powers_at_radii(model: Opened) -> pd.DataFrame:
    """:func:`powers` with W_hh scaled to weights: radius 0.9 | radius 1.1, on one comment."""
    one, tables = model.inputs.most_of_both(), []
    for radius in (0.9, 1.1):
        # few directions are fastest carried on in float64, many steps at a time
        scaled = model.of(slice(one, one + 1)).double()
        scaled.kernel.mul_(radius / spectral_radius(scaled.kernel))
        how = {"lengths": scaled.inputs.lengths, "method": "sketch", "statistics": ["frobenius"]}
        log10 = rnngrad.jacobian_curves(*scaled.problem, **how).log10_frobenius
        tables.append(powers(scaled, log10).assign(weights=f"radius {radius}"))
    return pd.concat(tables, ignore_index=True)
