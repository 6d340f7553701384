"""Which steps does the gradient of a recurrent weight come from?

For a loss at step T the gradient of W_hh is a sum over the steps at which W_hh was used,
dL_T/dW_hh = sum_(t <= T) delta_(T,t) h_(t-1)^T. The norms of these parts, for every T and t, are a
triangle; its last row says which steps the last loss learns from.
"""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

import rnngrad
from rnngrad.study.runs.open_model import Opened

COMMENTS = 2
STEPS = 100
LATE = 0.1  # the last tenth of the steps
MOST = 0.9


def shares(model: Opened) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """The triangle of dL_T/dW_hh, with the logit after step T as the loss L_T.

    It is taken of two comments and 100 steps at most. The table has a row per comment: steps (T),
    late_share (what the last tenth of the steps holds of the summed norms), steps_of_most (the
    smallest number of last steps that hold 90% of them). The triangle (T, T), loss step x step, is
    of the first comment: log10 of the norm of each part relative to the largest of its row; NaN
    above the diagonal.
    """
    module, x, start = model.of(slice(COMMENTS)).problem
    x = x[:, :STEPS]
    gradient = model.head.weight.detach().expand(*x.shape[:2], -1)
    found = rnngrad.weight_gradient_parts(module, x, gradient, start, reduce="log10_norm")
    parts, T = found["weight_hh_l0"], x.shape[1]
    largest = parts.max(axis=2, keepdims=True)
    # read from a zero state, the first step has no part in the gradient of W_hh
    relative = parts - np.where(np.isfinite(largest), largest, 0.0)
    norms = 10.0 ** relative[:, -1]
    # a single step from the zero state has no part at all
    total = np.where(norms.any(axis=1), norms.sum(axis=1), np.nan)
    from_the_end = np.cumsum(norms[:, ::-1], axis=1) / total[:, None]
    table = {
        "comment": range(len(parts)),
        "steps": T,
        "late_share": from_the_end[:, max(round(LATE * T), 1) - 1],
        # a sum may end a rounding error below 1, but it never ends below 0.9
        "steps_of_most": np.argmax(from_the_end >= MOST, axis=1) + 1,
    }
    triangle = relative[0]
    triangle[np.triu_indices(T, 1)] = np.nan
    return pd.DataFrame(table), triangle.astype(np.float32)


def tutorial() -> pd.DataFrame:
    """Norms of the parts of dL/dW_x of the tutorial's own example, an LSTM over three steps.

    N, D, T, H = 1, 3, 3, 1; standard normal draws after ``numpy.random.seed(1)`` in the order
    x (N, T, D), h_0 (N, H), W_x (D, 4H), W_h (H, 4H), b (4H), output gradient (N, T, H); c_0 = 0.
    Its gates are stacked as i, f, o, g, torch's as i, f, g, o. Losses and steps count from 1.
    """
    N, D, T, H = 1, 3, 3, 1
    # the tutorial's numbers are those of this generator and no other
    draw = np.random.RandomState(1).randn
    x, h_0, W_x, W_h = draw(N, T, D), draw(1, N, H), draw(D, 4 * H), draw(H, 4 * H)
    b, gradient = draw(4 * H), draw(N, T, H)
    order = [0, 1, 3, 2]
    module = nn.LSTM(D, H, batch_first=True).double()
    values = (W_x.T[order], W_h.T[order], b[order], np.zeros(4 * H))
    for parameter, value in zip(module.parameters(), values, strict=True):
        parameter.data = torch.from_numpy(np.ascontiguousarray(value))
    x, gradient, h = map(torch.from_numpy, (x, gradient, h_0))
    found = rnngrad.weight_gradient_parts(module, x, gradient, (h, torch.zeros_like(h)))
    loss, step = np.tril_indices(T)
    norms = found["weight_ih_l0"][0, loss, step]
    return pd.DataFrame({"loss": loss + 1, "step": step + 1, "norm": norms})
