"""What the classifier leaves out gives what padding every comment in full gives."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from rnngrad.data.batches import Batch, CommentBatches, Padding
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import CommentClassifier
from rnngrad.params import TrainParams

D, T = 4, 30
LENGTHS = [3, 11, 7]

MakeBatches = Callable[[Padding], CommentBatches]
MakeParams = Callable[..., TrainParams]


@pytest.fixture
def make_batches(make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]]) -> MakeBatches:
    sample, vectors = make_sample(LENGTHS, ["train"], D)
    return lambda padding: CommentBatches(sample, vectors, np.arange(3), padding, T)


def loss_and_gradients(
    model: CommentClassifier, logits: Callable[[Batch], torch.Tensor], batch: Batch
) -> list[torch.Tensor]:
    model.zero_grad()
    loss = binary_cross_entropy_with_logits(logits(batch), batch.labels)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    return [loss.detach(), *(g.clone() for g in gradients if g is not None)]


@pytest.mark.parametrize("padding", ["pre", "none"])
@pytest.mark.parametrize("initializer", ["keras", "torch"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_loss_and_gradients_equal_those_of_full_padding(
    cell: str,
    initializer: str,
    padding: Padding,
    make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]],
    make_train_params: MakeParams,
) -> None:
    """A batch of the study's own shape, padded to 1,403 steps and run through the plain module."""
    torch.manual_seed(0)
    model = CommentClassifier(cell, D, make_train_params(initializer=initializer))
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

    def in_full(batch: Batch) -> torch.Tensor:
        hidden, _ = model.recurrent(inputs)
        return model.head(hidden[torch.arange(7), last - 1]).squeeze(-1)

    ours, plain = loss_and_gradients(model, model, batch), loss_and_gradients(model, in_full, batch)
    assert len(ours) == len(plain) == 7
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_without_padding_the_state_is_read_at_the_last_word(
    cell: str, make_batches: MakeBatches, make_train_params: MakeParams
) -> None:
    torch.manual_seed(0)
    model = CommentClassifier(cell, D, make_train_params())
    batches = make_batches("none")
    together = model(batches[[0, 1, 2]])
    alone = torch.cat([model(batches[[i]]) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_padding_behind_is_read_to_its_end(
    make_batches: MakeBatches, make_train_params: MakeParams
) -> None:
    torch.manual_seed(0)
    model = CommentClassifier("lstm", D, make_train_params())
    behind, none = model(make_batches("post")[[0]]), model(make_batches("none")[[0]])
    assert abs((behind - none).item()) > 1e-4
