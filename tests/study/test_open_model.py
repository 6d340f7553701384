"""A run's model, and its initial state."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import CommentClassifier
from rnngrad.study.runs.open_model import initial_state, open_model, state_after
from tiny import make_run, make_sample, make_train_params

D, H = 4, 5
DRAWN = {
    "weights": "initial",
    "initializer": "keras",
    "forget_bias": 1.0,
    "units": H,
    "state_nonlinearity": "tanh",
    "steps": 24,
}
Embedding = tuple[TokenizedSample, np.ndarray]


@pytest.fixture
def embedding() -> Embedding:
    return make_sample([3, 9, 5], ["test"], D)


def test_initializers_reach_the_module(embedding: Embedding) -> None:
    def module(**changes: Any) -> nn.RNNBase:
        return open_model(make_run(**DRAWN | changes), embedding).module

    rnn = module(cell="rnn", initializer="identity", forget_bias=None)
    assert isinstance(rnn, nn.RNN)
    assert rnn.nonlinearity == "relu"
    assert torch.equal(dict(rnn.named_parameters())["weight_hh_l0"], torch.eye(H))
    chrono = module(initializer="chrono", forget_bias=None)
    i, f, _, _ = dict(chrono.named_parameters())["bias_ih_l0"].chunk(4)
    assert torch.equal(i, -f)
    assert 0 <= f.min() < f.max() <= np.log(23)
    keras = dict(module(forget_bias=3.0).named_parameters())
    assert keras["bias_ih_l0"].chunk(4)[1].tolist() == [3.0] * H
    same, other = module(forget_bias=3.0), module(forget_bias=3.0, seed=3)
    assert torch.equal(dict(same.named_parameters())["weight_hh_l0"], keras["weight_hh_l0"])
    assert not torch.equal(dict(other.named_parameters())["weight_hh_l0"], keras["weight_hh_l0"])


def test_a_file_s_weights_are_opened_with_the_logistic_unit(
    embedding: Embedding, tmp_path: Path
) -> None:
    train = make_train_params()
    classifier = CommentClassifier("gru", D, train)
    torch.save(classifier.state_dict(), tmp_path / "weights.pt")
    found = open_model(make_run(cell="gru"), embedding, tmp_path / "weights.pt", train)
    assert found.head is not None
    assert torch.equal(found.head.weight, classifier.head.weight)
    for name, value in found.module.state_dict().items():
        assert torch.equal(value, classifier.recurrent.state_dict()[name])
    assert found.inputs.x.shape == (3, 9, D)


def test_all_examples_have_the_same_initial_state() -> None:
    lstm, gru = nn.LSTM(D, H, batch_first=True), nn.GRU(D, H, batch_first=True)
    h, c = initial_state(lstm, 3, "uniform", seed=7)
    assert h.shape == c.shape == (1, 3, H)
    assert not torch.equal(h, c)
    for part in (h, c):
        assert (part == part[:, :1]).all()
        assert 0 <= part.min() < part.max() < 1
    alone = initial_state(gru, 2, "uniform", seed=7)
    assert isinstance(alone, torch.Tensor)
    assert torch.equal(alone, h[:, :2])
    zero = initial_state(lstm, 2, "zero")
    assert all(part.shape == (1, 2, H) and not part.any() for part in zero)


def test_the_state_after_inputs_is_the_module_s() -> None:
    module, x = nn.LSTM(D, H, batch_first=True), torch.randn(3, 6, D)
    h, c = state_after(module, x)
    expected = module(x)[1]
    torch.testing.assert_close((h, c), expected)
    assert not state_after(module, x[:, :0])[0].any()
