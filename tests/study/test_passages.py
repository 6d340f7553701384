"""Passages are read from the state in which the classifier itself reads them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rnngrad.data.batches import CommentBatches
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import CommentClassifier
from rnngrad.params import EmbedParams, TrainParams
from rnngrad.study.evidence.passages import in_float64, read_passages, some

D = 3
LENGTHS = [9, 4, 7, 12, 8]
Sample = Callable[..., tuple[TokenizedSample, np.ndarray]]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_last_state_of_a_passage_is_the_one_that_is_classified(
    cell: str,
    make_sample: Sample,
    make_embed: Callable[..., EmbedParams],
    make_train_params: Callable[..., TrainParams],
) -> None:
    torch.manual_seed(0)
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    embed = make_embed("pre", max_length=15)
    classifier = CommentClassifier(cell, D, make_train_params())
    passages = read_passages(sample, vectors, embed, comments=2, steps=6)
    chosen = np.array([2, 4])  # the two shortest of six words or more
    assert passages.inputs.shape == (2, 6, D)
    assert passages.labels.tolist() == sample.labels[chosen].tolist()
    batch = CommentBatches(sample, vectors, chosen, "pre", 15)[[0, 1]]
    hidden, _ = classifier.recurrent(passages.inputs, passages.start(classifier.recurrent))
    torch.testing.assert_close(classifier.head(hidden[:, -1])[:, 0], classifier(batch))


@pytest.mark.parametrize("padding", ["post", "none"])
def test_without_padding_in_front_the_first_words_are_read_from_zero(
    padding: str, make_sample: Sample, make_embed: Callable[..., EmbedParams]
) -> None:
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    passages = read_passages(sample, vectors, make_embed(padding), comments=2, steps=6)
    expected = vectors[sample.tokens_of(2)[:6]]
    np.testing.assert_array_equal(passages.inputs[0].numpy(), expected)
    state = passages.start(torch.nn.LSTM(D, 5, batch_first=True))
    assert all(s.shape == (1, 2, 5) and not s.any() for s in state)


def test_where_comments_are_short_or_few_the_passages_are_too(
    make_sample: Sample, make_embed: Callable[..., EmbedParams]
) -> None:
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    two = read_passages(sample, vectors, make_embed("pre"), comments=2, steps=100)
    assert two.inputs.shape == (2, 9, D)
    everything = read_passages(sample, vectors, make_embed("none"), comments=9, steps=100)
    assert everything.inputs.shape == (5, 4, D)


def test_states_of_some_examples_in_float64() -> None:
    h, c = torch.rand(1, 3, 2), torch.rand(1, 3, 2)
    picked = in_float64(some((h, c), slice(1, None)))
    assert isinstance(picked, tuple)
    assert picked[1].dtype == torch.float64
    torch.testing.assert_close(picked[1].float(), c[:, 1:])
    alone = in_float64(some(h, slice(1)))
    assert isinstance(alone, torch.Tensor)
    assert alone.shape == (1, 1, 2)
