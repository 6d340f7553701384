"""One-step Jacobians against autograd, and their spectral radii against whole curves."""

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnngrad
from rnngrad.models.classifier import RECURRENT
from rnngrad.models.initializers import initialize_like_keras
from rnngrad.study.evidence.linearised import (
    rate_at,
    rate_at_settled_state,
    rate_at_zero_state,
    state_at,
)

D, H = 3, 4


def make(cell: str, H: int = H) -> nn.RNNBase:
    torch.manual_seed(0)
    return RECURRENT[cell](D, H, batch_first=True).double()


def random_state(module: nn.RNNBase, examples: int) -> Tensor | tuple[Tensor, Tensor]:
    shape = (1, examples, module.hidden_size)
    h, c = torch.rand(2, *shape, dtype=torch.float64).unbind()
    return (h, c) if isinstance(module, nn.LSTM) else h


def last_steps(
    module: nn.RNNBase, examples: int, steps: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """States before and after the last of some zero inputs, from states of their own."""
    zeros = torch.zeros(1, steps, D, dtype=torch.float64)
    paths = [rnngrad.trajectory(module, zeros, random_state(module, 1)) for _ in range(examples)]
    return [(state_at(path, steps - 1), state_at(path, steps)) for path in paths]


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_rate_at_a_state_is_that_of_autograd_s_jacobian(cell: str) -> None:
    module = make(cell)
    before = torch.rand(2 * H if cell == "lstm" else H, dtype=torch.float64)

    def step(s: Tensor) -> Tensor:
        parts = [part.reshape(1, 1, H) for part in s.split(H)]
        start = (parts[0], parts[1]) if len(parts) == 2 else parts[0]
        after = module(torch.zeros(1, 1, D, dtype=torch.float64), start)[1]
        return torch.cat([part.flatten() for part in after])

    M = cast("Tensor", torch.autograd.functional.jacobian(step, before))
    expected = torch.linalg.eigvals(M).abs().max().log10().item()
    assert rate_at(module, before.numpy()) == pytest.approx(expected, abs=1e-9)


def test_keras_lstm_at_the_zero_state_is_the_gate_and_a_quarter_of_its_kernel() -> None:
    """dc_t = (sigmoid(1) I + 0.25 U_g) dc_(t-1)."""
    module = make("lstm", 30)
    initialize_like_keras(module)
    U_g = cast("Tensor", module.weight_hh_l0).detach()[60:90]
    gate = torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))
    expected = torch.linalg.eigvals(gate * torch.eye(30).double() + 0.25 * U_g).abs().max().log10()
    assert rate_at_zero_state(module) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_settled_rate_is_that_of_the_curve(cell: str) -> None:
    module = make(cell)
    zeros = torch.zeros(1, 400, D, dtype=torch.float64)
    state = random_state(module, 1)
    curve = rnngrad.jacobian_curves(module, zeros, state, state="full").log10_frobenius
    measured = (curve[0, -1] - curve[0, 199]) / 200
    found = rate_at_settled_state(module, last_steps(module, 2, 400))
    # complex eigenvalues make the norm swing: their phase is left over
    assert found == pytest.approx(measured, abs=3e-3)


def test_states_of_rest_with_rates_of_their_own_are_averaged() -> None:
    """h = tanh(2 h) comes to rest on either side of zero; a bias makes the two sides differ."""
    module = nn.RNN(D, 1, batch_first=True).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        dict(module.named_parameters())["weight_hh_l0"].fill_(2.0)
        dict(module.named_parameters())["bias_ih_l0"].fill_(0.2)
    ends, rates = [], []
    for start in (0.9, -0.9, -0.8):
        zeros, h = torch.zeros(1, 300, D).double(), torch.full((1, 1, 1), start).double()
        path = rnngrad.trajectory(module, zeros, h)
        ends.append((state_at(path, 299), state_at(path, 300)))
        rates.append(np.log10(2 * (1 - path.h[0, -1, 0] ** 2)))
    assert abs(rates[0] - rates[1]) > 0.1
    assert rate_at_settled_state(module, ends) == pytest.approx(np.mean(rates), abs=1e-9)


def test_a_state_that_still_moves_has_no_rate() -> None:
    module = make("lstm")
    assert np.isnan(rate_at_settled_state(module, last_steps(module, 1, 5)))
    assert np.isnan(rate_at_settled_state(module, []))
