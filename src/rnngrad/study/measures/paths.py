"""The paths by which an LSTM's c_0 reaches c_t: through forget gates alone, or through h as well.

    d c_t / d c_0 = diag(f_t ... f_1)  +  everything that at some step went through h
                    (the cell path)       (the hidden paths)

A path enters h at a step by the factor o tanh'(c). Let z multiply that factor at every step. Then
d ln ||d c_t/d c_0|| / d ln z at z = 1 is the number of such factors in the gradient's paths. Each
path counts by its share of the norm. On the cell path the number is 0.

On padding, around a state s = (h, c) that no longer moves, every step has the same Jacobian
M = d s_t / d s_(t-1). Then M^n grows or decays by log10 of M's spectral radius per step.
With Keras' initial weights, from the zero state, dc_t = (0.731 I + 0.25 W_g) dc_(t-1).
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from rnngrad.intervals import change_per_step
from rnngrad.probe import Trajectory, trajectory
from rnngrad.study.measures.gates import memory_gate, trajectories
from rnngrad.study.runs.open_model import Inputs, Opened

NUDGE = 1e-3  # ln z moves by so much to either side
WINDOW = 200  # steps of either input on which factors are counted
BEGUN = 20  # steps until the hidden paths have grown to their share
SETTLED = 1e-6  # the most that any entry of a state at rest still moves in a step

Array = NDArray[np.float64]


def paths(model: Opened, curves: Mapping[str, Array]) -> pd.DataFrame:
    """Rates of the paths of an LSTM, and what the gates do meanwhile.

    ``curves`` (B, T) are log10 of Frobenius norms: of d c_t/d c_0 (``frobenius``) and its parts
    ``cell_path`` and ``hidden_path``. A row per input (padding | words) that occurs:

    steps: how many there are, of padding without the first 100 of a comment.
    total, cell_path, hidden_path: decades per step, without the first 20 of a comment.
    below_largest_path: by how many decades the total lies below both parts at the most.
    gate_std: deviation of a forget gate over a comment, the median over units and comments.
    tanh_factors: o tanh'(c) per step on the paths that make up the gradient, on one comment around
        the change of inputs; NaN where it lacks this input.
    log10_tanh_factor: mean of log10 of o tanh'(c).
    zero_state_rate, settled_rate: decades per step that the one-step Jacobian predicts on padding,
        at the zero state and where padding comes to rest; NaN where it does not.
    """
    module, inputs = model.module, model.inputs
    ranges, counting = inputs.ranges(), inputs.ranges(settled=True)
    seen, longest = [], inputs.most_of_both()
    for b, path in enumerate(trajectories(model)):
        with np.errstate(divide="ignore"):
            log10_through = np.log10(path.factors.maps().through[0]).mean(axis=1)
        states = np.concatenate([path.h[0], path.c[0]], axis=1)  # (h, c) after t = 0 .. T steps
        for name, steps in ((name, own[b]) for name, own in counting.items() if own[b]):
            found = {"input": name, "log10_through": log10_through[steps]}
            found["spread"] = memory_gate(path)[0, steps].std(axis=0)
            found["last_step"] = states[[steps[-1], steps.stop]]
            seen.append(found)
    factors = _tanh_factors_per_step(model.of(slice(longest, longest + 1)))
    below, rows = np.maximum(curves["cell_path"], curves["hidden_path"]) - curves["frobenius"], []
    for name, found in pd.DataFrame(seen).groupby("input"):
        own, all_steps = counting[str(name)], enumerate(ranges[str(name)])
        rests, zeros = name == "padding", np.zeros(2 * module.hidden_size)
        # at first there is no hidden path, and none of its share
        begun = [range(max(steps.start, BEGUN), steps.stop) for steps in own]
        row = {
            "input": name,
            "steps": sum(map(len, own)),
            "total": change_per_step(curves["frobenius"], begun),
            "cell_path": change_per_step(curves["cell_path"], begun),
            "hidden_path": change_per_step(curves["hidden_path"], begun),
            "below_largest_path": max(below[b, own].max() for b, own in all_steps if own),
            "gate_std": np.quantile(np.concatenate([*found["spread"]]), 0.5, method="lower"),
            "tanh_factors": factors[str(name)],
            "log10_tanh_factor": np.concatenate([*found["log10_through"]]).mean(),
            "zero_state_rate": rate_at(module, zeros) if rests else np.nan,
            "settled_rate": rate_at_settled_state(module, found["last_step"]) if rests else np.nan,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def rate_at(module: nn.RNNBase, state: Array) -> float:
    """Decades per step that the step from a state (h, c) predicts, the input being zero."""
    h, c = torch.from_numpy(state).view(2, 1, 1, -1)
    path = trajectory(module, h.new_zeros(1, 1, module.input_size), (h, c))
    return float(np.log10(np.abs(np.linalg.eigvals(next(path.jacobians(0)))).max()))


def rate_at_settled_state(module: nn.RNNBase, last_steps: Iterable[Array]) -> float:
    """Decades per step that the last steps of comments' padding predict; mean over comments.

    ``last_steps`` (2, 2H) hold the states before and after each. NaN where one of them still moves.
    """
    known: list[tuple[Array, float]] = []
    for before, after in last_steps:
        if np.abs(before - after).max() > SETTLED:
            return np.nan
        same = (rate for s, rate in known if np.abs(s - after).max() < 10 * SETTLED)
        rate = next(same, None)
        known.append((after, rate_at(module, before) if rate is None else rate))
    return float(np.mean([rate for _, rate in known])) if known else np.nan


def _tanh_factors_per_step(one: Opened) -> dict[str, float]:
    """By kind of input, factors per step on one comment, around the step where words begin."""
    module, x, _ = one.problem
    (words,), path = one.inputs.words, trajectory(*one.problem)
    first, stop = max(words.start - WINDOW, 0), min(words.start + WINDOW, x.shape[1])
    h, c = (torch.from_numpy(s[None, :, first]) for s in (path.h, path.c))
    read = range(words.start - first, min(words.stop, stop) - first)
    near = Inputs(x[:, first:stop], [read], one.inputs.lengths.clamp(max=stop) - first)
    found = tanh_factors(trajectory(module, near.x, (h, c)))[None]
    return {name: change_per_step(found, own) for name, own in near.ranges(settled=True).items()}


def tanh_factors(path: Trajectory) -> NDArray[np.float64]:
    """(T,) float64, the mean number of factors o tanh'(c), by a central difference over ln z."""
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
