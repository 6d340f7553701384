"""The one-step maps of RNN, LSTM and GRU in closed form.

Index convention, the same letters as in the einsum strings:

    t  step                         b  example
    i  unit of the new state        j  unit of the state before
    k  tangent direction            g  gate (torch's order: LSTM i, f, g, o; GRU r, z, n)
    d  input feature

With pre-activations a = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh, one step is

    RNN    h = phi(a),  phi = tanh or relu
    GRU    r = s(a_r),  z = s(a_z),  q = W_hn h_{t-1} + b_hn,  n = tanh(W_in x + b_in + r q)
           h = (1 - z) n + z h_{t-1}
    LSTM   i = s(a_i),  f = s(a_f),  g = tanh(a_g),  o = s(a_o)
           c = f c_{t-1} + i g,      h = o tanh(c)

and its derivative needs, per example and step, only a few vectors over the units (`OneStep`):

    RNN    dh = mix W dh                   mix  = phi'(a)
    GRU    dh = keep dh + sum_g mix_g W_g dh
                                           keep = z
                                           mix  = ((1-z) n' q r',  (h_{t-1} - n) z',  (1-z) n' r)
    LSTM   dc = keep dc + sum_{g in i,f,g} mix_g W_g dh
           dh = through dc(new) + mix_o W_o dh
                                           keep = f,  through = o tanh'(c)
                                           mix  = (g i',  c_{t-1} f',  i g',  tanh(c) o')

The sum over gates is taken in the matrix, V = sum_g diag(mix_g) W_g, before it meets the tangents:
one (H, H) product per example instead of one per gate. Transposed, the same vectors push cotangents
back; the cotangent of the gates, delta = mix * lambda, is what enters the weight gradients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnngrad.probe import recurrence
from rnngrad.probe.forward_pass import (
    Trajectory,
    arrays_of,
    fits_numpy,
    run_gru,
    run_in_numpy,
    run_lstm,
    run_rnn,
    steps_in_numpy,
)
from rnngrad.probe.products import (
    multiply_rows,
    numpy_is_quicker,
    rows_suit_numpy,
    takes_one_thread,
)
from rnngrad.probe.scaled import ScaledRows


class Sigmoid(NamedTuple):
    """A logistic gate: s(a), 1 - s(a) and s'(a)."""

    value: Tensor
    complement: Tensor
    derivative: Tensor


class Tanh(NamedTuple):
    """tanh(a) and its derivative."""

    value: Tensor
    derivative: Tensor


class DerivativeForms(NamedTuple):
    """How gates and their derivatives are written; each takes the pre-activation."""

    sigmoid: Callable[[Tensor], Sigmoid]
    tanh: Callable[[Tensor], Tanh]


def _stable_sigmoid(a: Tensor) -> Sigmoid:
    value, complement = torch.sigmoid(a), torch.sigmoid(-a)
    return Sigmoid(value, complement, value * complement)


def _stable_tanh(a: Tensor) -> Tanh:
    """1 / cosh(a)^2; written with cosh it would be 0 from 355, where the square overflows."""
    small = torch.exp(-2 * a.abs())
    return Tanh(torch.tanh(a), 4 * small / (1 + small).square())


def _autograd_sigmoid(a: Tensor) -> Sigmoid:
    value = torch.sigmoid(a)
    complement = 1 - value
    return Sigmoid(value, complement, value * complement)


def _autograd_tanh(a: Tensor) -> Tanh:
    value = torch.tanh(a)
    return Tanh(value, 1 - value.square())


# 1 - tanh(x)^2 is exactly 0 in float32 from |x| ~ 10, and s(1 - s) from x ~ 17; these are not.
STABLE = DerivativeForms(_stable_sigmoid, _stable_tanh)
# What reverse-mode autograd multiplies with, from the outputs of the forward pass.
AUTOGRAD = DerivativeForms(_autograd_sigmoid, _autograd_tanh)


FEWEST_PRODUCTS = 4  # examples or steps that a product per unit is worth its call for
# Entries of V up to which one thread makes it where there are several. More are quicker made by
# those that multiply with them: each has its part in its own cache.
ONE_CACHE = 2**16


Settle = Callable[[Tensor], Tensor]  # what an arithmetic does to a product


def unsettled(x: Tensor) -> Tensor:
    return x


class OneStep(NamedTuple):
    """The vectors of one step's derivative; (..., b, H) and (..., b, g, H)."""

    mix: Tensor
    mix_input: Tensor  # as `mix`, for the gates' input side; differs from it in the GRU only
    keep: Tensor | None = None
    through: Tensor | None = None

    def at(self, t: int) -> "OneStep":
        """Step t of a block of steps."""
        return self.each(lambda v: v[t])

    def first(self, n: int) -> "OneStep":
        """The first n examples of one step."""
        return self.each(lambda v: v[:n])

    def each(self, f: Callable[[Tensor], Tensor]) -> "OneStep":
        """Every vector through f."""
        keep = None if self.keep is None else f(self.keep)
        through = None if self.through is None else f(self.through)
        mix = f(self.mix)
        mix_input = mix if self.mix_input is self.mix else f(self.mix_input)
        return OneStep(mix, mix_input, keep, through)


class StepMap(NamedTuple):
    """One step of tangents as V dh + kept ds, where s is the last of the cell's states.

    The derivative of all states (rows) by all of them is [0 .. diag(kept)] with V added to its
    first H columns.
    """

    V: Tensor  # (n, rows, H)
    kept: Tensor | None  # (n, states, H)


class Cotangent(NamedTuple):
    """dL/dh_t and dL/dc_t, each (b, loss, H)."""

    h: Tensor
    c: Tensor | None = None


class ScaledCotangent(NamedTuple):
    """The same for one loss, with a scale per unit."""

    h: ScaledRows
    c: ScaledRows | None = None


@np.errstate(all="ignore")
def mixed(mix: Tensor, w: Tensor, out: Tensor | None = None) -> Tensor:
    """V[b,i,j] = sum_g mix[b,g,i] w[g,i,j], in `out` if given.

    Of more than a few examples or steps as a product per unit i, which writes V once.
    """
    small = takes_one_thread(len(mix), len(w), w.shape[-1])
    if (
        len(mix) >= FEWEST_PRODUCTS
        and len(w) > 1
        and fits_numpy(mix)
        and (torch.get_num_threads() == 1 or (small and len(mix) * w[0].numel() <= ONE_CACHE))
    ):
        out = w.new_empty(len(mix), *w.shape[1:]) if out is None else out
        by_unit = np.ascontiguousarray(mix[:, : len(w)].permute(2, 0, 1).numpy())
        np.matmul(by_unit, w.transpose(0, 1).numpy(), out.transpose(0, 1).numpy())
        return out
    out = torch.mul(mix[:, 0, :, None], w[0], out=out)
    for g in range(1, len(w)):
        torch.addcmul(out, mix[:, g, :, None], w[g], out=out)
    return out


@np.errstate(all="ignore")
def by_gate(W_T: Tensor, dh: Tensor, out: Tensor) -> Sequence[Tensor]:
    """W_g dh, (b, k, H) each, of all examples in one product, from W_T (H, g * H) and dh (b, k, H).

    In out (b, k, g * H). With a few directions that is quicker than the sum over gates, which makes
    a matrix per example.
    """
    rows, products = dh.flatten(0, 1), out.flatten(0, 1)
    if fits_numpy(rows) and rows_suit_numpy(len(rows), *W_T.shape):
        multiply_rows(rows.numpy(), W_T.numpy(), products.numpy())
    else:
        torch.matmul(rows, W_T, out=products)
    return out.split(dh.shape[-1], dim=-1)


@np.errstate(all="ignore")
def multiply(V: Tensor, J: Tensor, out: Tensor) -> None:
    """out = V J, of every example; by NumPy's product, where that is quicker."""
    if fits_numpy(V) and numpy_is_quicker(*V.shape[-2:], J.shape[-1]):
        np.matmul(V.numpy(), J.numpy(), out.numpy())
    else:
        torch.matmul(V, J, out=out)


@dataclass(frozen=True)
class RNN:
    """Elman RNN: h = phi(W_ih x + b_ih + W_hh h + b_hh)."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor
    nonlinearity: str = "tanh"

    gates: ClassVar[int] = 1
    states: ClassVar[tuple[str, ...]] = ("h",)

    @cached_property
    def recurrence(self) -> recurrence.RNN:
        """The same for `rnngrad.probe.forward_pass`."""
        return recurrence.RNN(*arrays_of(self), rows=0, relu=self.nonlinearity == "relu")

    def run(self, x: Tensor, h: Tensor, c: Tensor | None) -> Trajectory:
        return (
            run_in_numpy(self, x, h) if steps_in_numpy(x, self.weight_hh) else run_rnn(self, x, h)
        )

    def one_step(self, path: Trajectory, steps: slice, forms: DerivativeForms) -> OneStep:
        a = path.a[steps]
        relu = self.nonlinearity == "relu"
        slope = (~(a <= 0)).to(a.dtype) if relu else forms.tanh(a).derivative
        mix = slope.unsqueeze(2)
        return OneStep(mix, mix)

    def tangents(self, one: OneStep, w: Tensor, J: Tensor, work: Tensor, out: Tensor) -> None:
        multiply(mixed(one.mix, w, work), J, out)

    def step_map(self, one: OneStep, w: Tensor, V: Tensor) -> StepMap:
        """Of n steps or examples, from weights (g, H, H); V is written."""
        return StepMap(mixed(one.mix, w, V), None)

    def few_tangents(self, one: OneStep, W_T: Tensor, J: Tensor, work: Tensor, out: Tensor) -> None:
        torch.mul(one.mix[:, :1], by_gate(W_T, J.mT, work)[0], out=out.mT)

    def scaled_tangents(self, one: OneStep, J: ScaledRows) -> ScaledRows:
        return J.mixed_by(one.mix, self.weight_hh.unflatten(0, (1, -1)))

    def total(self, one: OneStep, at: Cotangent) -> Cotangent:
        return at

    def cotangents(
        self, one: OneStep, at: Cotangent, settle: Settle = unsettled
    ) -> tuple[Tensor, Tensor, Cotangent]:
        delta = settle(at.h * one.mix)
        return delta, delta, Cotangent(delta @ self.weight_hh)

    def scaled_cotangents(
        self, one: OneStep, at: ScaledCotangent
    ) -> tuple[ScaledCotangent, ScaledRows, ScaledCotangent]:
        delta = at.h.times(one.mix[:, 0])
        return at, delta, ScaledCotangent(delta.multiplied_by(self.weight_hh.T.unsqueeze(0)))


@dataclass(frozen=True)
class GRU:
    """Gated recurrent unit as torch has it: the reset gate acts after the recurrent product."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    gates: ClassVar[int] = 3
    states: ClassVar[tuple[str, ...]] = ("h",)

    @cached_property
    def recurrence(self) -> recurrence.GRU:
        """The same for `rnngrad.probe.forward_pass`."""
        return recurrence.GRU(*arrays_of(self), rows=0)

    def run(self, x: Tensor, h: Tensor, c: Tensor | None) -> Trajectory:
        return (
            run_in_numpy(self, x, h) if steps_in_numpy(x, self.weight_hh) else run_gru(self, x, h)
        )

    def one_step(self, path: Trajectory, steps: slice, forms: DerivativeForms) -> OneStep:
        assert path.q is not None
        a_r, a_z, a_n = path.a[steps].chunk(3, dim=-1)
        r, z, n = forms.sigmoid(a_r), forms.sigmoid(a_z), forms.tanh(a_n)
        new = z.complement * n.derivative
        reset = new * path.q[steps] * r.derivative
        update = (path.h[:-1][steps] - n.value) * z.derivative
        mix = torch.stack((reset, update, new * r.value), dim=2)
        return OneStep(mix, torch.stack((reset, update, new), dim=2), keep=z.value)

    def tangents(self, one: OneStep, w: Tensor, J: Tensor, work: Tensor, out: Tensor) -> None:
        assert one.keep is not None
        multiply(mixed(one.mix, w, work), J, out)
        out.addcmul_(one.keep.unsqueeze(2), J)

    def step_map(self, one: OneStep, w: Tensor, V: Tensor) -> StepMap:
        """Of n steps or examples, from weights (g, H, H); V is written."""
        assert one.keep is not None
        return StepMap(mixed(one.mix, w, V), one.keep.unsqueeze(1))

    def few_tangents(self, one: OneStep, W_T: Tensor, J: Tensor, work: Tensor, out: Tensor) -> None:
        assert one.keep is not None
        dh = torch.mul(one.keep.unsqueeze(1), J.mT, out=out.mT)
        for mix, product in zip(
            one.mix.unsqueeze(2).unbind(1), by_gate(W_T, J.mT, work), strict=True
        ):
            dh.addcmul_(mix, product)

    def scaled_tangents(self, one: OneStep, J: ScaledRows) -> ScaledRows:
        assert one.keep is not None
        return J.times(one.keep) + J.mixed_by(one.mix, self.weight_hh.unflatten(0, (3, -1)))

    def total(self, one: OneStep, at: Cotangent) -> Cotangent:
        return at

    def cotangents(
        self, one: OneStep, at: Cotangent, settle: Settle = unsettled
    ) -> tuple[Tensor, Tensor, Cotangent]:
        assert one.keep is not None
        h = at.h
        hidden = settle((h.unsqueeze(2) * one.mix.unsqueeze(1)).flatten(2))
        inputs = (h.unsqueeze(2) * one.mix_input.unsqueeze(1)).flatten(2)
        return inputs, hidden, Cotangent(h * one.keep.unsqueeze(1) + hidden @ self.weight_hh)

    def scaled_cotangents(
        self, one: OneStep, at: ScaledCotangent
    ) -> tuple[ScaledCotangent, ScaledRows, ScaledCotangent]:
        assert one.keep is not None
        hidden = ScaledRows.join(*(at.h.times(mix) for mix in one.mix.unbind(1)))
        inputs = ScaledRows.join(*(at.h.times(mix) for mix in one.mix_input.unbind(1)))
        h = at.h.times(one.keep) + hidden.multiplied_by(self.weight_hh.T.unsqueeze(0))
        return at, inputs, ScaledCotangent(h)


@dataclass(frozen=True)
class LSTM:
    """Long short-term memory without peepholes or projection."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    gates: ClassVar[int] = 4
    states: ClassVar[tuple[str, ...]] = ("h", "c")

    @cached_property
    def recurrence(self) -> recurrence.LSTM:
        """The same for `rnngrad.probe.forward_pass`."""
        return recurrence.LSTM(*arrays_of(self), rows=0)

    def run(self, x: Tensor, h: Tensor, c: Tensor | None) -> Trajectory:
        assert c is not None
        return (
            run_in_numpy(self, x, h, c)
            if steps_in_numpy(x, self.weight_hh)
            else run_lstm(self, x, h, c)
        )

    def one_step(self, path: Trajectory, steps: slice, forms: DerivativeForms) -> OneStep:
        assert path.c is not None
        a_i, a_f, a_g, a_o = path.a[steps].chunk(4, dim=-1)
        i, f, o = (forms.sigmoid(a) for a in (a_i, a_f, a_o))
        g, c = (forms.tanh(a) for a in (a_g, path.c[1:][steps]))
        mix = i.value.new_empty(*i.value.shape[:2], 4, i.value.shape[2])
        torch.mul(g.value, i.derivative, out=mix[:, :, 0])
        torch.mul(path.c[:-1][steps], f.derivative, out=mix[:, :, 1])
        torch.mul(i.value, g.derivative, out=mix[:, :, 2])
        torch.mul(c.value, o.derivative, out=mix[:, :, 3])
        return OneStep(mix, mix, f.value, o.value * c.derivative)

    def tangents(self, one: OneStep, w: Tensor, J: Tensor, work: Tensor, out: Tensor) -> None:
        assert one.keep is not None
        assert one.through is not None
        H = w.shape[-1]
        torch.mul(one.mix[:, 3, :, None], w[3], out=work[:, :H])
        mixed(one.mix, w[:3], work[:, H:])
        multiply(work, J[:, :H], out)
        out[:, H:].addcmul_(one.keep.unsqueeze(2), J[:, H:])
        out[:, :H].addcmul_(one.through.unsqueeze(2), out[:, H:])

    def step_map(self, one: OneStep, w: Tensor, V: Tensor) -> StepMap:
        """Of n steps or examples, from weights (g, H, H); V is written."""
        assert one.keep is not None
        assert one.through is not None
        H = w.shape[-1]
        mixed(one.mix[:, :3], w[:3], V[:, H:])
        through_c = one.mix[:, :3] * one.through.unsqueeze(1)
        mixed(torch.cat((through_c, one.mix[:, 3:]), dim=1), w, V[:, :H])
        return StepMap(V, torch.stack((one.through * one.keep, one.keep), dim=1))

    def few_tangents(self, one: OneStep, W_T: Tensor, J: Tensor, work: Tensor, out: Tensor) -> None:
        assert one.keep is not None
        assert one.through is not None
        (ds, new_ds), H = (v.mT for v in (J, out)), len(W_T)
        dh, dc = new_ds[..., :H], new_ds[..., H:]
        *inner, outer = zip(
            one.mix.unsqueeze(2).unbind(1), by_gate(W_T, ds[..., :H], work), strict=True
        )
        torch.mul(one.keep.unsqueeze(1), ds[..., H:], out=dc)
        for mix, product in inner:
            dc.addcmul_(mix, product)
        torch.mul(*outer, out=dh).addcmul_(one.through.unsqueeze(1), dc)

    def scaled_tangents(self, one: OneStep, J: ScaledRows) -> ScaledRows:
        assert one.keep is not None
        assert one.through is not None
        w = self.weight_hh.unflatten(0, (4, -1))
        dh, dc = J.split()
        dc = dc.times(one.keep) + dh.mixed_by(one.mix[:, :3], w[:3])
        dh = dc.times(one.through) + dh.mixed_by(one.mix[:, 3:], w[3:])
        return ScaledRows.join(dh, dc)

    def total(self, one: OneStep, at: Cotangent) -> Cotangent:
        """dL/dc_t with what comes through h_t."""
        assert at.c is not None
        assert one.through is not None
        return Cotangent(at.h, at.c + at.h * one.through.unsqueeze(1))

    def cotangents(
        self, one: OneStep, at: Cotangent, settle: Settle = unsettled
    ) -> tuple[Tensor, Tensor, Cotangent]:
        assert one.keep is not None
        h, c = self.total(one, at)
        assert c is not None
        inner = c.unsqueeze(2) * one.mix[:, None, :3]
        outer = (h * one.mix[:, None, 3]).unsqueeze(2)
        delta = settle(torch.cat((inner, outer), dim=2).flatten(2))
        return delta, delta, Cotangent(delta @ self.weight_hh, c * one.keep.unsqueeze(1))

    def scaled_cotangents(
        self, one: OneStep, at: ScaledCotangent
    ) -> tuple[ScaledCotangent, ScaledRows, ScaledCotangent]:
        assert at.c is not None
        assert one.keep is not None
        assert one.through is not None
        c = at.c + at.h.times(one.through)
        inner = [c.times(mix) for mix in one.mix[:, :3].unbind(1)]
        delta = ScaledRows.join(*inner, at.h.times(one.mix[:, 3]))
        h = delta.multiplied_by(self.weight_hh.T.unsqueeze(0))
        return ScaledCotangent(at.h, c), delta, ScaledCotangent(h, c.times(one.keep))


Cell = RNN | GRU | LSTM
