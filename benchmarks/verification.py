"""A float64 reference that shares no code with rnngrad, and how far a result may be from it."""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from benchmarks.competitors import Curves

State = tuple[Tensor, ...]

FLOAT32_LIMITS = {"frobenius": 1e-5, "column_sum": 1e-4}  # relative, at every step
# No dtype is to blame for more than that over the first steps: it is another quantity.
WRONG, FIRST_STEPS = 1e-3, 20


class RefusedError(RuntimeError):
    """No time counts: something failed, took too long or computed something else."""


def checked_examples(batch: int) -> list[int]:
    """The first, the middle and the last: their reference is computed."""
    return sorted({0, batch // 2, batch - 1})


def reference(
    module: nn.Module, inputs: Tensor, state: State, spectral_at: Collection[int] = ()
) -> Curves:
    """Curves of the checked examples: autograd's jvp of one step, in float64, scaled each step.

    The state of an LSTM is (h, c), and c its numerator and denominator; that of others is (h,).
    The spectral norm is NaN but at the steps (from 1) asked for.
    """
    examples = checked_examples(len(inputs))
    a, state = _doubles(module, inputs[examples], tuple(s[0, examples] for s in state))
    n, H = state[-1].shape
    J = torch.eye(H).double().unsqueeze(1).expand(-1, n, -1)  # (direction, example, unit)
    tangents = (*(torch.zeros_like(J) for _ in state[1:]), J)
    exponent, found = torch.zeros(n).double(), []
    for t, a_t in enumerate(a, start=1):
        state, tangents = _advance(module, a_t, state, tangents)
        J = tangents[-1]
        norm = torch.linalg.vector_norm(J, dim=(0, 2))
        spectral = torch.full_like(norm, torch.nan)
        if t in spectral_at:
            spectral = torch.linalg.matrix_norm(J.transpose(0, 1), 2)
        sizes = torch.stack([J.sum(dim=2).abs().mean(dim=0), norm, spectral])
        found.append(sizes.log10() + exponent * np.log10(2))
        shift = torch.frexp(norm).exponent
        factor = torch.ldexp(torch.ones_like(norm), -shift)[:, None]
        tangents = tuple(v * factor for v in tangents)
        exponent = exponent + shift
    return Curves(*torch.stack(found, dim=2).numpy())


def exponents(module: nn.Module, inputs: Tensor, state: State) -> np.ndarray:
    """All Lyapunov exponents of the first example, from a QR after every step; largest first."""
    a, state = _doubles(module, inputs[:1], tuple(s[0, :1] for s in state))
    H = state[-1].shape[1]
    Q, logs = torch.eye(len(state) * H).double(), torch.zeros(len(state) * H).double()
    for a_t in a:
        tangents = tuple(v.unsqueeze(1) for v in Q.T.split(H, dim=1))
        state, tangents = _advance(module, a_t, state, tangents)
        Q, R = torch.linalg.qr(torch.cat(tangents, dim=2)[:, 0].T)
        logs = logs + R.diagonal().abs().log()
    return np.sort((logs / len(a)).numpy())[::-1]


def verify(
    found: Curves, true: Curves, batch: int, exact: bool, steps: np.ndarray | None = None
) -> tuple[dict[str, float], bool]:
    """Largest relative errors by curve, where something is promised; and are they small enough?

    The curves were found at `steps` (from 1), or at all. Exact are norms to 1e-9, and column sums
    to 1e-9 while above 1e-2 of the Frobenius norm, to 1e-6 while above 1e-6 of it.

    Raises:
        RefusedError: a curve is missing, has another shape or NaN, is off from the first steps on,
            or was to be exact and is not.
    """
    if found.column_sum is None:
        raise RefusedError("no column sums")
    assert true.column_sum is not None
    steps = np.arange(1, true.column_sum.shape[1] + 1) if steps is None else steps
    true = Curves(*(None if v is None else v[:, steps - 1] for v in true))
    errors, accurate = {}, True
    for name, values in found._asdict().items():
        if values is None:
            continue
        error = _errors(name, values, getattr(true, name), batch)
        early = error[:, steps <= FIRST_STEPS].max(initial=0.0)
        if early > WRONG:
            raise RefusedError(f"{name} is off by {early:.0e} in the first {FIRST_STEPS} steps")
        limit = _promise(name, true) if exact else FLOAT32_LIMITS[name]
        errors[name] = float(np.where(np.isinf(limit), 0.0, error).max())
        accurate &= bool((error <= limit).all())
        if exact and not accurate:
            raise RefusedError(f"{name} is off by {errors[name]:.0e}")
    return errors, accurate


def _errors(name: str, values: np.ndarray, truth: np.ndarray, batch: int) -> np.ndarray:
    if values.shape != (batch, truth.shape[1]):
        raise RefusedError(f"{name} has shape {values.shape}, expected {(batch, truth.shape[1])}")
    values = values[checked_examples(batch)]
    if (np.isnan(values) & ~np.isnan(truth)).any():
        raise RefusedError(f"{name} holds NaN")
    unknown = (values == truth) | np.isnan(truth)  # two zeros are equal, as -inf
    return np.abs(np.expm1(np.where(unknown, 0.0, values - truth) * np.log(10)))


def _promise(name: str, true: Curves) -> np.ndarray:
    assert true.column_sum is not None
    assert true.frobenius is not None
    share = true.column_sum - true.frobenius
    if name != "column_sum":
        return np.full_like(share, 1e-9)
    return np.select([share >= -2, share >= -6], [1e-9, 1e-6], np.inf)


def _doubles(module: nn.Module, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """The inputs' part of all pre-activations, (t, b, gates), and the state, both in float64."""
    W_ih, _, b_ih, _ = (p.detach().double() for p in module.parameters())
    a = inputs.double() @ W_ih.T + b_ih
    return a.transpose(0, 1), tuple(s.detach().double() for s in state)


def _advance(module: nn.Module, a_t: Tensor, state: State, tangents: State) -> tuple[State, State]:
    """One step of the state and of all its tangents, (k, b, H) each."""
    _, W, _, b = (p.detach().double() for p in module.parameters())

    def step(*state: Tensor) -> State:
        return STEPS[type(module)](a_t, state[0] @ W.T + b, *state)

    return step(*state), vmap(lambda *v: jvp(step, state, v)[1])(*tangents)


def lstm_step(a: Tensor, w: Tensor, h: Tensor, c: Tensor) -> State:
    """The new state, from what the inputs bring and what h brings."""
    i, f, g, o = (a + w).chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru_step(a: Tensor, w: Tensor, h: Tensor) -> State:
    (a_r, a_z, a_n), (w_r, w_z, w_n) = a.chunk(3, dim=-1), w.chunk(3, dim=-1)
    z = (a_z + w_z).sigmoid()
    return ((1 - z) * (a_n + (a_r + w_r).sigmoid() * w_n).tanh() + z * h,)


def _rnn_step(a: Tensor, w: Tensor, h: Tensor) -> State:
    return ((a + w).tanh(),)


STEPS = {nn.LSTM: lstm_step, nn.GRU: _gru_step, nn.RNN: _rnn_step}
