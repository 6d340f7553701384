"""How far back does the loss reach?"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import rnngrad
from rnngrad.study.runs.open_model import Opened


def loss_gradients(model: Opened) -> dict[str, NDArray[np.float64]]:
    """(B, T) log10 of |d logit/d s_t| over that at the read step, by s: h, and an LSTM's c.

    NaN beyond the steps that count.
    """
    module, x, start = model.problem
    read = range(len(x)), model.inputs.lengths - 1
    gradient = x.new_zeros(*x.shape[:2], module.hidden_size)
    gradient[read] = model.head.weight.detach()
    found = rnngrad.loss_gradient_curves(module, x, gradient, start, lengths=model.inputs.lengths)
    log10 = {"h": found.log10_h, "c": found.log10_c}
    return {s: v - v[read][:, None] for s, v in log10.items() if v is not None}


def reach(model: Opened) -> pd.DataFrame:
    """A row per state and distance (steps to the last one): the median over comments, log10."""
    medians = {s: np.median(log10[:, ::-1], axis=0) for s, log10 in loss_gradients(model).items()}
    table = pd.DataFrame(medians).rename_axis("distance")
    return table.melt(var_name="state", value_name="log10", ignore_index=False).reset_index()
