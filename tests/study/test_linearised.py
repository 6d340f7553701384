"""One-step Jacobians against autograd, and their spectral radii against whole curves."""

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnngrad
from rnngrad.models.classifier import RECURRENT
from rnngrad.models.initializers import initialize_like_keras
from rnngrad.probe.problem import problem_of
from rnngrad.probe.trajectory import Chunk, LayerRun, run_layer
from rnngrad.study.evidence.linearised import (
    one_step_jacobians,
    rate_at_settled_state,
    rate_at_zero_state,
)
from rnngrad.study.evidence.stretches import Stretch

B, T, D, H = 2, 5, 3, 4


def make(cell: str, H: int = H) -> nn.RNNBase:
    torch.manual_seed(0)
    return RECURRENT[cell](D, H, batch_first=True).double()


def random_state(module: nn.RNNBase, examples: int) -> Tensor | tuple[Tensor, Tensor]:
    shape = (1, examples, module.hidden_size)
    h, c = torch.rand(2, *shape, dtype=torch.float64).unbind()
    return (h, c) if isinstance(module, nn.LSTM) else h


def run_of(module: nn.RNNBase, x: Tensor, state: Tensor | tuple[Tensor, Tensor]) -> LayerRun:
    problem = problem_of(module, x, state)
    with torch.no_grad():
        return run_layer(problem, Chunk(torch.arange(len(x)), problem.lengths), 0)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_one_step_jacobians_equal_autograd(cell: str) -> None:
    module = make(cell)
    x = torch.randn(B, T, D, dtype=torch.float64)
    run = run_of(module, x, random_state(module, B))
    found = one_step_jacobians(run.cell, run.path, T - 1)
    for b in range(B):
        parts = [run.path.h] if run.path.c is None else [run.path.h, run.path.c]
        before = torch.cat([part[T - 1, b] for part in parts])

        def step(s: Tensor, b: int = b) -> Tensor:
            state = [part.reshape(1, 1, H) for part in s.split(H)]
            after = module(x[b : b + 1, -1:], tuple(state) if len(state) == 2 else state[0])[1]
            return torch.cat([part.flatten() for part in after]) if len(state) == 2 else after

        expected = cast("Tensor", torch.autograd.functional.jacobian(step, before))
        torch.testing.assert_close(found[b], expected.reshape(found[b].shape))


def test_keras_lstm_at_the_zero_state_is_the_gate_and_a_quarter_of_its_kernel() -> None:
    """dc_t = (sigmoid(1) I + 0.25 U_g) dc_(t-1)."""
    module = make("lstm", 30)
    initialize_like_keras(module)
    U_g = cast("Tensor", module.weight_hh_l0).detach()[60:90]
    gate = torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))
    expected = torch.linalg.eigvals(gate * torch.eye(30).double() + 0.25 * U_g).abs().max().log10()
    cell = problem_of(module, torch.zeros(1, 1, D).double()).cells[0]
    assert rate_at_zero_state(cell) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_settled_rate_is_that_of_the_curve(cell: str) -> None:
    module = make(cell)
    zeros = torch.zeros(B, 400, D, dtype=torch.float64)
    state = random_state(module, B)
    run = run_of(module, zeros, state)
    curve = rnngrad.jacobian_curves(module, zeros, state, state="full").log10_frobenius
    measured = (curve[:, -1] - curve[:, 199]) / 200
    padding = [Stretch(b, 100, 400) for b in range(B)]
    found = rate_at_settled_state(run.cell, run.path, padding)
    # complex eigenvalues make the norm swing: their phase is left over
    assert found == pytest.approx(measured.mean(), abs=3e-3)


def test_a_state_that_still_moves_has_no_rate() -> None:
    module = make("lstm")
    run = run_of(module, torch.zeros(1, 5, D).double(), random_state(module, 1))
    assert np.isnan(rate_at_settled_state(run.cell, run.path, [Stretch(0, 2, 5)]))
    assert np.isnan(rate_at_settled_state(run.cell, run.path, []))
