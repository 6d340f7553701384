from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnngrad.data.batches import Batch, CommentBatches, Padding
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models import ragged
from rnngrad.models.ragged import groups, last_hidden_states

D, H = 3, 5
MODULES = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
LENGTHS = [3, 30, 1, 4, 4, 90, 31, 2]


def price(lengths: list[int], cuts: list[int], call_cost: float) -> float:
    ends = [*cuts[1:], len(lengths)]
    rows = sum(lengths[a] * (b - a) for a, b in zip(cuts, ends, strict=True))
    return rows + call_cost * (len(cuts) - 1)


@pytest.mark.parametrize("call_cost", [0.5, 10.0, 64.0, 1000.0])
def test_no_other_groups_cost_less(call_cost: float) -> None:
    lengths = [300, 120, 110, 40, 40, 39, 12, 1, 1]
    every = (
        [0, *cuts] for n in range(len(lengths)) for cuts in combinations(range(1, len(lengths)), n)
    )
    cheapest = min(price(lengths, cuts, call_cost) for cuts in every)
    assert price(lengths, groups(lengths, call_cost), call_cost) == cheapest


def test_a_call_without_end_of_costs_leaves_one_group() -> None:
    assert groups([9, 5, 1], float("inf")) == [0]
    assert groups([7], 1.0) == [0]


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


@pytest.mark.parametrize("call_cost", [0.5, 20.0, float("inf")])
@pytest.mark.parametrize("max_length", [90, 200])
@pytest.mark.parametrize("padding", ["pre", "none", "post"])
@pytest.mark.parametrize("cell", MODULES)
def test_equals_the_module_over_every_padded_step(
    cell: str,
    padding: Padding,
    max_length: int,
    call_cost: float,
    make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ragged, "CALL_COST", call_cost)
    sample, vectors = make_sample(LENGTHS, ["train"], D)
    everything = np.arange(len(LENGTHS))
    batch = CommentBatches(sample, vectors, everything, padding, max_length)[everything.tolist()]
    batch = batch._replace(inputs=batch.inputs.double())
    torch.manual_seed(0)
    module = MODULES[cell](D, H, batch_first=True, dtype=torch.float64)
    ours = outputs_and_gradients(module, last_hidden_states(module, batch))
    for a, b in zip(ours, outputs_and_gradients(module, plain(module, batch)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", ["pre", "none"])
def test_no_step_is_run_in_which_every_comment_is_padded(
    padding: Padding,
    make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ragged, "CALL_COST", 0.1)
    sample, vectors = make_sample(LENGTHS, ["train"], D)
    everything = np.arange(len(LENGTHS))
    batch = CommentBatches(sample, vectors, everything, padding, 90)[everything.tolist()]
    module = nn.GRU(D, H, batch_first=True)
    steps = []
    module.register_forward_pre_hook(lambda _, inputs: steps.append(inputs[0].shape[:2].numel()))
    last_hidden_states(module, batch)
    assert sum(steps) == sum(LENGTHS)
