"""The padding in front of a batch: the same zeros from the same zero state for every comment.

One example passes through it for the whole batch, with gradient. A tanh RNN's steps are so small
that autograd's bookkeeping costs several times the arithmetic, so its derivative is written out:

    h_t = tanh(W_hh h_{t-1} + b)                 b = b_ih + b_hh, zero input, h_0 = 0
    da_t = (1 - h_t^2) * dh_t,  dh_{t-1} = W_hh^T da_t
    dW_hh = sum_t da_t h_{t-1}^T,  db = sum_t da_t
"""

import itertools
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn


def state_after_padding(module: nn.RNNBase, steps: int) -> Tensor | tuple[Tensor, Tensor]:
    """State (1, 1, H), or a pair for an LSTM, after ``steps`` zero inputs from the zero state.

    Differentiable with respect to the module's parameters; equal to running the module itself.
    """
    parameters = dict(module.named_parameters())
    weight = parameters["weight_hh_l0"]
    if isinstance(module, nn.RNN) and module.nonlinearity == "tanh" and weight.device.type == "cpu":
        bias = parameters["bias_ih_l0"] + parameters["bias_hh_l0"]
        state = cast("Tensor", _TanhPadding.apply(weight, bias, steps))
        return state.view(1, 1, -1)
    padding = weight.new_zeros(1, steps, module.input_size)
    return module(padding)[1]


class _TanhPadding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, W_hh: Tensor, b: Tensor, steps: int) -> Tensor:
        W, bias = W_hh.detach().numpy(), b.detach().numpy()
        h = np.zeros((steps + 1, len(bias)), dtype=bias.dtype)
        for previous, current in itertools.pairwise(h):
            np.dot(W, previous, out=current)
            current += bias
            np.tanh(current, out=current)
        ctx.W, ctx.h = W, h
        return torch.from_numpy(h[-1].copy())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        W_transposed = np.ascontiguousarray(ctx.W.T)
        dh = gradients[0].numpy().copy()
        da = 1 - ctx.h[1:] ** 2
        for row in da[::-1]:
            row *= dh
            np.dot(W_transposed, row, out=dh)
        return torch.from_numpy(da.T @ ctx.h[:-1]), torch.from_numpy(da.sum(axis=0)), None
