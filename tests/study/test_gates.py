from typing import Any

import numpy as np
import pytest
import torch
from ready import ready, words_alone
from torch import nn

import rnngrad
from rnngrad.study.measures.gates import gates

B, T, D, H = 2, 6, 3, 4


@pytest.mark.parametrize(("kind", "gate"), [(nn.LSTM, "f"), (nn.GRU, "z")])
def test_histogram_shares_sum_to_one_and_absent_inputs_have_no_rows(kind: Any, gate: str) -> None:
    module, inputs, h = kind(D, H, batch_first=True), torch.randn(B, T, D), torch.rand(1, B, H)
    start = (h, torch.rand(1, B, H)) if kind is nn.LSTM else h
    words = np.zeros((B, T), dtype=bool)
    words[0, 3:] = words[1, 1:] = True
    table = gates(
        ready(module, words_alone(inputs)._replace(words=[range(3, T), range(1, T)]), start)
    )
    assert table.groupby("input")["share"].sum().to_dict() == pytest.approx(
        {"padding": 1.0, "words": 1.0}
    )
    activations = rnngrad.trajectory(module, inputs, start).gates[gate]
    for name, mask in {"padding": ~words, "words": words}.items():
        own = table[table["input"] == name]
        counts, edges = np.histogram(activations[mask], bins=len(own), range=(0, 1))
        assert own["share"].to_numpy() == pytest.approx(counts / counts.sum())
        assert own["activation"].to_numpy() == pytest.approx(edges[:-1] + 1 / (2 * len(own)))
        assert own["mean"].iloc[0] == pytest.approx(activations[mask].mean())
    alone = gates(ready(module, words_alone(inputs), start))
    assert alone["input"].unique().tolist() == ["words"]
