"""A float64 reference that shares no code with rnngrad, and how far a competitor is from it."""

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.cases import Problem
from benchmarks.competitors import Curves
from benchmarks.competitors.torch_cell import advance, projected, weights_of
from benchmarks.process import RefusedError

LIMITS = {"frobenius": 1e-5, "column_sum": 1e-4}  # relative, at every step
# No dtype is to blame for more than that over the first steps: it is another quantity.
WRONG, FIRST_STEPS = 1e-3, 20


def checked_examples(batch: int) -> list[int]:
    """Those whose reference is computed: the first, the middle and the last."""
    return sorted({0, batch // 2, batch - 1})


def reference(problem: Problem) -> Curves:
    """Curves of the checked examples: autograd's jvp of one step, in float64, scaled each step."""
    rows = checked_examples(problem.batch)
    weights = weights_of(problem, torch.float64)
    x, h, c = (torch.from_numpy(v[rows]).double() for v in (problem.inputs, problem.h, problem.c))
    dc = torch.eye(problem.hidden).double().unsqueeze(1).expand(-1, len(rows), -1)  # (k, b, i)
    dh = torch.zeros_like(dc)
    exponent = torch.zeros(len(rows), dtype=torch.int64)
    column_sums, norms = [], []
    for a_t in projected(weights, x).transpose(0, 1):
        (h, c), (dh, dc) = advance(weights, a_t, (h, c), (dh, dc))
        scale = exponent.double() * np.log10(2)
        norm = torch.linalg.vector_norm(dc, dim=(0, 2))
        column_sums.append(dc.sum(dim=2).abs().mean(dim=0).log10() + scale)
        norms.append(norm.log10() + scale)
        shift = torch.frexp(norm).exponent
        factor = torch.ldexp(torch.ones_like(norm), -shift)[:, None]
        dh, dc, exponent = dh * factor, dc * factor, exponent + shift
    return Curves(torch.stack(column_sums, dim=1).numpy(), torch.stack(norms, dim=1).numpy())


@dataclass(frozen=True)
class Accuracy:
    """Of one curve, the largest over examples and steps; relative 1 where zero was returned.

    log10_error is None where it is infinite.
    """

    relative_error: float
    log10_error: float | None
    within_limit: bool


def verify(found: Curves, steps: np.ndarray, true: Curves, batch: int) -> dict[str, Accuracy]:
    """How accurate each of the curves found at `steps` (from 1) is.

    Raises:
        RefusedError: a curve is missing, has another shape, NaN, or is off from the first steps on.
    """
    accuracies = {}
    for name, values in found._asdict().items():
        if values is not None:
            truth = getattr(true, name)[:, np.asarray(steps) - 1]
            accuracies[name] = _accuracy(name, values, truth, np.asarray(steps), batch)
    if "column_sum" not in accuracies:
        raise RefusedError("no column sums")
    return accuracies


def _accuracy(
    name: str, values: np.ndarray, truth: np.ndarray, steps: np.ndarray, batch: int
) -> Accuracy:
    if values.shape != (batch, len(steps)):
        raise RefusedError(f"{name} has shape {values.shape}, expected {(batch, len(steps))}")
    if np.isnan(values).any():
        raise RefusedError(f"{name} holds NaN")
    log10_error = np.abs(values[checked_examples(batch)] - truth)
    relative = np.abs(np.expm1((values[checked_examples(batch)] - truth) * np.log(10)))
    early = relative[:, steps <= FIRST_STEPS]
    if early.size and early.max() > WRONG:
        raise RefusedError(f"{name} is off by {early.max():.0e} in the first {FIRST_STEPS} steps")
    largest = float(log10_error.max())
    return Accuracy(
        relative_error=float(relative.max()),
        log10_error=largest if np.isfinite(largest) else None,
        within_limit=bool(relative.max() <= LIMITS[name]),
    )
