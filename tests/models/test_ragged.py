from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnngrad.data.batches import Batch, CommentBatches, Padding
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models import ragged, recurrent
from rnngrad.models.ragged import last_hidden_states
from rnngrad.probe import recurrence

D, H = 3, 5
MODULES = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
LENGTHS = [3, 30, 1, 4, 4, 90, 31, 2]


def plain(module: nn.RNNBase, batch: Batch) -> Tensor:
    """The module over all steps of all comments, padding included."""
    B = len(batch.labels)
    padding = batch.inputs.new_zeros(B, batch.shared_prefix, D)
    hidden = module(torch.cat([padding, batch.inputs], dim=1))[0]
    return hidden[torch.arange(B), batch.lengths + batch.shared_prefix - 1]


def outputs_and_gradients(module: nn.RNNBase, hidden: Tensor) -> list[Tensor]:
    module.zero_grad()
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    gradients = [p.grad for p in module.parameters()]
    return [hidden.detach(), *(g.clone() for g in gradients if g is not None)]


@pytest.mark.parametrize("known", [True, False], ids=["own steps", "the module"])
@pytest.mark.parametrize("max_length", [90, 200])
@pytest.mark.parametrize("padding", ["pre", "none", "post"])
@pytest.mark.parametrize("cell", MODULES)
def test_equals_the_module_over_every_padded_step(
    cell: str,
    padding: Padding,
    max_length: int,
    known: bool,
    make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not known:
        monkeypatch.setattr(ragged, "steps_of", lambda *_: None)
    sample, vectors = make_sample(LENGTHS, ["train"], D)
    everything = np.arange(len(LENGTHS))
    batch = CommentBatches(sample, vectors, everything, padding, max_length)[everything.tolist()]
    batch = batch._replace(vectors=batch.vectors.double())
    torch.manual_seed(0)
    module = MODULES[cell](D, H, batch_first=True, dtype=torch.float64)
    ours = outputs_and_gradients(module, last_hidden_states(module, batch))
    for a, b in zip(ours, outputs_and_gradients(module, plain(module, batch)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", ["pre", "none"])
def test_no_step_is_run_in_which_a_comment_is_padded(
    padding: Padding,
    make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample, vectors = make_sample(LENGTHS, ["train"], D)
    everything = np.arange(len(LENGTHS))
    batch = CommentBatches(sample, vectors, everything, padding, 90)[everything.tolist()]
    rows = []
    steps = recurrence.GRU.steps

    def counted(cell: recurrence.GRU, a: np.ndarray, *more: Any) -> None:
        rows.append(a.shape[0] * a.shape[1])
        steps(cell, a, *more)

    monkeypatch.setattr(recurrence.GRU, "steps", counted)
    monkeypatch.setattr(ragged, "states_after_padding", lambda *_: (torch.zeros(len(LENGTHS), H),))
    last_hidden_states(nn.GRU(D, H, batch_first=True), batch)
    assert sum(rows) == sum(LENGTHS)


@pytest.fixture
def batch(make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]]) -> Batch:
    """Padded in front, beyond the longest comment."""
    sample, vectors = make_sample(LENGTHS, ["train"], D)
    everything = np.arange(len(LENGTHS))
    return CommentBatches(sample, vectors, everything, "pre", 200)[everything.tolist()]


def test_a_relu_network_runs_its_module(batch: Batch) -> None:
    torch.manual_seed(0)
    module = nn.RNN(D, H, batch_first=True, nonlinearity="relu")
    ours = outputs_and_gradients(module, last_hidden_states(module, batch))
    for a, b in zip(ours, outputs_and_gradients(module, plain(module, batch)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_weight_that_changes_before_the_backward_pass_is_an_error(batch: Batch) -> None:
    module = nn.GRU(D, H, batch_first=True)
    hidden = last_hidden_states(module, batch)
    with torch.no_grad():
        module.get_parameter("weight_hh_l0").mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        hidden.sum().backward()


@pytest.mark.parametrize("cell", MODULES)
def test_cotangents_that_have_died_go_no_further(
    cell: str,
    make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = [2, 400, 350, 40]
    sample, vectors = make_sample(lengths, ["train"], D)
    everything = np.arange(len(lengths))
    batch = CommentBatches(sample, vectors, everything, "pre", 500)[everything.tolist()]
    batch = batch._replace(vectors=batch.vectors.double())
    torch.manual_seed(0)
    module = MODULES[cell](D, H, batch_first=True, dtype=torch.float64)
    rows = []
    run_back = recurrent.run_back

    def counted(*args: Any) -> np.ndarray:
        delta = run_back(*args)
        rows.append(len(delta))
        return delta

    monkeypatch.setattr(recurrent, "run_back", counted)
    ours = outputs_and_gradients(module, last_hidden_states(module, batch))
    for a, b in zip(ours, outputs_and_gradients(module, plain(module, batch)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert sum(lengths) / 10 < rows[0] < 0.8 * sum(lengths)
