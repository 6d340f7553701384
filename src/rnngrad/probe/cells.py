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

and its derivative needs, per example and step, only a few vectors over the units (the factors):

    RNN    dh = mix W dh                   mix  = phi'(a)
    GRU    dh = keep dh + sum_g mix_g W_g dh
                                           keep = z
                                           mix  = ((1-z) n' q r',  (h_{t-1} - n) z',  (1-z) n' r)
    LSTM   dc = keep dc + sum_{g in i,f,g} mix_g W_g dh
           dh = through dc(new) + mix_o W_o dh
                                           keep = f,  through = o tanh'(c)
                                           mix  = (g i',  c_{t-1} f',  i g',  tanh(c) o')

The sum over gates is taken in the matrix, V = sum_g diag(mix_g) W_g, before it meets the tangents:
one (H, H) product instead of one per gate. Transposed, the same vectors push cotangents back; the
cotangent of the gates, delta = mix * lambda, is what enters the weight gradients.

Every cell is written twice: `run` and `factors` in torch, for any device and dtype, and `advance`,
which calls the loop that numba has compiled. Both give the same numbers up to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.probe import _compiled

Array = np.ndarray


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
# Reverse-mode autograd multiplies with these, from the outputs of the forward pass.
AUTOGRAD = DerivativeForms(_autograd_sigmoid, _autograd_tanh)


class StepMaps(NamedTuple):
    """The one-step derivatives of any cell in the form that the sweeps multiply with.

    With s the last of the cell's states, ds = keep ds + sum_g mix_g W_g dh. Where there are two,
    the last gate reaches the first alone: dh = through dc(new) + mix_o W_o dh.

    mix: (..., G, H). mix_input: the same for the gates' input side; it differs in the GRU only.
    keep: (..., H). through: (..., H), and (..., 0) for a cell with one state.
    """

    mix: Any
    mix_input: Any
    keep: Any
    through: Any

    def each(self, function: Callable[[Any], Any]) -> "StepMaps":
        """All of them through a function."""
        return StepMaps(*map(function, self))


class RNNPath(NamedTuple):
    """States (t + 1, b, H), the first of which is the initial one, and pre-activations (t, b, H)."""

    h: Tensor
    a: Tensor


class RNNFactors(NamedTuple):
    """mix (..., H): phi'(a)."""

    mix: Any

    def maps(self) -> StepMaps:
        """One gate, nothing kept."""
        mix = self.mix[..., None, :]
        return StepMaps(mix, mix, 0 * self.mix, self.mix[..., :0])


class GRUPath(NamedTuple):
    """States (t + 1, b, H), pre-activations a (t, b, 3H), and q (t, b, H)."""

    h: Tensor
    a: Tensor
    q: Tensor


class GRUFactors(NamedTuple):
    """mix (..., 3, H); new (..., H), the input side of the candidate n; keep (..., H)."""

    mix: Any
    new: Any
    keep: Any

    def maps(self) -> StepMaps:
        """The two sides of the candidate differ by the reset gate."""
        mix_input = self.mix + 0
        mix_input[..., 2, :] = self.new
        return StepMaps(self.mix, mix_input, self.keep, self.keep[..., :0])


class LSTMPath(NamedTuple):
    """States h and c (t + 1, b, H), and pre-activations a (t, b, 4H)."""

    h: Tensor
    c: Tensor
    a: Tensor


class LSTMFactors(NamedTuple):
    """mix (..., 4, H), keep and through (..., H)."""

    mix: Any
    keep: Any
    through: Any

    def maps(self) -> StepMaps:
        """As they are."""
        return StepMaps(self.mix, self.mix, self.keep, self.through)


@dataclass(frozen=True)
class _Layer:
    """The weights of one layer, as torch has them."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    def to(self, target: torch.dtype | str) -> Self:
        """The same cell in another dtype or on another device."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return replace(self, **{name: getattr(self, name).to(target) for name in names})

    @property
    def hidden(self) -> int:
        """The number of units, H."""
        return self.weight_hh.shape[1]

    @cached_property
    def W(self) -> Array:  # noqa: N802
        """W_hh by gate, (G, H, H)."""
        return np.ascontiguousarray(self.weight_hh.numpy()).reshape(-1, self.hidden, self.hidden)

    @cached_property
    def _W_T(self) -> Array:  # noqa: N802
        return np.ascontiguousarray(self.weight_hh.numpy().T)

    def _input_part(self, x: Array, bias: Tensor) -> Array:
        """x W_ih^T + bias of every step, (b, t, GH), from x (b, t, d)."""
        flat = x.reshape(-1, x.shape[-1])
        a = np.dot(flat, self.weight_ih.numpy().T)
        a += bias.numpy()
        return a.reshape(*x.shape[:2], -1)


@dataclass(frozen=True)
class RNN(_Layer):
    """Elman RNN: h = phi(W_ih x + b_ih + W_hh h + b_hh)."""

    nonlinearity: str = "tanh"

    gates: ClassVar[int] = 1
    states: ClassVar[tuple[str, ...]] = ("h",)

    def run(self, x: Tensor, h: Tensor) -> RNNPath:
        """The path over x (t, b, d) from h (b, H), in torch."""
        phi = torch.tanh if self.nonlinearity == "tanh" else torch.relu
        a, path = [], [h]
        for x_t in x @ self.weight_ih.T + (self.bias_ih + self.bias_hh):
            a.append(x_t + path[-1] @ self.weight_hh.T)
            path.append(phi(a[-1]))
        return RNNPath(torch.stack(path), torch.stack(a))

    def factors(self, path: RNNPath, forms: DerivativeForms = STABLE) -> RNNFactors:
        """The factors of every step, (t, b, H)."""
        if self.nonlinearity == "relu":
            return RNNFactors((~(path.a <= 0)).to(path.a.dtype))
        return RNNFactors(forms.tanh(path.a).derivative)

    def advance(self, x: Array, states: tuple[Array, ...]) -> tuple[Array, RNNFactors]:
        """The new h (b, t, H) and the factors; the states (b, H) move on in place."""
        a = self._input_part(x, self.bias_ih + self.bias_hh)
        mix = np.empty_like(a)
        path = np.empty_like(a)
        _compiled.rnn_steps(a, self._W_T, self.nonlinearity == "relu", *states, path, mix)
        return path, RNNFactors(mix)


@dataclass(frozen=True)
class GRU(_Layer):
    """Gated recurrent unit as torch has it: the reset gate acts after the recurrent product."""

    gates: ClassVar[int] = 3
    states: ClassVar[tuple[str, ...]] = ("h",)

    def run(self, x: Tensor, h: Tensor) -> GRUPath:
        """The path over x (t, b, d) from h (b, H), in torch."""
        a, q, path, H = [], [], [h], self.hidden
        for x_t in x @ self.weight_ih.T + self.bias_ih:
            w = path[-1] @ self.weight_hh.T + self.bias_hh
            a_rz = x_t[:, : 2 * H] + w[:, : 2 * H]
            r, z = torch.sigmoid(a_rz).chunk(2, dim=-1)
            q.append(w[:, 2 * H :])
            a_n = x_t[:, 2 * H :] + r * q[-1]
            a.append(torch.cat((a_rz, a_n), dim=-1))
            path.append((1 - z) * torch.tanh(a_n) + z * path[-1])
        return GRUPath(torch.stack(path), torch.stack(a), torch.stack(q))

    def factors(self, path: GRUPath, forms: DerivativeForms = STABLE) -> GRUFactors:
        """The factors of every step, (t, b, ...)."""
        a_r, a_z, a_n = path.a.chunk(3, dim=-1)
        r, z, n = forms.sigmoid(a_r), forms.sigmoid(a_z), forms.tanh(a_n)
        new = z.complement * n.derivative
        reset = new * path.q * r.derivative
        update = (path.h[:-1] - n.value) * z.derivative
        return GRUFactors(torch.stack((reset, update, new * r.value), dim=2), new, z.value)

    def advance(self, x: Array, states: tuple[Array, ...]) -> tuple[Array, GRUFactors]:
        """The new h (b, t, H) and the factors; the states (b, H) move on in place."""
        H = self.hidden
        bias = self.bias_ih.clone()
        bias[: 2 * H] += self.bias_hh[: 2 * H]
        a = self._input_part(x, bias)
        path, new, keep = np.empty((3, *a.shape[:2], H))
        mix = np.empty((*a.shape[:2], 3, H))
        bias_n = self.bias_hh[2 * H :].numpy()
        _compiled.gru_steps(a, self._W_T, bias_n, *states, path, mix, new, keep)
        return path, GRUFactors(mix, new, keep)


@dataclass(frozen=True)
class LSTM(_Layer):
    """Long short-term memory without peepholes or projection; h = o sigmoid(c) on demand."""

    sigmoid_state: bool = False

    gates: ClassVar[int] = 4
    states: ClassVar[tuple[str, ...]] = ("h", "c")

    def run(self, x: Tensor, h: Tensor, c: Tensor) -> LSTMPath:
        """The path over x (t, b, d) from h and c (b, H), in torch."""
        squash = torch.sigmoid if self.sigmoid_state else torch.tanh
        a, path_h, path_c = [], [h], [c]
        for x_t in x @ self.weight_ih.T + (self.bias_ih + self.bias_hh):
            a.append(x_t + path_h[-1] @ self.weight_hh.T)
            a_i, a_f, a_g, a_o = a[-1].chunk(4, dim=-1)
            new = torch.sigmoid(a_f) * path_c[-1] + torch.sigmoid(a_i) * torch.tanh(a_g)
            path_c.append(new)
            path_h.append(torch.sigmoid(a_o) * squash(new))
        return LSTMPath(torch.stack(path_h), torch.stack(path_c), torch.stack(a))

    def factors(self, path: LSTMPath, forms: DerivativeForms = STABLE) -> LSTMFactors:
        """The factors of every step, (t, b, ...)."""
        a_i, a_f, a_g, a_o = path.a.chunk(4, dim=-1)
        i, f, o, g = *map(forms.sigmoid, (a_i, a_f, a_o)), forms.tanh(a_g)
        c = (forms.sigmoid if self.sigmoid_state else forms.tanh)(path.c[1:])
        mix = (
            g.value * i.derivative,
            path.c[:-1] * f.derivative,
            i.value * g.derivative,
            c.value * o.derivative,
        )
        return LSTMFactors(torch.stack(mix, dim=2), f.value, o.value * c.derivative)

    def advance(self, x: Array, states: tuple[Array, ...]) -> tuple[Array, LSTMFactors]:
        """The new h (b, t, H) and the factors; the states (b, H) move on in place."""
        a = self._input_part(x, self.bias_ih + self.bias_hh)
        path_h, keep, through = np.empty((3, *a.shape[:2], self.hidden))
        mix = np.empty((*a.shape[:2], 4, self.hidden))
        _compiled.lstm_steps(a, self._W_T, self.sigmoid_state, *states, path_h, mix, keep, through)
        return path_h, LSTMFactors(mix, keep, through)


Cell = RNN | GRU | LSTM


class SigmoidStateLSTM(nn.LSTM):
    """An `nn.LSTM` of one layer whose hidden state is h = o sigmoid(c), as one tutorial draws it.

    The probe takes it like torch's own modules.

    Example:
        >>> import torch
        >>> from rnngrad.probe.cells import SigmoidStateLSTM
        >>> module = SigmoidStateLSTM(3, 4, batch_first=True)
        >>> output, (h, c) = module(torch.zeros(2, 5, 3))
        >>> tuple(output.shape)
        (2, 5, 4)
    """

    def forward(  # type: ignore[override]
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor] | None = None,  # noqa: A002
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As nn.LSTM's; the input is (batch, time, features) or, without batch_first, time first.

        Raises:
            ValueError: several layers, two directions or a projection.
        """
        if self.num_layers != 1 or self.bidirectional or self.proj_size:
            raise ValueError("SigmoidStateLSTM has one layer, one direction and no projection")
        x = input.transpose(0, 1) if self.batch_first else input
        zero = x.new_zeros(1, x.shape[1], self.hidden_size)
        h, c = (zero, zero) if hx is None else hx
        bias = self.bias_ih_l0 + self.bias_hh_l0 if self.bias else x.new_zeros(4 * self.hidden_size)
        cell = LSTM(self.weight_ih_l0, self.weight_hh_l0, bias, torch.zeros_like(bias), True)
        path = cell.run(x, h[0], c[0])
        output = path.h[1:].transpose(0, 1) if self.batch_first else path.h[1:]
        return output, (path.h[-1:], path.c[-1:])
