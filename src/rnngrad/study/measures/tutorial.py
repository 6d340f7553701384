"""The tutorial's own example: which steps the gradient of an LSTM's input weights comes from."""

import numpy as np
import pandas as pd
import torch
from torch import nn

import rnngrad


def tutorial() -> pd.DataFrame:
    """Norms of the parts of dL/dW_x of the tutorial's own example, an LSTM over three steps.

    N, D, T, H = 1, 3, 3, 1; c_0 = 0. All else is drawn after ``numpy.random.seed(1)``. The order is
    x (N, T, D), h_0 (N, H), W_x (D, 4H), W_h (H, 4H), b (4H), output gradient (N, T, H).
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
