"""Run a cell over its inputs: in NumPy on a CPU (`rnngrad.probe.recurrence`), in torch elsewhere.

Both give the same numbers, up to rounding. The cells, their letters and the order of their gates
are those of `rnngrad.probe.cells`.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnngrad.probe.products import Array, rows_suit_numpy
from rnngrad.probe.recurrence import Recurrence

if TYPE_CHECKING:
    from rnngrad.probe.cells import GRU, LSTM, RNN, Cell

BYTES = 2**19  # of the pre-activations that are made at once, and are stepped while in cache


class Trajectory(NamedTuple):
    """What one layer went through: h and c with the initial state first, (t + 1, b, H)."""

    h: Tensor
    c: Tensor | None
    a: Tensor  # pre-activations (t, b, g * H)
    q: Tensor | None  # GRU: W_hn h + b_hn


def fits_numpy(x: Tensor) -> bool:
    """Can NumPy compute with it?"""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def steps_in_numpy(x: Tensor, W_hh: Tensor) -> bool:
    """Is a cell with these weights to run over x (t, b, d) in NumPy?"""
    return fits_numpy(x) and rows_suit_numpy(x.shape[1], *W_hh.shape)


def run_in_numpy(cell: "Cell", x: Tensor, *states: Tensor) -> Trajectory:
    """The trajectory over x (t, b, d) from h, and c of an LSTM, (b, H) each.

    x, states and weights are of one dtype, float32 or float64.
    """
    t, (b, H) = len(x), states[0].shape
    paths = [_started(state, t) for state in states]
    a = x.new_empty(t, b, cell.gates * H)
    q = x.new_empty(t, b, H) if cell.gates == 3 else None
    layer = cell.recurrence
    if len(layer.product) < b:
        layer.product = np.empty((b, layer.product.shape[1]), dtype=layer.b.dtype)
    most = max(1, BYTES // max(1, b * layer.b.nbytes))
    with np.errstate(all="ignore"):  # what overflows is for the caller to judge
        for start in range(0, t, most):
            now = slice(start, min(start + most, t))
            after = slice(now.start + 1, now.stop + 1)
            blocks = _input_part(layer, x[now])
            layer.steps(blocks, None, *([p[at].numpy() for p in paths] for at in (now, after)))
            of_q = None if q is None else q[now].numpy()
            _into_torchs_order(H, blocks, a[now].numpy(), of_q)
    return Trajectory(paths[0], paths[1] if len(paths) > 1 else None, a, q)


def arrays_of(cell: "Cell") -> list[Array]:
    """W_ih, W_hh, b_ih and b_hh."""
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    return [weight.numpy() for weight in weights]


def _input_part(layer: Recurrence, x: Tensor) -> Array:
    """x W_ih^T + b of every step, (t, b, blocks H)."""
    a = x.flatten(0, 1) @ torch.from_numpy(layer.W_ih).T
    a += torch.from_numpy(layer.b)
    return a.view(*x.shape[:2], len(layer.b)).numpy()


def _into_torchs_order(H: int, blocks: Array, a: Array, q: Array | None) -> None:
    """From the order and signs of `rnngrad.probe.recurrence`."""
    if blocks.shape[-1] == H:
        a[:] = blocks
        return
    minus = blocks.dtype.type(-1)  # np.negative misreads some strides (NumPy 2.4, one unit)
    np.multiply(blocks[..., : 2 * H], minus, a[..., : 2 * H])
    a[..., 2 * H : 3 * H] = blocks[..., 3 * H :]
    if q is None:
        np.multiply(blocks[..., 2 * H : 3 * H], minus, a[..., 3 * H :])
    else:
        q[:] = blocks[..., 2 * H : 3 * H]


def run_rnn(cell: "RNN", x: Tensor, h: Tensor) -> Trajectory:
    """In torch, on any device and in any floating dtype."""
    phi = torch.tanh if cell.nonlinearity == "tanh" else _relu
    a = x @ cell.weight_ih.T + (cell.bias_ih + cell.bias_hh)
    path = _started(h, len(x))
    now, *later = path.unbind()
    for a_t, new in zip(a.unbind(), later, strict=True):
        torch.addmm(a_t, now, cell.weight_hh.T, out=a_t)
        now = phi(a_t, out=new)
    return Trajectory(path, None, a, None)


def run_gru(cell: "GRU", x: Tensor, h: Tensor) -> Trajectory:
    """In torch, on any device and in any floating dtype."""
    H = h.shape[-1]
    a = x @ cell.weight_ih.T + cell.bias_ih
    a_rz, a_n = a.split((2 * H, H), dim=-1)
    w_rz, w_n = cell.weight_hh.split((2 * H, H))
    a_rz += cell.bias_hh[: 2 * H]
    q = cell.bias_hh[2 * H :].expand(len(x), *h.shape).clone()
    path = _started(h, len(x))
    rz, n = torch.empty_like(a_rz[0]), torch.empty_like(h)
    r, z = rz.chunk(2, dim=-1)
    now, *later = path.unbind()
    for a_rz_t, a_n_t, q_t, new in zip(*(v.unbind() for v in (a_rz, a_n, q)), later, strict=True):
        torch.addmm(a_rz_t, now, w_rz.T, out=a_rz_t)
        torch.sigmoid(a_rz_t, out=rz)
        torch.addmm(q_t, now, w_n.T, out=q_t)
        torch.addcmul(a_n_t, r, q_t, out=a_n_t)
        torch.tanh(a_n_t, out=n)
        now = torch.lerp(n, now, z, out=new)
    return Trajectory(path, None, a, q)


def run_lstm(cell: "LSTM", x: Tensor, h: Tensor, c: Tensor) -> Trajectory:
    """In torch, on any device and in any floating dtype."""
    H = h.shape[-1]
    a = x @ cell.weight_ih.T + (cell.bias_ih + cell.bias_hh)
    path_h, path_c = _started(h, len(x)), _started(c, len(x))
    gates, tanh_c = a.new_empty(a.shape[1:]), torch.empty_like(c)
    i, f, g, o = gates.chunk(4, dim=-1)
    (h, *later_h), (c, *later_c) = path_h.unbind(), path_c.unbind()
    a_g = a[..., 2 * H : 3 * H]
    for a_t, a_g_t, new_h, new_c in zip(a.unbind(), a_g.unbind(), later_h, later_c, strict=True):
        torch.addmm(a_t, h, cell.weight_hh.T, out=a_t)
        torch.sigmoid(a_t, out=gates)
        torch.tanh(a_g_t, out=g)
        c = torch.mul(f, c, out=new_c)
        torch.addcmul(c, i, g, out=c)
        torch.tanh(c, out=tanh_c)
        h = torch.mul(o, tanh_c, out=new_h)
    return Trajectory(path_h, path_c, a, None)


def _started(state: Tensor, steps: int) -> Tensor:
    """(steps + 1, b, H), the first of which is `state`."""
    path = state.new_empty(steps + 1, *state.shape)
    path[0] = state
    return path


def _relu(a: Tensor, out: Tensor) -> Tensor:
    return torch.clamp(a, min=0, out=out)
