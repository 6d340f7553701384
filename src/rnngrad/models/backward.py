"""One step back through RNN, GRU and LSTM in NumPy: `rnngrad.probe.recurrence`, transposed.

da is the derivative of the loss by a pre-activation (its sign not turned), dh and dc those by the
states, with all steps to come; one step back takes dh, dc to those of the states before it:

    RNN    da = (1 - h^2) dh
    GRU    da_n = (1-z)(1-n^2) dh,  da_r = q r (1-r) da_n,  da_z = (h_{t-1} - n) z (1-z) dh,
           dq = r da_n,  dh_{t-1} = z dh + ...
    LSTM   dc += o (1 - tanh(c)^2) dh,  da_o = tanh(c) o (1-o) dh
           da_i = g i (1-i) dc,  da_f = c_{t-1} f (1-f) dc,  da_g = i (1-g^2) dc,  dc_{t-1} = f dc

and dh_{t-1} += W_hh^T da, a GRU's with dq for da_n. Each da is a vector of the step's times dh or
dc; these vectors (`factors`) are made for many rows at once. Arrays are of one dtype, float32 or
float64; rows of gates and of da consist of the blocks that `recurrence` names.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnngrad.probe.products import Array, multiply_rows
from rnngrad.probe.recurrence import States

Factors = tuple[Array, ...]  # mix (n, blocks, H); then (n, H) each, where there are: keep, through

# A cotangent that shrinks and has fallen by this factor is dead. Float32 resolves 1e-7 of the sum
# that it adds to; the rest is for the case that earlier steps would have let it grow again.
DEAD = 1e-13


class Fading:
    """Watches the size of a cotangent on its way back."""

    def __init__(self) -> None:
        self.largest = self.last = 0.0

    def dead(self, cotangent: States) -> bool:
        """Has it died? To be asked every few steps."""
        size = max(float(np.abs(part).max()) for part in cotangent)
        shrinks, self.last = size <= self.last, size
        self.largest = max(self.largest, size)
        return shrinks and size <= DEAD * self.largest


class Side(NamedTuple):
    """The columns of da that belong to a weight matrix and its bias, in torch's order of gates."""

    columns: list[slice]

    def weight_gradient(self, delta: Tensor, right: Tensor) -> Tensor:
        """Of the matrix, from da (n, blocks H) and what the matrix multiplied (n, D or H)."""
        return torch.cat([delta[:, s].T @ right for s in self.columns])

    def bias_gradient(self, sums: Tensor) -> Tensor:
        """Of the bias, from da summed over rows (blocks H,)."""
        return torch.cat([sums[s] for s in self.columns])


def sum_of_rows(delta: Tensor) -> Tensor:
    return delta.new_ones(len(delta)) @ delta  # more exact than torch's sum over rows


class RNN:
    """Elman RNN with tanh.

    Args:
        W_hh: as torch has it.
    """

    def __init__(self, W_hh: Array) -> None:
        self.W = np.ascontiguousarray(W_hh)
        self.hidden_side = self.input_side = Side([slice(None)])

    def factors(self, gates: Array, before: States, after: States) -> Factors:
        """Of n rows, from what the step forward had and made."""
        return ((1 - after[0] ** 2)[:, None],)

    def back(self, one: Factors, cotangent: States, delta: Array) -> None:
        """One step of n rows: dh, dc of the states (n, H) move back, and da is written."""
        (mix,) = one
        np.multiply(mix[:, 0], cotangent[0], out=delta)
        multiply_rows(delta, self.W, cotangent[0])


class GRU:
    """Gated recurrent unit as torch has it. Argument and methods as of `RNN`."""

    def __init__(self, W_hh: Array) -> None:
        H = W_hh.shape[1]
        self.W = np.ascontiguousarray(W_hh)
        self.hidden_side = Side([slice(3 * H)])
        self.input_side = Side([slice(2 * H), slice(3 * H, None)])

    def factors(self, gates: Array, before: States, after: States) -> Factors:
        by_block = gates.reshape(len(gates), 4, self.W.shape[1])
        mix = np.empty_like(by_block)
        r, z, q, n = by_block.swapaxes(0, 1)
        reset, update, hidden, new = mix.swapaxes(0, 1)
        np.multiply(1 - z, 1 - n * n, out=new)
        np.multiply(new, r, out=hidden)
        np.multiply(hidden, q * (1 - r), out=reset)
        np.multiply(before[0] - n, z * (1 - z), out=update)
        return mix, z

    def back(self, one: Factors, cotangent: States, delta: Array) -> None:
        mix, keep = one
        (dh,) = cotangent
        np.multiply(mix, dh[:, None], out=delta.reshape(mix.shape))
        dh *= keep
        product = np.empty_like(dh)
        multiply_rows(delta[:, : len(self.W)], self.W, product)
        dh += product


class LSTM:
    """Long short-term memory. Argument and methods as of `RNN`."""

    def __init__(self, W_hh: Array) -> None:
        H = W_hh.shape[1]
        i, f, g, o = W_hh.reshape(4, H, H)
        self.W = np.concatenate((i, f, o, g))
        self.hidden_side = self.input_side = Side(
            [slice(2 * H), slice(3 * H, None), slice(2 * H, 3 * H)]
        )

    def factors(self, gates: Array, before: States, after: States) -> Factors:
        by_block = gates.reshape(len(gates), 4, self.W.shape[1])
        mix = np.empty_like(by_block)
        i, f, o, g = by_block.swapaxes(0, 1)
        tanh_c = np.tanh(after[1])
        np.multiply(g * i, 1 - i, out=mix[:, 0])
        np.multiply(before[1] * f, 1 - f, out=mix[:, 1])
        np.multiply(tanh_c * o, 1 - o, out=mix[:, 2])
        np.multiply(i, 1 - g * g, out=mix[:, 3])
        return mix, f, o * (1 - tanh_c * tanh_c)

    def back(self, one: Factors, cotangent: States, delta: Array) -> None:
        mix, keep, through = one
        dh, dc = cotangent
        da = delta.reshape(mix.shape)
        dc += through * dh
        np.multiply(mix[:, :2], dc[:, None], out=da[:, :2])
        np.multiply(mix[:, 2], dh, out=da[:, 2])
        np.multiply(mix[:, 3], dc, out=da[:, 3])
        dc *= keep
        multiply_rows(delta, self.W, dh)


Backward = RNN | GRU | LSTM
