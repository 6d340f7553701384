from collections.abc import Iterable
from itertools import chain

import numpy as np
import pytest
import torch

from rnngrad.data.batches import CommentBatches, SimilarLengths
from rnngrad.params import Padding
from tiny import make_sample

D = 4
SPLITS = ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("padding", "T", "prefix", "starts", "lengths"),
    [("pre", 5, 3, [3, 0], [5, 5]), ("none", 5, 0, [0, 0], [2, 5])],
)
def test_padding_puts_zeros_where_it_says(
    padding: Padding, T: int, prefix: int, starts: list[int], lengths: list[int]
) -> None:
    sample, vectors = make_sample([2, 5, 8], SPLITS, D)
    batch = CommentBatches(sample, vectors, np.arange(3), padding, 8)[[0, 1]]
    assert batch.inputs.shape == (2, T, D)
    assert batch.shared_prefix == prefix
    assert batch.starts.tolist() == starts
    assert batch.lengths.tolist() == lengths
    assert batch.starts.dtype == batch.lengths.dtype == torch.int64
    assert batch.labels.tolist() == [0, 1]
    first = slice(T - 2, T) if padding == "pre" else slice(0, 2)
    np.testing.assert_array_equal(batch.inputs[0, first], vectors[[1, 2]])
    assert batch.inputs[0].count_nonzero() == 2 * D


def test_only_the_last_words_are_kept_of_a_long_comment() -> None:
    sample, vectors = make_sample([6], SPLITS, D)
    batch = CommentBatches(sample, vectors, np.arange(1), "none", 2)[[0]]
    np.testing.assert_array_equal(batch.inputs[0], vectors[[5, 6]])


def test_every_comment_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    lengths = np.random.default_rng(1).integers(1, 500, 103)
    sampler = SimilarLengths(lengths, 10, seed=4)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    for batches in epochs:
        assert sorted(chain(*batches)) == list(range(103))
        assert len(batches) == len(sampler) == 11
    assert epochs[0] == epochs[2] != epochs[1]


def test_batches_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(1).lognormal(3.6, 1, 1000).astype(np.int64) + 1

    def padded(batches: Iterable[list[int]]) -> int:
        return sum(lengths[batch].max() * len(batch) for batch in batches)

    at_random = np.random.default_rng(2).permutation(1000).reshape(-1, 20).tolist()
    assert padded(SimilarLengths(lengths, 20, seed=0)) < 0.6 * padded(at_random)


def test_comments_in_order_come_from_short_to_long() -> None:
    sample, vectors = make_sample([9, 3, 5, 2, 7, 4, 1, 8, 6], SPLITS, D)
    test = CommentBatches(sample, vectors, sample.indices_of("test"), "none", 6)
    batches = list(test.from_short_to_long().in_order(2))
    assert [batch.lengths.tolist() for batch in batches] == [[4, 5], [6]]
    told = test.from_short_to_long().comments
    assert told.tolist() == [5, 2, 8]
    labels = torch.cat([batch.labels for batch in batches])
    np.testing.assert_array_equal(labels, sample.labels[told])


def test_shuffled_comments_come_in_batches_of_similar_lengths() -> None:
    sample, vectors = make_sample([1, 40, 2, 41], ["train"], D)
    train = CommentBatches(sample, vectors, np.arange(4), "none", 50)
    found = [sorted(batch.lengths.tolist()) for batch in train.shuffled(2, seed=1)]
    assert sorted(found) == [[1, 2], [40, 41]]
