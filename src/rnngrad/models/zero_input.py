"""Recurrent cells on zero input, one example: their steps, and a cotangent back through them.

A step of one example is so small that autograd's bookkeeping costs several times the arithmetic, so
the derivatives are written out. With h_0 = c_0 = 0 and a = b_ih + b_hh + W_hh h_{t-1}:

    RNN    h = tanh(a)
           da = (1 - h^2) dh
    GRU    r = s(a_r),  z = s(a_z),  q = W_hn h_{t-1} + b_hn,  n = tanh(b_in + r q)
           h = n + z (h_{t-1} - n)
           da_n = (1-z) (1-n^2) dh,  dq = r da_n,  da_r = q r (1-r) da_n
           da_z = (h_{t-1} - n) z (1-z) dh,        dh_{t-1} += z dh
    LSTM   i = s(a_i),  f = s(a_f),  g = tanh(a_g),  o = s(a_o)
           c = f c_{t-1} + i g,  h = o tanh(c)
           dc += o (1 - tanh(c)^2) dh,  da_o = tanh(c) o (1-o) dh
           da_i = g i (1-i) dc,  da_f = c_{t-1} f (1-f) dc,  da_g = i (1-g^2) dc,  dc_{t-1} = f dc

and dh_{t-1} += W_hh^T da (GRU: da_r, da_z, dq). All are arrays of one dtype, float32 or float64.
A logistic function is computed as s(a) = (1 + tanh(a / 2)) / 2, so that one call makes all gates.
"""

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


class Factors(NamedTuple):
    """The vectors of every step's derivative: (t, g, H), and (t, H) where the cell has them."""

    mix: Array
    keep: Array | None = None
    through: Array | None = None


class RNN:
    """Elman RNN with tanh."""

    parts: ClassVar[int] = 1  # h
    gates: ClassVar[int] = 1
    hidden_side: ClassVar[list[int]] = [0]  # the gates that W_hh and b_hh make
    input_side: ClassVar[list[int]] = [0]  # the gates that b_ih enters

    def __init__(self, W: Array, b_ih: Array, b_hh: Array) -> None:
        self.W, self.b = W, b_ih + b_hh

    def step(self, before: Array, after: Array, gates: Array) -> None:
        np.dot(self.W, before[0], out=gates[0])
        gates += self.b
        np.tanh(gates, out=after)

    def factors(self, states: Array, gates: Array) -> Factors:
        return Factors(1 - states[1:] ** 2)

    def back(self, one: Factors, k: int, W_T: Array, cotangent: Array, delta: Array) -> None:
        np.multiply(one.mix[k], cotangent, out=delta)
        np.dot(W_T, delta[0], out=cotangent[0])


class GRU:
    """Gated recurrent unit as torch has it; its gates are r, z, q, n."""

    parts: ClassVar[int] = 1
    gates: ClassVar[int] = 4
    hidden_side: ClassVar[list[int]] = [0, 1, 2]
    input_side: ClassVar[list[int]] = [0, 1, 3]

    def __init__(self, W: Array, b_ih: Array, b_hh: Array) -> None:
        H = W.shape[1]
        half = np.repeat(np.array([0.5, 0.5, 1], dtype=W.dtype), H)
        self.W = W * half[:, None]
        self.b = b_hh * half
        self.b[: 2 * H] += b_ih[: 2 * H] / 2
        self.b_in = b_ih[2 * H :]

    def step(self, before: Array, after: Array, gates: Array) -> None:
        products, logistic = gates[:3].reshape(-1), gates[:2]
        np.dot(self.W, before[0], out=products)
        products += self.b
        np.tanh(logistic, out=logistic)
        logistic *= 0.5
        logistic += 0.5
        r, z, q, n = gates
        np.multiply(r, q, out=n)
        n += self.b_in
        np.tanh(n, out=n)
        np.subtract(before[0], n, out=after[0])
        after *= z
        after += n

    def factors(self, states: Array, gates: Array) -> Factors:
        r, z, q, n = gates.swapaxes(0, 1)
        new = (1 - z) * (1 - n**2)
        update = (states[:-1, 0] - n) * z * (1 - z)
        return Factors(np.stack([new * q * r * (1 - r), update, new * r, new], axis=1), keep=z)

    def back(self, one: Factors, k: int, W_T: Array, cotangent: Array, delta: Array) -> None:
        assert one.keep is not None
        np.multiply(one.mix[k], cotangent, out=delta)
        cotangent *= one.keep[k]
        cotangent += np.dot(W_T, delta[:3].reshape(-1))


class LSTM:
    """Long short-term memory; its gates are i, f, g, o, its states h and c."""

    parts: ClassVar[int] = 2
    gates: ClassVar[int] = 4
    hidden_side: ClassVar[list[int]] = [0, 1, 2, 3]
    input_side: ClassVar[list[int]] = [0, 1, 2, 3]

    def __init__(self, W: Array, b_ih: Array, b_hh: Array) -> None:
        half = np.array([[0.5], [0.5], [1], [0.5]], dtype=W.dtype)
        self.half = np.repeat(half, W.shape[1], axis=1)
        self.rest = 1 - self.half
        self.W = W * self.half.reshape(-1, 1)
        self.b = (b_ih + b_hh) * self.half.reshape(-1)

    def step(self, before: Array, after: Array, gates: Array) -> None:
        products = gates.reshape(-1)
        np.dot(self.W, before[0], out=products)
        products += self.b
        np.tanh(gates, out=gates)
        gates *= self.half
        gates += self.rest
        i, f, g, o = gates
        h, c = after
        np.multiply(f, before[1], out=c)
        c += np.multiply(i, g, out=h)
        np.tanh(c, out=h)
        h *= o

    def factors(self, states: Array, gates: Array) -> Factors:
        i, f, g, o = gates.swapaxes(0, 1)
        tanh_c = np.tanh(states[1:, 1])
        forget = states[:-1, 1] * f * (1 - f)
        mix = np.stack([g * i * (1 - i), forget, i * (1 - g**2), tanh_c * o * (1 - o)], axis=1)
        return Factors(mix, keep=f, through=o * (1 - tanh_c**2))

    def back(self, one: Factors, k: int, W_T: Array, cotangent: Array, delta: Array) -> None:
        assert one.keep is not None
        assert one.through is not None
        h, c = cotangent
        c += h * one.through[k]
        np.multiply(one.mix[k, :3], c, out=delta[:3])
        np.multiply(one.mix[k, 3], h, out=delta[3])
        c *= one.keep[k]
        np.dot(W_T, delta.reshape(-1), out=h)


Cell = RNN | GRU | LSTM
