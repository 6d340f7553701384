import math
from typing import Any

import pytest
import torch
from torch import nn

from rnngrad.models.initializers import initialize_like_keras

GATES = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4}


@pytest.mark.parametrize("make", GATES)
def test_kernels_are_glorot_and_orthogonal_over_the_stacked_gates(make: Any) -> None:
    D, H = 30, 20
    module = make(D, H, dtype=torch.float64)
    initialize_like_keras(module)
    parameters = dict(module.named_parameters())
    limit = math.sqrt(6 / (D + GATES[make] * H))
    largest = parameters["weight_ih_l0"].abs().max().item()
    assert 0.95 * limit < largest <= limit
    W = parameters["weight_hh_l0"]
    torch.testing.assert_close(W.T @ W, torch.eye(H, dtype=torch.float64))


def test_only_the_lstms_forget_gate_gets_a_bias() -> None:
    H = 5
    module = nn.LSTM(3, H, num_layers=2)
    initialize_like_keras(module, forget_bias=3.0)
    expected = torch.zeros(4 * H)
    expected[H : 2 * H] = 3.0
    for name, parameter in module.named_parameters():
        if name.startswith("bias_ih"):
            torch.testing.assert_close(parameter.data, expected)
        elif name.startswith("bias_hh"):
            assert not parameter.any()
