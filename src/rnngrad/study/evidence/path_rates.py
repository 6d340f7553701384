"""The paths by which an LSTM's c_0 reaches c_t: through forget gates alone, or through h as well.

    d c_t / d c_0 = diag(f_t ... f_1)  +  everything that at some step went through h
                    (the cell path)       (the hidden paths)

A path enters h at a step by the factor o tanh'(c). How many such factors the paths have that make
up the gradient is the exponent with which it answers to that factor: let z multiply o tanh'(c) at
every step, then d ln ||d c_t/d c_0|| / d ln z at z = 1 is their number, each path counting by its
share of the norm. On the cell path it is 0.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import rnngrad
from rnngrad.probe import Trajectory
from rnngrad.study.evidence.linearised import rate_at_settled_state, rate_at_zero_state, state_at
from rnngrad.study.evidence.stretches import (
    Stretch,
    change_per_step,
    most_of_both,
    settled_stretches,
)
from rnngrad.study.gates import memory_gate, trajectories
from rnngrad.study.probing import ProbeInputs

PATHS = ("frobenius", "cell_path", "hidden_path")
COLUMNS = [
    "input",
    "steps",
    "total",
    "cell_path",
    "hidden_path",
    "below_largest_path",
    "gate_std",
    "tanh_factors",
    "log10_tanh_factor",
    "zero_state_rate",
    "settled_rate",
]
NUDGE = 1e-3  # of ln z, to either side
WINDOW = 200  # steps of either input on which factors are counted


def path_rates(
    module: nn.RNNBase,
    inputs: ProbeInputs,
    state: Tensor | tuple[Tensor, Tensor],
    curves: Mapping[str, NDArray[np.float64]],
) -> pd.DataFrame:
    """Rates of the paths, and what the gates do meanwhile.

    Args:
        module: an LSTM of one layer.
        inputs, state: what it reads, and (h_0, c_0), (1, B, H) each.
        curves: log10 of the Frobenius norms of d c_t/d c_0 (``frobenius``) and of its parts
            ``cell_path`` and ``hidden_path``, (B, T).

    Returns:
        A row per input (padding | words) that occurs. Columns:
        steps: how many count, over all comments; on padding the first 100 steps of a comment do
            not, except for below_largest_path.
        total, cell_path, hidden_path: decades per step.
        below_largest_path: decades by which the total lies below the larger of the two parts, the
            most at any step; negative where it is always above.
        gate_std: standard deviation of a forget gate over the steps of a comment, the median over
            units and comments.
        tanh_factors: o tanh'(c) per step on the paths that make up the gradient, over 200 steps of
            one comment on either side of the change of inputs, see :func:`tanh_factors`; NaN where
            that comment lacks this input.
        log10_tanh_factor: mean of log10 of o tanh'(c).
        zero_state_rate, settled_rate: decades per step that the one-step Jacobian predicts at the
            zero state, and at that in which padding comes to rest; NaN where it does not, and for
            words.
    """
    steps = inputs.steps()
    where = settled_stretches(steps)
    longest = most_of_both(steps)
    seen: dict[str, list[_Seen]] = {name: [] for name in where}
    factors: dict[str, float] = {}
    for example, path in enumerate(trajectories(module, inputs.inputs, state)):
        for name, stretches in where.items():
            seen[name] += [_seen(path, s.steps) for s in stretches if s.example == example]
        if example == longest:
            factors = _tanh_factors_per_step(module, inputs, example, path)
    rows = []
    for name, own in where.items():
        if own:
            row = {"input": name, "steps": sum(map(len, own))}
            row |= _decades(curves, own) | _below_largest_path(curves, steps[name])
            row |= _gates(seen[name])
            row["tanh_factors"] = factors[name]
            rows.append(row | _predicted(module, seen[name] if name == "padding" else []))
    return pd.DataFrame(rows, columns=COLUMNS)


class _Seen(NamedTuple):
    """The values kept of one stretch.

    Attributes:
        log10_through: by step, mean over units of log10 of o tanh'(c).
        gate_std: by unit, standard deviation of the forget gate over the steps.
        last_step: states before and after the last step.
    """

    log10_through: NDArray[np.float64]
    gate_std: NDArray[np.float64]
    last_step: tuple[NDArray[np.float64], NDArray[np.float64]]


def _seen(path: Trajectory, steps: slice) -> _Seen:
    with np.errstate(divide="ignore"):
        log10_through = np.log10(path.factors.maps().through[0, steps]).mean(axis=1)
    spread = memory_gate(path)[0, steps].std(axis=0)
    last_step = state_at(path, steps.stop - 1), state_at(path, steps.stop)
    return _Seen(log10_through, spread, last_step)


def _decades(curves: Mapping[str, NDArray[np.float64]], where: list[Stretch]) -> dict[str, float]:
    # after the first step there is no hidden path yet
    begun = [replace(stretch, start=max(stretch.start, 1)) for stretch in where]
    total, cell_path, hidden_path = (change_per_step(curves[name], begun) for name in PATHS)
    return {"total": total, "cell_path": cell_path, "hidden_path": hidden_path}


def _below_largest_path(
    curves: Mapping[str, NDArray[np.float64]], mask: NDArray[np.bool_]
) -> dict[str, float]:
    total, cell_path, hidden_path = (curves[name][mask] for name in PATHS)
    return {"below_largest_path": float(np.max(np.maximum(cell_path, hidden_path) - total))}


def _gates(seen: list[_Seen]) -> dict[str, float]:
    spread = np.concatenate([one.gate_std for one in seen])
    return {
        "gate_std": float(np.quantile(spread, 0.5, method="lower")),
        "log10_tanh_factor": float(np.concatenate([one.log10_through for one in seen]).mean()),
    }


def _predicted(module: nn.RNNBase, padding: list[_Seen]) -> dict[str, float]:
    if not padding:
        return {"zero_state_rate": np.nan, "settled_rate": np.nan}
    return {
        "zero_state_rate": rate_at_zero_state(module),
        "settled_rate": rate_at_settled_state(module, [one.last_step for one in padding]),
    }


def _tanh_factors_per_step(
    module: nn.RNNBase, inputs: ProbeInputs, example: int, path: Trajectory
) -> dict[str, float]:
    """By kind of input, on one comment around the step at which one gives way to the other."""
    changes = np.flatnonzero(np.diff(inputs.is_word[example]))
    change = int(changes[0]) + 1 if len(changes) else 0
    window = slice(max(change - WINDOW, 0), min(change + WINDOW, inputs.inputs.shape[1]))
    h, c = (torch.from_numpy(s[None, :, window.start]) for s in (path.h, path.c))
    part = rnngrad.trajectory(module, inputs.inputs[example : example + 1, window], (h, c))
    factors = tanh_factors(part)[None]
    own = {name: mask[example, window][None] for name, mask in inputs.steps().items()}
    return {name: change_per_step(factors, w) for name, w in settled_stretches(own).items()}


def tanh_factors(path: Trajectory) -> NDArray[np.float64]:
    """The mean number of factors o tanh'(c) in the paths from c_0 to c_t: (T,) float64.

    A path counts by its share of the Frobenius norm of d c_t/d c_0. Found by a central difference
    over ln z.

    Args:
        path: of one example.
    """
    through = path.factors.maps().through[0]
    T, H = through.shape
    nudges = np.expm1([NUDGE, -NUDGE])[:, None, None]  # z - 1
    J = np.broadcast_to(np.eye(2 * H)[:, H:], (2, 2 * H, H))  # d(h, c)_t/d c_0 for either z
    log_norm, scale = np.empty((2, T)), np.zeros(2)
    with np.errstate(divide="ignore", invalid="ignore"):  # a norm of 0 has no paths to count
        for t, M in enumerate(path.jacobians(0)):
            J = M @ J
            J[:, :H] += nudges * through[t][:, None] * J[:, H:]
            norm = np.linalg.norm(J[:, H:], axis=(1, 2))
            scale += np.log(norm)
            log_norm[:, t] = scale
            J /= norm[:, None, None]
        return (log_norm[0] - log_norm[1]) / (2 * NUDGE)
