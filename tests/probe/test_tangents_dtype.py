"""The tangents' dtype is the library's own choice, and good enough for every example of many."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import rnngrad


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "batch"),
    [(nn.RNN(100, 100), 32), (nn.GRU(100, 100), 8), (nn.LSTM(100, 100), 8)],
    ids=["rnn", "gru", "lstm"],
)
def test_no_example_of_many_is_off(module: nn.RNNBase, batch: int):
    """What dominates a product may all but vanish in the next steps: its rounding is left."""
    torch.manual_seed(5)
    module.reset_parameters()
    x = torch.randn(1403, batch, 100)
    statistics = "frobenius", "column_sum"
    single = rnngrad.jacobian_curves(module, x, statistics=statistics)
    double = rnngrad.jacobian_curves(module.double(), x.double(), statistics=statistics)
    for name, relative in {"log10_frobenius": 1e-5, "log10_column_sum": 1e-4}.items():
        error = np.abs(getattr(single, name) - getattr(double, name)) * math.log(10)
        assert error.max() < relative, f"{name}: {error.max():.1e}"
