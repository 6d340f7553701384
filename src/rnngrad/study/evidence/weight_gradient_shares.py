"""Which steps does the gradient of a recurrent weight come from?

For a loss at step T the gradient of W_hh is a sum over the steps at which W_hh was used,
dL_T/dW_hh = sum_(t <= T) delta_(T,t) h_(t-1)^T. The norms of these parts, for every T and t, are a
triangle; its last row says which steps the last loss learns from.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

import rnngrad
from rnngrad.models.classifier import CommentClassifier
from rnngrad.study.evidence.passages import Passages, some
from rnngrad.study.gates import State

COMMENTS = 2
STEPS = 100
LATE = 0.1  # the last tenth of the steps
MOST = 0.9

COLUMNS = ["comment", "steps", "late_share", "steps_of_most"]


class WeightGradientShares(NamedTuple):
    """The results of one model's triangle.

    Attributes:
        shares: one row per comment. Columns: comment, steps (T), late_share (of the summed norms of
            the parts, what the last tenth of the steps holds), steps_of_most (the smallest number
            of last steps that hold 90% of it).
        triangle: (T, T) float32, loss step x step, of the first comment: log10 of the norm of each
            part relative to the largest of its row; NaN above the diagonal.
    """

    shares: pd.DataFrame
    triangle: NDArray[np.float32]


def weight_gradient_shares(
    classifier: CommentClassifier, passages: Passages, start: State
) -> WeightGradientShares:
    """The triangle of dL_T/dW_hh, with the logit after step T as the loss L_T.

    Two comments and 100 steps at most; ``start`` is ``passages.start(classifier.recurrent)``.
    """
    inputs = passages.inputs[:COMMENTS, :STEPS]
    gradient = classifier.head.weight.detach().expand(*inputs.shape[:2], -1)
    parts = rnngrad.weight_gradient_parts(
        classifier.recurrent,
        inputs,
        gradient,
        some(start, slice(COMMENTS)),
        reduce="log10_norm",
    )["weight_hh_l0"]
    rows = [_shares_of_row(triangle[-1], comment) for comment, triangle in enumerate(parts)]
    return WeightGradientShares(pd.DataFrame(rows, columns=COLUMNS), _relative(parts[0]))


def _shares_of_row(log10_norms: NDArray[np.float64], comment: int) -> dict[str, float]:
    T = len(log10_norms)
    top = log10_norms.max()
    norms = 10.0 ** (log10_norms - (top if np.isfinite(top) else 0.0))
    # a single step from the zero state has no part at all
    from_the_end = np.cumsum(norms[::-1]) / (norms.sum() or np.nan)
    return {
        "comment": comment,
        "steps": T,
        "late_share": from_the_end[max(round(LATE * T), 1) - 1],
        # a sum may end a rounding error below 1, but it never ends below 0.9
        "steps_of_most": int(np.argmax(from_the_end >= MOST)) + 1,
    }


def _relative(triangle: NDArray[np.float64]) -> NDArray[np.float32]:
    top = triangle.max(axis=1, keepdims=True)
    # read from a zero state, the first step has no part in the gradient of W_hh
    relative = triangle - np.where(np.isfinite(top), top, 0.0)
    relative[np.triu_indices(len(triangle), 1)] = np.nan
    return relative.astype(np.float32)


def tutorial_table() -> pd.DataFrame:
    """The tutorial's own example: norms of the parts of dL/dW_x of an LSTM over three steps.

    N, D, T, H = 1, 3, 3, 1; standard normal draws after ``numpy.random.seed(1)`` in the order
    x (N, T, D), h_0 (N, H), W_x (D, 4H), W_h (H, 4H), b (4H), output gradient (N, T, H); c_0 = 0.
    Its gates are stacked as i, f, o, g, torch's as i, f, g, o.

    Returns:
        Columns: loss, step (both from 1, step <= loss), norm. One row per part.
    """
    N, D, T, H = 1, 3, 3, 1
    # the tutorial's numbers are those of this generator and no other
    draw = np.random.RandomState(1).randn
    x, h_0, W_x, W_h = draw(N, T, D), draw(N, H), draw(D, 4 * H), draw(H, 4 * H)
    b, gradient = draw(4 * H), draw(N, T, H)
    order = [0, 1, 3, 2]
    module = nn.LSTM(D, H, batch_first=True).double()
    values = (W_x.T[order], W_h.T[order], b[order], np.zeros(4 * H))
    for parameter, value in zip(module.parameters(), values, strict=True):
        parameter.data = torch.from_numpy(np.ascontiguousarray(value))
    h = torch.from_numpy(h_0)[None]
    norms = rnngrad.weight_gradient_parts(
        module, torch.from_numpy(x), torch.from_numpy(gradient), (h, torch.zeros_like(h))
    )["weight_ih_l0"][0]
    loss, step = np.tril_indices(T)
    return pd.DataFrame({"loss": loss + 1, "step": step + 1, "norm": norms[loss, step]})
