import numpy as np
import pytest
import torch
from ready import ready
from torch import nn

import rnngrad
from rnngrad.study.measures.gates import gates, memory_gate, trajectories
from rnngrad.study.runs.open_model import Inputs

B, T, D, H = 2, 6, 3, 4


def make_inputs(x: torch.Tensor, words: list[range]) -> Inputs:
    return Inputs(x, words, torch.full((B,), T))


def test_lstm_gate_is_the_factor_of_the_previous_cell_state() -> None:
    """c_t - i g = f c_{t-1}: with i g known from a run whose cell state is zero at that step."""
    torch.manual_seed(0)
    module = nn.LSTM(D, H, batch_first=True).double()
    inputs = torch.randn(B, T, D, dtype=torch.float64)
    h, c = torch.rand(2, 1, B, H, dtype=torch.float64).unbind()
    gates = [
        memory_gate(path)
        for path in trajectories(ready(module, make_inputs(inputs, [range(T)] * B), (h, c)))
    ]
    assert [gate.shape for gate in gates] == [(1, T, H)] * B
    f = torch.from_numpy(np.concatenate(gates))
    for t in range(T):
        x = inputs[:, t : t + 1]
        with_c = module(x, (h, c))[1]
        without_c = module(x, (h, torch.zeros_like(c)))[1]
        torch.testing.assert_close((with_c[1] - without_c[1])[0], f[:, t] * c[0])
        h, c = with_c


def test_gru_gate_mixes_the_previous_hidden_state() -> None:
    """h_t = (1 - z) n + z h_{t-1} with n in (-1, 1): solved for n, nothing leaves (-1, 1)."""
    torch.manual_seed(0)
    module = nn.GRU(D, H, batch_first=True)
    inputs, h = torch.randn(B, T, D), 5 * torch.rand(1, B, H)
    z = torch.from_numpy(
        np.concatenate(
            [*map(memory_gate, trajectories(ready(module, make_inputs(inputs, [range(T)] * B), h)))]
        )
    )
    hidden, _ = module(inputs, h)
    previous = torch.cat([h.transpose(0, 1), hidden[:, :-1]], dim=1)
    candidate = (hidden - z * previous) / (1 - z)
    assert candidate.abs().max() < 1 + 1e-3


def test_histogram_shares_sum_to_one_and_absent_inputs_have_no_rows() -> None:
    torch.manual_seed(0)
    module, inputs, h = nn.GRU(D, H, batch_first=True), torch.randn(B, T, D), torch.rand(1, B, H)
    words = np.zeros((B, T), dtype=bool)
    words[0, 3:] = words[1, 1:] = True
    table = gates(ready(module, make_inputs(inputs, [range(3, T), range(1, T)]), h))
    assert table.groupby("input")["share"].sum().to_dict() == pytest.approx(
        {"padding": 1.0, "words": 1.0}
    )
    activations = rnngrad.trajectory(module, inputs, h).gates["z"]
    for name, mask in {"padding": ~words, "words": words}.items():
        own = table[table["input"] == name]
        counts, edges = np.histogram(activations[mask], bins=len(own), range=(0, 1))
        assert own["share"].to_numpy() == pytest.approx(counts / counts.sum())
        assert own["activation"].to_numpy() == pytest.approx(edges[:-1] + 1 / (2 * len(own)))
        assert own["mean"].iloc[0] == pytest.approx(activations[mask].mean())
    alone = gates(ready(module, make_inputs(inputs, [range(T)] * B), h))
    assert alone["input"].unique().tolist() == ["words"]
