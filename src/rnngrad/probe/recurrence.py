"""Steps forward of RNN, GRU and LSTM in NumPy, many in a row, on a CPU.

A step of a recurrent network is a small product and some ten element-wise functions, most of whose
time is the call. NumPy's calls take half as long as torch's, its tanh a quarter, and its product of
a few rows a half; the numbers are torch's, up to rounding. Parts of rows are taken for many steps
at once, and results written where they belong: a slice costs as much as a call.

A row of pre-activations or gates consists of blocks of H units, logistic gates first and their
pre-activations with the sign turned, as in s(a) = 1 / (1 + exp(-a)):

    RNN    h
    GRU    -r, -z, q, n    q = W_hn h + b_hn is no gate: n = tanh(W_in x + b_in + r q)
    LSTM   -i, -f, -o, g

All arrays of a layer are of one dtype, float32 or float64. exp(-a) may overflow, and rightly so:
step under `np.errstate(over="ignore")`.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat

import numpy as np

from rnngrad.probe.products import Array, multiply_rows

States = Sequence[Array]  # h, and c of an LSTM


class RNN:
    """Elman RNN.

    Args:
        W_ih, W_hh, b_ih, b_hh: as torch has them.
        rows: the most rows of a step.
        relu: instead of tanh.

    Attributes:
        W_ih, b: (blocks H, D) and (blocks H,), what makes the input part of `a`, x W_ih^T + b.
    """

    def __init__(
        self, W_ih: Array, W_hh: Array, b_ih: Array, b_hh: Array, rows: int, relu: bool = False
    ) -> None:
        self.W_ih, self.b = W_ih, b_ih + b_hh
        self.W_T = np.ascontiguousarray(W_hh.T)
        self.product = np.empty((rows, len(W_hh)), dtype=W_hh.dtype)
        self.relu = relu

    def steps(self, a: Array, gates: Array | None, before: States, after: States) -> None:
        """t steps in a row, of n rows each.

        Args:
            a: (t, n, blocks H), the input part; becomes the pre-activations.
            gates: (t, n, blocks H), to be written but for an RNN's; may be `a`. None where nobody
                wants them.
            before: the states before each step, (t, n, H); all but the first step's are made here.
            after: the states after each step, to be written; those before the next are the same
                memory.
        """
        product = self.product[: a.shape[1]]
        for a_t, h, new in zip(a, before[0], after[0], strict=True):
            multiply_rows(h, self.W_T, product)
            np.add(a_t, product, a_t)
            if self.relu:
                np.maximum(a_t, 0, out=new)
            else:
                np.tanh(a_t, new)


class GRU:
    """Gated recurrent unit as torch has it. Arguments and attributes as of `RNN`."""

    def __init__(self, W_ih: Array, W_hh: Array, b_ih: Array, b_hh: Array, rows: int) -> None:
        H = W_hh.shape[1]
        sign = np.repeat(np.array([-1, -1, 1], dtype=W_hh.dtype), H)
        self.W_T = np.ascontiguousarray((W_hh * sign[:, None]).T)
        self.W_ih = np.insert(W_ih * sign[:, None], [2 * H] * H, 0, axis=0)
        self.b = np.concatenate((-(b_ih + b_hh)[: 2 * H], b_hh[2 * H :], b_ih[2 * H :]))
        self.product = np.empty((rows, 3 * H), dtype=W_hh.dtype)
        self.one = np.ones(1, dtype=W_hh.dtype)

    def steps(self, a: Array, gates: Array | None, before: States, after: States) -> None:
        """t steps in a row of n rows each; arguments as of `RNN.steps`."""
        product, H = self.product[: a.shape[1]], before[0].shape[-1]
        add, multiply, one, W_T = np.add, np.multiply, self.one, self.W_T
        of_a = _parts(a, slice(3 * H), slice(2 * H), slice(2 * H, 3 * H), slice(3 * H, None))
        of_n = slice(2 * H, None) if gates is None else slice(3 * H, None)
        of_gates = _parts(
            product if gates is None else gates, slice(2 * H), slice(H), slice(H, 2 * H), of_n
        )
        states = zip(before[0], after[0], strict=True)
        for (a_h, a_rz, q, a_n), (rz, r, z, n), (h, new) in zip(
            of_a, of_gates, states, strict=False
        ):
            multiply_rows(h, W_T, product)
            add(a_h, product, a_h)
            add(np.exp(a_rz, rz), one, rz)
            np.divide(one, rz, rz)
            add(a_n, multiply(r, q, new), a_n)
            np.tanh(a_n, n)
            multiply(np.subtract(h, n, new), z, new)
            add(new, n, new)


class LSTM:
    """Long short-term memory. Arguments and attributes as of `RNN`."""

    def __init__(self, W_ih: Array, W_hh: Array, b_ih: Array, b_hh: Array, rows: int) -> None:
        H = W_hh.shape[1]
        order = np.r_[: 2 * H, 3 * H : 4 * H, 2 * H : 3 * H]
        sign = np.repeat(np.array([-1, -1, -1, 1], dtype=W_hh.dtype), H)
        self.W_T = np.ascontiguousarray((W_hh[order] * sign[:, None]).T)
        self.W_ih = W_ih[order] * sign[:, None]
        self.b = (b_ih + b_hh)[order] * sign
        self.product = np.empty((rows, 4 * H), dtype=W_hh.dtype)
        self.one = np.ones(1, dtype=W_hh.dtype)

    def steps(self, a: Array, gates: Array | None, before: States, after: States) -> None:
        """t steps in a row of n rows each; arguments as of `RNN.steps`."""
        product, H = self.product[: a.shape[1]], before[0].shape[-1]
        add, multiply, tanh, one, W_T = np.add, np.multiply, np.tanh, self.one, self.W_T
        of_a = _parts(a, slice(None), slice(3 * H), slice(3 * H, None))
        units = (slice(k * H, (k + 1) * H) for k in range(4))
        of_gates = _parts(product if gates is None else gates, slice(3 * H), *units)
        states = zip(*before, *after, strict=True)
        for (a_t, a_ifo, a_g), (ifo, i, f, o, g), (h, c, new_h, new_c) in zip(
            of_a, of_gates, states, strict=False
        ):
            multiply_rows(h, W_T, product)
            add(a_t, product, a_t)
            add(np.exp(a_ifo, ifo), one, ifo)
            np.divide(one, ifo, ifo)
            tanh(a_g, g)
            multiply(f, c, new_c)
            add(new_c, multiply(i, g, new_h), new_c)
            multiply(tanh(new_c, new_h), o, new_h)


Recurrence = RNN | GRU | LSTM


def _parts(rows: Array, *blocks: slice) -> Iterator[tuple[Array, ...]]:
    """Blocks of the rows (t, n, ...) of every step; of rows (n, ...), the same at all of them."""
    parts = [rows[..., block] for block in blocks]
    return zip(*parts, strict=True) if rows.ndim == 3 else repeat(tuple(parts))
