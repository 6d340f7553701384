"""Which steps does the gradient of a recurrent weight come from?

For a loss at step T the gradient of W_hh is a sum over the steps at which W_hh was used. It is
dL_T/dW_hh = sum_(t <= T) delta_(T,t) h_(t-1)^T. The norms of these parts, for every T and t, are a
triangle. Its last row says which steps the last loss learns from.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import rnngrad
from rnngrad.study.runs.open_model import Opened

COMMENTS = 2
STEPS = 100


def shares(model: Opened) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """The triangle of dL_T/dW_hh, with the logit after step T as the loss L_T.

    The table has a row for each of two comments. steps: T, 100 at most. late_share: what the last
    tenth of the steps holds of the summed norms. steps_of_most: the smallest number of last steps
    that hold 90% of them. The triangle (T, T), loss step x step, is of the first comment. It is
    log10 of the norm of each part relative to the largest of its row; NaN above the diagonal.
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
        "late_share": from_the_end[:, max(round(T / 10), 1) - 1],
        # a sum may end a rounding error below 1, but it never ends below 0.9
        "steps_of_most": np.argmax(from_the_end >= 0.9, axis=1) + 1,
    }
    triangle = np.where(np.tri(T), relative[0], np.nan)
    return pd.DataFrame(table), triangle.astype(np.float32)
