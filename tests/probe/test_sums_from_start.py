"""Column sums by cotangents to the start, against autograd and against the tangents' way."""

from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import CELLS, Case, autograd_jacobians, make, set_weights
from torch import nn

import rnngrad
from rnngrad.probe import column_sums, forward
from rnngrad.probe import curves as curves_module
from rnngrad.probe.problem import Problem, problem_of
from rnngrad.probe.sums_from_start import log10_sums_from_start

# in no order, and one of them twice
EXAMPLES = torch.tensor([1, 0, 2, 1, 0, 1, 1])
STEPS = torch.tensor([7, 0, 79, 40, 33, 7, 32])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("cell", "state"), [*((cell, "h") for cell in CELLS), ("lstm", "c"), ("lstm", "full")]
)
def test_autograd(cell: str, state: str, layers: int):
    instance = make(Case(cell, layers, batch=3, steps=80))
    problem = problem_of(instance.module, instance.inputs, instance.initial_state)
    for layer in range(layers):
        rows = problem.state_rows(state)
        found = log10_sums_from_start(problem, layer, rows, EXAMPLES, STEPS)
        jacobians = autograd_jacobians(instance, state, layer)[EXAMPLES, STEPS]
        expected = jacobians.sum(dim=1).abs().mean(dim=1).log10()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def shrinking(factor: float) -> Problem:
    torch.manual_seed(0)
    module = nn.RNN(3, 8, batch_first=True).double()
    set_weights(module, weight_hh_l0=factor * nn.init.orthogonal_(torch.empty(8, 8).double()))
    return problem_of(module, torch.zeros(1, 100, 3).double())


def test_cotangents_beyond_float64():
    problem = shrinking(1e-9)
    found = log10_sums_from_start(problem, 0, slice(0, 8), torch.tensor([0]), torch.tensor([99]))
    exact = log10_sums_from_start(
        shrinking(1), 0, slice(0, 8), torch.tensor([0]), torch.tensor([99])
    )
    torch.testing.assert_close(found, exact - 900, rtol=0, atol=1e-9)


def test_what_leaves_float64_between_two_looks_is_not_finite():
    for factor in (0.0, 1e-15):
        found = log10_sums_from_start(
            shrinking(factor), 0, slice(0, 8), torch.tensor([0]), torch.tensor([99])
        )
        assert not torch.isfinite(found).any()


@pytest.mark.usefixtures("float32_from_64")
def test_a_few_lost_sums_do_not_take_the_example_again(monkeypatch: pytest.MonkeyPatch):
    """Ragged, and in float32: where they are lost they have the digits of float64."""
    dtypes, lost = [], []
    curves_of = forward.curves_of

    def recorded(plan: Any, schedule: Any, dtype: torch.dtype) -> forward.Curves:
        dtypes.append(dtype)
        return curves_of(plan, schedule, dtype)

    def noted(*args: Any) -> torch.Tensor:
        lost.append(args[-2:])
        return log10_sums_from_start(*args)

    monkeypatch.setattr(curves_module, "curves_of", recorded)
    monkeypatch.setattr(forward, "log10_sums_from_start", noted)
    monkeypatch.setattr(column_sums, "LOST", 0.4)
    monkeypatch.setattr(column_sums.CancelledSums, "_take_again", lambda *args: None)
    instance = make(Case("lstm", hidden=64, batch=3, steps=60), torch.float32)
    lengths = [35, 60, 50]

    def curves_of_it(module: nn.RNNBase, *problem: Any) -> np.ndarray:
        found = rnngrad.jacobian_curves(
            module, *problem, state="c", lengths=lengths, statistics="column_sum"
        )
        return found.log10_column_sum

    found = curves_of_it(instance.module, instance.inputs, instance.initial_state)
    assert dtypes == [torch.float32]
    ((examples, steps),) = lost
    assert len(examples) > 3
    assert (steps < torch.tensor(lengths)[examples]).all()
    double = instance.module.double()
    state = tuple(v.double() for v in (instance.h, instance.c))
    exact = curves_of_it(double, instance.inputs.double(), state)
    assert np.abs(found - exact)[examples, steps].max() < 1e-12
