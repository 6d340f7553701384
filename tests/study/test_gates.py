import numpy as np
import pytest
import torch
from torch import nn

from rnngrad.study.gates import gate_histogram, memory_gate

B, T, D, H = 2, 6, 3, 4


def test_lstm_gate_is_the_factor_of_the_previous_cell_state() -> None:
    """c_t - i g = f c_{t-1}: with i g known from a run whose cell state is zero at that step."""
    torch.manual_seed(0)
    module = nn.LSTM(D, H, batch_first=True)
    inputs, h, c = torch.randn(B, T, D), torch.rand(1, B, H), torch.rand(1, B, H)
    f = torch.from_numpy(memory_gate(module, inputs, (h, c)))
    for t in range(T):
        x = inputs[:, t : t + 1]
        with_c = module(x, (h, c))[1]
        without_c = module(x, (h, torch.zeros_like(c)))[1]
        torch.testing.assert_close(
            (with_c[1] - without_c[1])[0].double(), f[:, t] * c[0], atol=1e-5, rtol=1e-5
        )
        h, c = with_c


def test_gru_gate_mixes_the_previous_hidden_state() -> None:
    """h_t = (1 - z) n + z h_{t-1} with n in (-1, 1): solved for n, nothing leaves (-1, 1)."""
    torch.manual_seed(0)
    module = nn.GRU(D, H, batch_first=True)
    inputs, h = torch.randn(B, T, D), 5 * torch.rand(1, B, H)
    z = torch.from_numpy(memory_gate(module, inputs, h))
    hidden, _ = module(inputs, h)
    previous = torch.cat([h.transpose(0, 1), hidden[:, :-1]], dim=1)
    candidate = (hidden - z * previous) / (1 - z)
    assert candidate.abs().max() < 1 + 1e-3


def test_histogram_shares_sum_to_one_and_absent_inputs_have_no_rows() -> None:
    activations = np.random.default_rng(0).random((B, T, H))
    words = np.zeros((B, T), dtype=bool)
    words[:, 3:] = True
    table = gate_histogram(activations, {"padding": ~words, "words": words})
    assert table.groupby("input")["share"].sum().to_dict() == pytest.approx(
        {"padding": 1.0, "words": 1.0}
    )
    assert table["mean"].iloc[0] == pytest.approx(activations[:, :3].mean())
    alone = gate_histogram(activations, {"padding": np.zeros_like(words), "words": words})
    assert alone["input"].unique().tolist() == ["words"]
