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

    RNN    dh = mix W dh                                 mix = phi'(a)
    GRU    dh = keep dh + sum_g mix_g W_g dh             keep = z
           mix = ((1-z) n' q r',  (h_{t-1} - n) z',  (1-z) n' r)
    LSTM   dc = keep dc + sum_{g in i,f,g} mix_g W_g dh  keep = f
           dh = through dc(new) + mix_o W_o dh           through = o tanh'(c)
           mix = (g i',  c_{t-1} f',  i g',  tanh(c) o')

The sum over gates is taken in the matrix, V = sum_g diag(mix_g) W_g. A step then needs one product
and not one per gate. Transposed, the same vectors push cotangents lambda of states back. The
cotangent of the gates, delta = mix * lambda, enters the weight gradients.

Every cell is written twice, with the same numbers up to rounding. `run` is in torch, for any device
and dtype. `advance` uses a loop that numba has compiled.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.probe import _compiled
from rnngrad.probe._scaled import Array

X = TypeVar("X", Array, Tensor)
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _sigmoid(a: Tensor, autograd: bool) -> tuple[Tensor, Tensor, Tensor]:
    """s(a), 1 - s(a) and s'(a)."""
    if autograd:  # float32 rounds s (1 - s) to 0 from 17 on; the other form keeps all digits
        value = torch.sigmoid(a)
        return value, 1 - value, value * (1 - value)
    small = torch.exp(-a.abs())
    large, small = 1 / (1 + small), small / (1 + small)
    return torch.where(a < 0, small, large), torch.where(a < 0, large, small), large * small


def _tanh(a: Tensor, autograd: bool) -> tuple[Tensor, Tensor]:
    """tanh(a) and its derivative; autograd has 1 - tanh^2, which is 0 in float32 from 10 on."""
    # 1 / cosh^2 keeps all digits; written with cosh it would be 0 from 355, where that overflows
    value, small = torch.tanh(a), torch.exp(-2 * a.abs())
    return value, 1 - value.square() if autograd else 4 * small / (1 + small).square()


class StepMaps(NamedTuple, Generic[X]):
    """The one-step derivatives of any cell in the form that the sweeps multiply with.

    mix: (..., G, H). mix_input: the same for the gates' input side; it differs in the GRU only.
    keep: (..., H). through: (..., H), and (..., 0) for a cell with one state.
    """

    mix: X
    mix_input: X
    keep: X
    through: X

    def each(self, function: Callable[[X], X]) -> "StepMaps[X]":
        return StepMaps(*map(function, self))

    def matrix(self: "StepMaps[Array]", W: Array) -> Array:
        """The dense one-step Jacobian (..., S, S) of maps in NumPy, with W_hh by gate (G, H, H)."""
        V, kept = self.mix[..., None] * W, self.keep[..., None] * np.eye(W.shape[-1])
        if not self.through.shape[-1]:
            return V.sum(axis=-3) + kept
        dc = np.concatenate((V[..., :-1, :, :].sum(axis=-3), kept), axis=-1)
        dh = self.through[..., None] * dc
        dh[..., : W.shape[-1]] += V[..., -1, :, :]
        return np.concatenate((dh, dc), axis=-2)


class RNNFactors(NamedTuple, Generic[X]):
    """mix (..., 1, H): phi'(a)."""

    mix: X

    def maps(self) -> StepMaps[X]:
        """One gate, nothing kept."""
        mix = self.mix[..., 0, :]
        return StepMaps(self.mix, self.mix, 0 * mix, mix[..., :0])


class GRUFactors(NamedTuple, Generic[X]):
    """mix (..., 3, H); keep (..., H); new (..., H), the input side of the candidate n."""

    mix: X
    keep: X
    new: X

    def maps(self) -> StepMaps[X]:
        """The two sides of the candidate differ by the reset gate."""
        mix_input = self.mix + 0
        mix_input[..., 2, :] = self.new
        return StepMaps(self.mix, mix_input, self.keep, self.keep[..., :0])


class LSTMFactors(NamedTuple, Generic[X]):
    """mix (..., 4, H), keep and through (..., H)."""

    mix: X
    keep: X
    through: X

    def maps(self) -> StepMaps[X]:
        return StepMaps(self.mix, self.mix, self.keep, self.through)


class Path(NamedTuple):
    """A cell's way through its inputs, in torch.

    states: h, and c of an LSTM, (t + 1, b, H) each, the first of which is the initial one.
    gates: activations (t, b, H) by torch's letters; none of an RNN.
    factors: those of every step, (t, b, ...).
    """

    states: tuple[Tensor, ...]
    gates: dict[str, Tensor]
    factors: RNNFactors[Tensor] | GRUFactors[Tensor] | LSTMFactors[Tensor]


@dataclass(frozen=True)
class _Layer:
    """The weights of one layer, as torch has them."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor
    kind: int  # which cell it is, by the names in `rnngrad.probe._compiled`

    factors: ClassVar[Any]

    def to(self, target: torch.dtype | str) -> Self:
        return replace(self, **{name: getattr(self, name).to(target) for name in WEIGHTS})

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

    def advance(self, x: Array, states: tuple[Array, ...]) -> tuple[Array, StepMaps[Array]]:
        """The new h (b, t, H) and the maps over x (b, t, d); the states (b, H) move on."""
        a = np.dot(x.reshape(-1, x.shape[2]), self.weight_ih.numpy().T) + self.bias_ih.numpy()
        a = a.reshape(*x.shape[:2], -1)
        h, *factors = _compiled.steps(
            self.kind, a, self._W_T, self.bias_hh.numpy(), states[0], states[-1]
        )
        return h, self.factors(*factors[: len(self.factors._fields)]).maps()


@dataclass(frozen=True)
class RNN(_Layer):
    """Elman RNN: h = phi(W_ih x + b_ih + W_hh h + b_hh)."""

    gate_count: ClassVar[int] = 1
    factors: ClassVar[Any] = RNNFactors

    def run(self, x: Tensor, h: Tensor, *, autograd: bool = False) -> Path:
        """The path over x (t, b, d) from h (b, H); `autograd`: derivatives as autograd has them."""
        relu = self.kind == _compiled.RNN_RELU
        phi = torch.relu if relu else torch.tanh
        a, path = [], [h]
        for x_t in x @ self.weight_ih.T + (self.bias_ih + self.bias_hh):
            a.append(x_t + path[-1] @ self.weight_hh.T)
            path.append(phi(a[-1]))
        a = torch.stack(a)
        slope = (~(a <= 0)).to(a.dtype) if relu else _tanh(a, autograd)[1]
        return Path((torch.stack(path),), {}, RNNFactors(slope[:, :, None]))


@dataclass(frozen=True)
class GRU(_Layer):
    """Gated recurrent unit as torch has it: the reset gate acts after the recurrent product."""

    gate_count: ClassVar[int] = 3
    factors: ClassVar[Any] = GRUFactors

    def run(self, x: Tensor, h: Tensor, *, autograd: bool = False) -> Path:
        """The path over x (t, b, d) from h (b, H); `autograd`: derivatives as autograd has them."""
        a, q, path, H = [], [], [h], self.hidden
        for x_t in x @ self.weight_ih.T + self.bias_ih:
            w = path[-1] @ self.weight_hh.T + self.bias_hh
            a_rz = x_t[:, : 2 * H] + w[:, : 2 * H]
            r, z = torch.sigmoid(a_rz).chunk(2, dim=-1)
            q.append(w[:, 2 * H :])
            a_n = x_t[:, 2 * H :] + r * q[-1]
            a.append(torch.cat((a_rz, a_n), dim=-1))
            path.append((1 - z) * torch.tanh(a_n) + z * path[-1])
        a_r, a_z, a_n = torch.stack(a).chunk(3, dim=-1)
        r, _, r_slope = _sigmoid(a_r, autograd)
        z, z_less, z_slope = _sigmoid(a_z, autograd)
        n, n_slope = _tanh(a_n, autograd)
        h, new = torch.stack(path), z_less * n_slope
        mix = (new * torch.stack(q) * r_slope, (h[:-1] - n) * z_slope, new * r)
        factors = GRUFactors(torch.stack(mix, dim=2), z, new)
        return Path((h,), {"r": r, "z": z, "n": n}, factors)


@dataclass(frozen=True)
class LSTM(_Layer):
    """Long short-term memory without peepholes or projection; h = o sigmoid(c) in one kind."""

    gate_count: ClassVar[int] = 4
    factors: ClassVar[Any] = LSTMFactors

    def run(self, x: Tensor, h: Tensor, c: Tensor, *, autograd: bool = False) -> Path:
        """The path over x (t, b, d) from h and c (b, H); derivatives as in the other cells."""
        sigmoid = self.kind == _compiled.LSTM_SIGMOID
        squash = torch.sigmoid if sigmoid else torch.tanh
        a, path_h, path_c = [], [h], [c]
        for x_t in x @ self.weight_ih.T + (self.bias_ih + self.bias_hh):
            a.append(x_t + path_h[-1] @ self.weight_hh.T)
            a_i, a_f, a_g, a_o = a[-1].chunk(4, dim=-1)
            new = torch.sigmoid(a_f) * path_c[-1] + torch.sigmoid(a_i) * torch.tanh(a_g)
            path_c.append(new)
            path_h.append(torch.sigmoid(a_o) * squash(new))
        a_i, a_f, a_g, a_o = torch.stack(a).chunk(4, dim=-1)
        (i, _, i_slope), (f, _, f_slope), (o, _, o_slope) = (
            _sigmoid(gate, autograd) for gate in (a_i, a_f, a_o)
        )
        g, g_slope = _tanh(a_g, autograd)
        c = torch.stack(path_c)
        squashed, *_, slope = (_sigmoid if sigmoid else _tanh)(c[1:], autograd)
        mix = (g * i_slope, c[:-1] * f_slope, i * g_slope, squashed * o_slope)
        factors = LSTMFactors(torch.stack(mix, dim=2), f, o * slope)
        return Path((torch.stack(path_h), c), {"i": i, "f": f, "g": g, "o": o}, factors)


Cell = RNN | GRU | LSTM


class SigmoidStateLSTM(nn.LSTM):
    """An `nn.LSTM` of one layer whose hidden state is h = o sigmoid(c), as one tutorial draws it.

    The probe takes it like torch's own modules.

    Examples:
        >>> import torch
        >>> from rnngrad.probe.cells import SigmoidStateLSTM
        >>> module = SigmoidStateLSTM(3, 4, batch_first=True)
        >>> output, (h, c) = module(torch.zeros(2, 5, 3))
        >>> tuple(output.shape)
        (2, 5, 4)
    """

    def forward(  # type: ignore[override]
        self,
        input: Tensor,  # noqa: A002  torch's name
        hx: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As nn.LSTM's; the input is (batch, time, features) or, without batch_first, time first.

        Raises:
            ValueError: several layers, two directions or a projection.
        """
        if self.num_layers != 1 or self.bidirectional or self.proj_size:
            raise ValueError("SigmoidStateLSTM has one layer, one direction and no projection")
        x = input.transpose(0, 1) if self.batch_first else input
        zero, given = x.new_zeros(1, x.shape[1], self.hidden_size), dict(self.named_parameters())
        h, c = (zero, zero) if hx is None else hx
        none = x.new_zeros(4 * self.hidden_size)
        weights = (given.get(f"{name}_l0", none) for name in WEIGHTS)
        cell = LSTM(*weights, kind=_compiled.LSTM_SIGMOID)
        path_h, path_c = cell.run(x, h[0], c[0]).states
        output = path_h[1:].transpose(0, 1) if self.batch_first else path_h[1:]
        return output, (path_h[-1:], path_c[-1:])
