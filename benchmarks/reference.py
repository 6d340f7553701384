"""Is a result right? References in float64 that share no code with rnngrad.

Every public function makes the check of one problem. A check gets what a turn found and whether it
is to be exact; it returns the worst relative errors, and raises RefusedError where no time counts.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from benchmarks.torch_ways import layer_of, lstm_step, triangle_rows
from benchmarks.turns import Found, Problem, some_steps

Check = Callable[[Found, bool], dict[str, float]]
State = tuple[Tensor, ...]

EXACT, FLOAT32 = 1e-9, 1e-4  # limits of relative errors
# No dtype is to blame for more than that over the first steps: it is another quantity.
WRONG, FIRST_STEPS = 1e-3, 20
RESOLVED = 1e-6  # a part of the triangle below this share of its row's largest is not compared
E_FOLDS = 20.0  # by which the choice of the first directions may move one exponent times T


class RefusedError(RuntimeError):
    """No time counts: something failed, took too long or computed something else."""


def curves(problem: Problem) -> Check:
    """Of the first, the middle and the last example; the spectral norm at some steps.

    Exact are norms to 1e-9, and column sums to 1e-9 while above 1e-2 of the Frobenius norm, to 1e-6
    while above 1e-6 of it.
    """
    T, _, batch = problem.size
    examples = sorted({0, batch // 2, batch - 1})
    of_all_steps = _true_curves(problem, examples)

    def check(found: Found, exact: bool) -> dict[str, float]:
        errors, steps = {}, found.get("steps", np.arange(1, T + 1))
        true = {name: curve[:, steps - 1] for name, curve in of_all_steps.items()}
        for name in sorted({"column_sum", *found} - {"steps"}):
            if name not in found or found[name].shape != (batch, len(steps)):
                raise RefusedError(f"no {name} for {batch} examples and {len(steps)} steps")
            error = _relative(found[name][examples], true[name])
            limit = _promise(name, true) if exact else np.where(steps <= FIRST_STEPS, WRONG, np.inf)
            counted = np.where(np.isinf(limit), 0.0, error) if exact else error
            if np.isnan(error).any() or (error > limit).any():
                raise RefusedError(f"{name} is off by {counted.max():.0e}")
            errors[name] = float(counted.max())
        return errors

    return check


def triangle(problem: Problem) -> Check:
    row = triangle_rows(problem, torch.float64)
    true = {f"at_{t}": row(t) for t in some_steps(problem.size[0])}
    kept = {name: values > RESOLVED * values.max() for name, values in true.items()}

    def check(found: Found, exact: bool) -> dict[str, float]:
        errors = (np.abs(found[n][kept[n]] / true[n][kept[n]] - 1).max() for n in true)
        return _checked(errors, EXACT if exact else FLOAT32)

    return check


def exponents(problem: Problem) -> Check:
    """The first example's, each and their sum."""
    true_of = functools.cache(lambda steps: _true_exponents(problem, steps))

    def check(found: Found, exact: bool) -> dict[str, float]:
        steps, ours = int(found["steps"]), found["exponents"][0]
        true = true_of(steps)
        _checked(np.abs(ours - true), E_FOLDS / steps)
        return _checked([abs(ours.sum() / true.sum() - 1)], EXACT)

    return check


def gradients(problem: Problem, padding: str) -> Check:
    """A training step's loss and its gradient by each weight."""
    from benchmarks.training_ways import exact_gradients

    true, norm = exact_gradients(problem, padding), np.linalg.norm

    def check(found: Found, exact: bool) -> dict[str, float]:
        return _checked((norm(found[n] - true[n]) / norm(true[n]) for n in true), FLOAT32)

    return check


def _checked(errors: Iterable[float], limit: float) -> dict[str, float]:
    worst = float(np.max([*errors]))
    if not worst <= limit:  # NaN is refused, too
        raise RefusedError(f"off by {worst:.0e}; at most {limit:.0e} counts")
    return {"worst": worst}


def _relative(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # two zeros are equal, as -inf; a true NaN is not known
        off = np.where((found == true) | np.isnan(true), 0.0, found - true)
    return np.abs(np.expm1(off * np.log(10)))


def _promise(name: str, true: Found) -> np.ndarray:
    share = true["column_sum"] - true["frobenius"]
    if name != "column_sum":
        return np.full_like(share, EXACT)
    return np.select([share >= -2, share >= -6], [EXACT, 1e-6], np.inf)


def _true_curves(problem: Problem, examples: list[int]) -> dict[str, np.ndarray]:
    """By autograd's jvp of one step, scaled each step; (example, step), NaN where not computed."""
    n, (T, H, _) = len(examples), problem.size
    spectral_at = {int(t) for t in np.geomspace(1, T, 20).round()}
    J = torch.eye(H).double().unsqueeze(1).expand(-1, n, -1)  # (direction, example, unit)
    tangents, exponent, found = (torch.zeros_like(J), J), torch.zeros(n).double(), []
    for t, push in enumerate(_steps(problem, examples), start=1):
        *others, J = push(tangents)
        norm = J.norm(dim=(0, 2))
        spectral = torch.full_like(norm, torch.nan)
        if t in spectral_at:
            spectral = torch.linalg.matrix_norm(J.transpose(0, 1), 2)
        sizes = torch.stack([J.sum(dim=2).abs().mean(dim=0), norm, spectral])
        found.append(sizes.log10() + exponent * np.log10(2))
        shift = torch.frexp(norm).exponent
        tangents = tuple(torch.ldexp(v, -shift[:, None]) for v in (*others, J))
        exponent = exponent + shift
    whole = torch.stack(found, dim=2).numpy()
    return dict(zip(("column_sum", "frobenius", "spectral"), whole, strict=True))


def _true_exponents(problem: Problem, steps: int) -> np.ndarray:
    """All of an LSTM's first example, from a QR after every step; largest first."""
    size = 2 * problem.size[1]
    Q, logs = torch.eye(size).double(), torch.zeros(size).double()
    for _, push in zip(range(steps), _steps(problem, [0]), strict=False):
        tangents = push(tuple(v.unsqueeze(1) for v in Q.T.chunk(2, dim=1)))
        Q, R = torch.linalg.qr(torch.cat(tangents, dim=2)[:, 0].T)
        logs = logs + R.diagonal().abs().log()
    return np.sort((logs / steps).numpy())[::-1]


def _steps(problem: Problem, examples: list[int]) -> Iterator[Callable[[State], State]]:
    """The map of tangents, (direction, example, H) by part of the state, that each step is."""
    layer, inputs, start = layer_of(problem)
    weights = [p.detach() for p in layer.double().parameters()]
    state = tuple(s[0, examples].double() for s in start)
    for x_t in inputs[examples].double().unbind(dim=1):
        step = functools.partial(_step, layer, weights, x_t)
        yield functools.partial(_push, step, state)
        state = step(*state)


def _push(step: Callable[..., State], state: State, tangents: State) -> State:
    return vmap(lambda *v: jvp(step, state, v)[1])(*tangents[-len(state) :])


def _step(layer: nn.RNNBase, weights: list[Tensor], x_t: Tensor, *state: Tensor) -> State:
    if isinstance(layer, nn.LSTM):  # torch.lstm_cell is slow in vmap
        W_ih, W_hh, b, _ = weights
        return lstm_step(x_t @ W_ih.T + b + state[0] @ W_hh.T, state[1])
    cell = torch.gru_cell if isinstance(layer, nn.GRU) else torch.rnn_tanh_cell
    return (cell(x_t, state[0], *weights),)
