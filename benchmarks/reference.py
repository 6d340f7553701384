"""Is a result right? References in float64 that share no code with rnngrad.

Every public function makes the check of one problem. A check gets what a turn found and whether it
is to be exact; it returns the worst relative error, and raises ValueError where no time counts.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from benchmarks.torch_ways import layer_of, lstm_step, triangle_rows
from benchmarks.turns import Found, Problem, some_steps

Check = Callable[[Found, bool], float]

EXACT, FLOAT32 = 1e-9, 1e-4  # limits of relative errors
SPECTRAL_STEPS = 70  # from one spectral norm that is computed to the next
# No dtype is to blame for more than that over the first steps: it is another quantity.
WRONG, FIRST_STEPS = 1e-3, 20
# Less beside the norm, or beside the largest part of the triangle's row, is promised fewer digits.
SMALL_SUM, SMALL_PART = 1e-2, 1e-6


def curves(problem: Problem) -> Check:
    """The first, the middle and the last example count; the spectral norm at some steps."""
    T, _, batch = problem.size
    examples = sorted({0, batch // 2, batch - 1})
    whole = _true_curves(problem, examples)
    small = whole["column_sum"] - whole["frobenius"] < np.log10(SMALL_SUM)

    def check(found: Found, exact: bool) -> float:
        worst, steps = 0.0, found.get("steps", np.arange(1, T + 1))
        for name in ("column_sum", *sorted({"frobenius", "spectral"} & found.keys())):
            ours, true = found[name][examples], whole[name][:, steps - 1]
            known = (ours != true) & ~np.isnan(true)  # two zeros are equal, as -inf
            if exact and name == "column_sum":
                known &= ~small[:, steps - 1]
            logs = np.subtract(ours, true, out=np.zeros(true.shape), where=known)
            error = np.abs(np.expm1(logs * np.log(10)))
            _checked(error if exact else error[:, steps <= FIRST_STEPS], EXACT if exact else WRONG)
            worst = max(worst, _checked(error, np.inf))
        return worst

    return check


def triangle(problem: Problem) -> Check:
    row = triangle_rows(problem, torch.float64)
    true = {f"at_{t}": row(t) for t in some_steps(problem.size[0])}
    kept = {name: values > SMALL_PART * values.max() for name, values in true.items()}

    def check(found: Found, exact: bool) -> float:
        parts = [found[name][kept[name]] / true[name][kept[name]] - 1 for name in true]
        return _checked(np.concatenate(parts), EXACT if exact else FLOAT32)

    return check


def exponents(problem: Problem) -> Check:
    """The first example's exponents sum to the mean of log|det| of the steps' maps."""
    eye = torch.eye(2 * problem.size[1]).double().unsqueeze(1).chunk(2, dim=2)  # of (h, c)
    maps, logs = _steps(problem, [0]), []

    def check(found: Found, exact: bool) -> float:
        for _, push in zip(range(len(logs), int(found["steps"])), maps, strict=False):
            logs.append(torch.cat(push(eye), dim=2)[:, 0].slogdet()[1])
        return _checked(found["exponents"][0].sum() / torch.stack(logs).mean() - 1, EXACT)

    return check


def gradients(problem: Problem, padding: str) -> Check:
    """A training step's loss and its gradient by each weight, beside those of the padded one."""
    from benchmarks.study_ways import training

    true, norm = training(problem, padding, everything="yes").found, np.linalg.norm

    def check(found: Found, exact: bool) -> float:
        errors = [norm(found[name] - true[name]) / norm(true[name]) for name in true]
        return _checked(errors, FLOAT32)

    return check


def _checked(errors: Any, limit: float) -> float:
    worst = float(np.abs(np.asarray(errors)).max(initial=0.0))
    if not worst <= limit:  # NaN is refused, too
        raise ValueError(f"off by {worst:.0e}; at most {limit:.0e} counts")
    return worst


def _true_curves(problem: Problem, examples: list[int]) -> dict[str, np.ndarray]:
    """By autograd's jvp of one step, scaled each step; (example, step), NaN where not computed."""
    n, H = len(examples), problem.size[1]
    J = torch.eye(H).double().unsqueeze(1).expand(-1, n, -1)  # (direction, example, unit)
    tangents, exponent, found = (torch.zeros_like(J), J), torch.zeros(n).double(), []
    for t, push in enumerate(_steps(problem, examples), start=1):
        *others, J = push(tangents)
        norm = J.norm(dim=(0, 2))
        spectral = norm * torch.nan
        if t % SPECTRAL_STEPS == 1:
            spectral = torch.linalg.matrix_norm(J.transpose(0, 1), 2)
        sizes = torch.stack([J.sum(dim=2).abs().mean(dim=0), norm, spectral])
        found.append(sizes.log10() + exponent * np.log10(2))
        shift = torch.frexp(norm).exponent
        tangents = tuple(torch.ldexp(v, -shift[:, None]) for v in (*others, J))
        exponent = exponent + shift
    whole = torch.stack(found, dim=2).numpy()
    return dict(zip(("column_sum", "frobenius", "spectral"), whole, strict=True))


def _steps(problem: Problem, examples: list[int]) -> Iterator[Callable[..., tuple[Tensor, ...]]]:
    """The map of tangents, (direction, example, H) by part of the state, that each step is."""
    layer, inputs, start = layer_of(problem)
    W_ih, W_hh, b, zero = (p.detach() for p in layer.double().parameters())
    cell = {nn.GRU: torch.gru_cell, nn.RNN: torch.rnn_tanh_cell}.get(type(layer))
    parts = start if isinstance(start, tuple) else (start,)
    state = tuple(part[0, examples].double() for part in parts)
    for x_t in inputs[examples].double().unbind(dim=1):

        def step(*state: Tensor, x_t: Tensor = x_t) -> tuple[Tensor, ...]:
            if cell:
                return (cell(x_t, state[0], W_ih, W_hh, b, zero),)
            # torch.lstm_cell is slow in vmap
            return lstm_step(x_t @ W_ih.T + b + state[0] @ W_hh.T, state[1])

        def push(tangents: tuple[Tensor, ...], now: tuple[Tensor, ...] = state, step: Any = step):
            return vmap(lambda *v: jvp(step, now, v)[1])(*tangents[-len(now) :])

        yield push
        state = step(*state)
