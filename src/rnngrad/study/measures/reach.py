"""How far back does the loss at the end of some words reach?"""

import numpy as np
import pandas as pd

import rnngrad
from rnngrad.study.runs.open_model import Opened


def reach(model: Opened) -> pd.DataFrame:
    """The gradient of the logit after the last step with respect to the state at every step.

    Returns:
        A row per state (h, and c of an LSTM) and distance (steps to the last one): log10 of the
        norm over that at distance 0, median over comments.
    """
    _, module, head, inputs, start = model
    gradient = inputs.x.new_zeros(*inputs.x.shape[:2], module.hidden_size)
    gradient[:, -1] = head.weight.detach()
    curves = rnngrad.loss_gradient_curves(module, inputs.x, gradient, start)
    tables = []
    for state, log10 in (("h", curves.log10_h), ("c", curves.log10_c)):
        if log10 is not None:
            relative = np.median((log10 - log10[:, -1:])[:, ::-1], axis=0)
            found = {"state": state, "distance": range(len(relative)), "log10": relative}
            tables.append(pd.DataFrame(found))
    return pd.concat(tables)
