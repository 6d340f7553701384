"""The classifier skips shared padding and gives the results of padding every comment in full."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rnngrad.data.batches import Batch, CommentBatches
from rnngrad.models.classifier import RECURRENT, CommentClassifier, last_hidden_states
from rnngrad.params import Padding
from tiny import make_sample, make_train_params

D, T = 4, 30
LENGTHS = [3, 11, 7]

MakeBatches = Callable[[Padding], CommentBatches]


@pytest.fixture
def make_batches() -> MakeBatches:
    sample, vectors = make_sample(LENGTHS, ["train"], D)
    return lambda padding: CommentBatches(sample, vectors, np.arange(3), padding, T)


def loss_and_gradients(
    model: CommentClassifier, logits: Callable[[Batch], Tensor], batch: Batch
) -> list[Tensor]:
    model.zero_grad()
    loss = binary_cross_entropy_with_logits(logits(batch), batch.labels)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    return [loss.detach(), *(g.clone() for g in gradients if g is not None)]


@pytest.mark.parametrize("padding", ["pre", "none"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_loss_and_gradients_equal_those_of_full_padding(cell: str, padding: Padding) -> None:
    """A batch of the study's own shape, padded to 1,403 steps and run through the plain module."""
    model = CommentClassifier(cell, D, make_train_params())
    with torch.no_grad():
        for parameter in model.recurrent.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    lengths = [462, 1, 30, 31, 29, 210, 36]
    sample, vectors = make_sample(lengths, ["train"], D)
    batch = CommentBatches(sample, vectors, np.arange(7), padding, 1403)[list(range(7))]
    inputs = torch.zeros(7, 1403, D)
    for row, words, n in zip(inputs, batch.inputs, lengths, strict=True):
        row[1403 - n if padding == "pre" else 0 :][:n] = words[words.any(dim=1)]
    last = torch.full((7,), 1403) if padding == "pre" else torch.tensor(lengths)

    def in_full(batch: Batch) -> Tensor:
        hidden, _ = model.recurrent(inputs)
        return model.head(hidden[torch.arange(7), last - 1]).squeeze(-1)

    ours, plain = loss_and_gradients(model, model, batch), loss_and_gradients(model, in_full, batch)
    assert len(ours) == len(plain) == 7
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_without_padding_the_state_is_read_at_the_last_word(
    cell: str, make_batches: MakeBatches
) -> None:
    model = CommentClassifier(cell, D, make_train_params())
    batches = make_batches("none")
    together = model(batches[[0, 1, 2]])
    alone = torch.cat([model(batches[[i]]) for i in range(3)])
    torch.testing.assert_close(together, alone)


MIXED = [3, 30, 1, 4, 4, 90, 31, 2]


def plain(module: nn.RNNBase, batch: Batch) -> Tensor:
    """The module over all steps of all comments, padding included."""
    B = len(batch.labels)
    padding = batch.inputs.new_zeros(B, batch.shared_prefix, D)
    hidden = module(torch.cat([padding, batch.inputs], dim=1))[0]
    return hidden[torch.arange(B), batch.lengths + batch.shared_prefix - 1]


def output_and_gradients(module: nn.RNNBase, hidden: Tensor) -> list[Tensor]:
    loss = (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum()
    return [hidden.detach(), *torch.autograd.grad(loss, list(module.parameters()))]


def mixed_batch(padding: Padding, max_length: int) -> Batch:
    sample, vectors = make_sample(MIXED, ["train"], D)
    everything = np.arange(len(MIXED))
    return CommentBatches(sample, vectors, everything, padding, max_length)[everything.tolist()]


@pytest.mark.parametrize("max_length", [90, 200])
@pytest.mark.parametrize("padding", ["pre", "none"])
@pytest.mark.parametrize("cell", RECURRENT)
def test_comments_of_all_lengths_equal_the_module_over_every_padded_step(
    cell: str, padding: Padding, max_length: int
) -> None:
    batch = mixed_batch(padding, max_length)
    batch = batch._replace(inputs=batch.inputs.double())
    module = RECURRENT[cell](D, 5, batch_first=True, dtype=torch.float64)
    ours = output_and_gradients(module, last_hidden_states(module, batch))
    for a, b in zip(ours, output_and_gradients(module, plain(module, batch)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", ["pre", "none"])
def test_short_comments_do_not_pay_for_long_ones(padding: Padding) -> None:
    """No comment runs over more than twice its words, beside the padding that is run once."""
    module = nn.GRU(D, 5, batch_first=True)
    steps = []
    module.register_forward_pre_hook(lambda _, given: steps.append(given[0].shape[:2]))
    last_hidden_states(module, mixed_batch(padding, 90))
    rows = sum(B * T for B, T in steps)
    once = 90 - min(MIXED) if padding == "pre" else 0
    assert sum(MIXED) <= rows < 2 * sum(MIXED) + once
