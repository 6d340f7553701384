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

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rnngrad.probe.scaled import ScaledRows


class DerivativeForms(NamedTuple):
    """How the derivative of a gate is written; each takes the pre-activation."""

    sigmoid: Callable[[Tensor], Tensor]
    complement: Callable[[Tensor], Tensor]
    tanh: Callable[[Tensor], Tensor]


def _tanh_derivative(a: Tensor) -> Tensor:
    """1 / cosh(a)^2; written with cosh it would be 0 from 355, where the square overflows."""
    small = torch.exp(-2 * a.abs())
    return 4 * small / (1 + small).square()


# 1 - tanh(x)^2 is exactly 0 in float32 from |x| ~ 10, and s(1 - s) from x ~ 17; these are not.
STABLE = DerivativeForms(
    sigmoid=lambda a: torch.sigmoid(a) * torch.sigmoid(-a),
    complement=lambda a: torch.sigmoid(-a),
    tanh=_tanh_derivative,
)
# What reverse-mode autograd multiplies with, from the outputs of the forward pass.
AUTOGRAD = DerivativeForms(
    sigmoid=lambda a: torch.sigmoid(a) * (1 - torch.sigmoid(a)),
    complement=lambda a: 1 - torch.sigmoid(a),
    tanh=lambda a: 1 - torch.tanh(a).square(),
)


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


class Trajectory(NamedTuple):
    """What one layer went through: h and c with the initial state first, (t + 1, b, H)."""

    h: Tensor
    c: Tensor | None
    a: Tensor  # pre-activations (t, b, g * H)
    q: Tensor | None  # GRU: W_hn h + b_hn


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


def mixed(mix: Tensor, w: Tensor, out: Tensor | None = None) -> Tensor:
    """V[b,i,j] = sum_g mix[b,g,i] w[g,i,j], in `out` if given."""
    out = torch.mul(mix[:, 0, :, None], w[0], out=out)
    for g in range(1, len(w)):
        torch.addcmul(out, mix[:, g, :, None], w[g], out=out)
    return out


def _started(state: Tensor, steps: int) -> Tensor:
    """(steps + 1, b, H), the first of which is `state`."""
    path = state.new_empty(steps + 1, *state.shape)
    path[0] = state
    return path


def _relu(a: Tensor, out: Tensor) -> Tensor:
    return torch.clamp(a, min=0, out=out)


def by_gate(w: Tensor, dh: Tensor) -> Tensor:
    """W_g dh, (g, b, H, k), of all examples in one product, from w (g, H, H) and dh (b, H, k).

    With a few directions that is quicker than the sum over gates, which makes a matrix per example.
    """
    b, H, k = dh.shape
    products = w.flatten(0, 1) @ dh.transpose(0, 1).reshape(H, b * k)
    return products.view(-1, H, b, k).transpose(1, 2)


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

    def run(self, x: Tensor, h: Tensor, c: Tensor | None) -> Trajectory:
        phi = torch.tanh if self.nonlinearity == "tanh" else _relu
        a = x @ self.weight_ih.T + (self.bias_ih + self.bias_hh)
        path = _started(h, len(x))
        now, *later = path.unbind()
        for a_t, new in zip(a.unbind(), later, strict=True):
            torch.addmm(a_t, now, self.weight_hh.T, out=a_t)
            now = phi(a_t, out=new)
        return Trajectory(path, None, a, None)

    def one_step(self, path: Trajectory, steps: slice, forms: DerivativeForms) -> OneStep:
        a = path.a[steps]
        slope = forms.tanh(a) if self.nonlinearity == "tanh" else (~(a <= 0)).to(a.dtype)
        mix = slope.unsqueeze(2)
        return OneStep(mix, mix)

    def tangents(self, one: OneStep, w: Tensor, J: Tensor, work: Tensor, out: Tensor) -> None:
        torch.bmm(mixed(one.mix, w, work), J, out=out)

    def step_map(self, one: OneStep, w: Tensor) -> StepMap:
        """Of n steps or examples, from weights (g, H, H)."""
        return StepMap(mixed(one.mix, w), None)

    def few_tangents(self, one: OneStep, w: Tensor, J: Tensor, out: Tensor) -> None:
        torch.mul(one.mix[:, 0, :, None], by_gate(w, J)[0], out=out)

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

    def run(self, x: Tensor, h: Tensor, c: Tensor | None) -> Trajectory:
        H = h.shape[-1]
        a = x @ self.weight_ih.T + self.bias_ih
        a_rz, a_n = a.split((2 * H, H), dim=-1)
        w_rz, w_n = self.weight_hh.split((2 * H, H))
        a_rz += self.bias_hh[: 2 * H]
        q = self.bias_hh[2 * H :].expand(len(x), *h.shape).clone()
        path = _started(h, len(x))
        rz, n = torch.empty_like(a_rz[0]), torch.empty_like(h)
        r, z = rz.chunk(2, dim=-1)
        now, *later = path.unbind()
        for a_rz_t, a_n_t, q_t, new in zip(
            *(v.unbind() for v in (a_rz, a_n, q)), later, strict=True
        ):
            torch.addmm(a_rz_t, now, w_rz.T, out=a_rz_t)
            torch.sigmoid(a_rz_t, out=rz)
            torch.addmm(q_t, now, w_n.T, out=q_t)
            torch.addcmul(a_n_t, r, q_t, out=a_n_t)
            torch.tanh(a_n_t, out=n)
            now = torch.lerp(n, now, z, out=new)
        return Trajectory(path, None, a, q)

    def one_step(self, path: Trajectory, steps: slice, forms: DerivativeForms) -> OneStep:
        assert path.q is not None
        a_r, a_z, a_n = path.a[steps].chunk(3, dim=-1)
        r, z, n = torch.sigmoid(a_r), torch.sigmoid(a_z), torch.tanh(a_n)
        new = forms.complement(a_z) * forms.tanh(a_n)
        reset = new * path.q[steps] * forms.sigmoid(a_r)
        update = (path.h[:-1][steps] - n) * forms.sigmoid(a_z)
        mix = torch.stack((reset, update, new * r), dim=2)
        return OneStep(mix, torch.stack((reset, update, new), dim=2), keep=z)

    def tangents(self, one: OneStep, w: Tensor, J: Tensor, work: Tensor, out: Tensor) -> None:
        assert one.keep is not None
        torch.bmm(mixed(one.mix, w, work), J, out=out)
        out.addcmul_(one.keep.unsqueeze(2), J)

    def step_map(self, one: OneStep, w: Tensor) -> StepMap:
        """Of n steps or examples, from weights (g, H, H)."""
        assert one.keep is not None
        return StepMap(mixed(one.mix, w), one.keep.unsqueeze(1))

    def few_tangents(self, one: OneStep, w: Tensor, J: Tensor, out: Tensor) -> None:
        assert one.keep is not None
        torch.mul(one.keep.unsqueeze(2), J, out=out)
        for mix, product in zip(one.mix.unbind(1), by_gate(w, J), strict=True):
            out.addcmul_(mix.unsqueeze(2), product)

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

    def run(self, x: Tensor, h: Tensor, c: Tensor | None) -> Trajectory:
        assert c is not None
        H = h.shape[-1]
        a = x @ self.weight_ih.T + (self.bias_ih + self.bias_hh)
        path_h, path_c = _started(h, len(x)), _started(c, len(x))
        gates, tanh_c = torch.empty_like(a[0]), torch.empty_like(c)
        i, f, g, o = gates.chunk(4, dim=-1)
        (h, *later_h), (c, *later_c) = path_h.unbind(), path_c.unbind()
        a_g = a[..., 2 * H : 3 * H]
        for a_t, a_g_t, new_h, new_c in zip(
            a.unbind(), a_g.unbind(), later_h, later_c, strict=True
        ):
            torch.addmm(a_t, h, self.weight_hh.T, out=a_t)
            torch.sigmoid(a_t, out=gates)
            torch.tanh(a_g_t, out=g)
            c = torch.mul(f, c, out=new_c)
            torch.addcmul(c, i, g, out=c)
            torch.tanh(c, out=tanh_c)
            h = torch.mul(o, tanh_c, out=new_h)
        return Trajectory(path_h, path_c, a, None)

    def one_step(self, path: Trajectory, steps: slice, forms: DerivativeForms) -> OneStep:
        assert path.c is not None
        a_i, a_f, a_g, a_o = path.a[steps].chunk(4, dim=-1)
        c = path.c[1:][steps]
        mix = torch.stack(
            (
                torch.tanh(a_g) * forms.sigmoid(a_i),
                path.c[:-1][steps] * forms.sigmoid(a_f),
                torch.sigmoid(a_i) * forms.tanh(a_g),
                torch.tanh(c) * forms.sigmoid(a_o),
            ),
            dim=2,
        )
        return OneStep(mix, mix, torch.sigmoid(a_f), torch.sigmoid(a_o) * forms.tanh(c))

    def tangents(self, one: OneStep, w: Tensor, J: Tensor, work: Tensor, out: Tensor) -> None:
        assert one.keep is not None
        assert one.through is not None
        H = w.shape[-1]
        torch.mul(one.mix[:, 3, :, None], w[3], out=work[:, :H])
        mixed(one.mix, w[:3], work[:, H:])
        torch.bmm(work, J[:, :H], out=out)
        out[:, H:].addcmul_(one.keep.unsqueeze(2), J[:, H:])
        out[:, :H].addcmul_(one.through.unsqueeze(2), out[:, H:])

    def step_map(self, one: OneStep, w: Tensor) -> StepMap:
        """Of n steps or examples, from weights (g, H, H)."""
        assert one.keep is not None
        assert one.through is not None
        H = w.shape[-1]
        V = w.new_empty(len(one.mix), 2 * H, H)
        dc = mixed(one.mix[:, :3], w[:3], V[:, H:])
        torch.mul(one.mix[:, 3, :, None], w[3], out=V[:, :H])
        V[:, :H].addcmul_(one.through.unsqueeze(2), dc)
        return StepMap(V, torch.stack((one.through * one.keep, one.keep), dim=1))

    def few_tangents(self, one: OneStep, w: Tensor, J: Tensor, out: Tensor) -> None:
        assert one.keep is not None
        assert one.through is not None
        H = w.shape[-1]
        dh, dc = out[:, :H], out[:, H:]
        *inner, outer = zip(one.mix.unsqueeze(3).unbind(1), by_gate(w, J[:, :H]), strict=True)
        torch.mul(one.keep.unsqueeze(2), J[:, H:], out=dc)
        for mix, product in inner:
            dc.addcmul_(mix, product)
        torch.mul(*outer, out=dh).addcmul_(one.through.unsqueeze(2), dc)

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
