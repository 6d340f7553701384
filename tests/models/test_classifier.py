"""The padded prefix that is run once gives what padding every comment in full gives."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from rnngrad.data.datamodule import Batch, CommentBatches, Padding
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


def loss_and_gradients(model: CommentClassifier, batch: Batch) -> list[torch.Tensor]:
    model.zero_grad()
    loss = binary_cross_entropy_with_logits(model(batch), batch.labels)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    return [loss.detach(), *(g.clone() for g in gradients if g is not None)]


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("initializer", ["keras", "torch"])
def test_shared_prefix_equals_full_padding(
    cell: str, initializer: str, make_batches: MakeBatches, make_train_params: MakeParams
) -> None:
    torch.manual_seed(0)
    model = CommentClassifier(cell, D, make_train_params(initializer=initializer))
    with torch.no_grad():
        for parameter in model.recurrent.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    batch = make_batches("pre")[[0, 1, 2]]
    assert batch.shared_prefix == T - max(LENGTHS)
    padding = torch.zeros(3, batch.shared_prefix, D)
    full = batch._replace(
        inputs=torch.cat([padding, batch.inputs], dim=1),
        lengths=torch.full((3,), T),
        shared_prefix=0,
    )
    for ours, plain in zip(
        loss_and_gradients(model, batch), loss_and_gradients(model, full), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


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
