"""The inputs of models, and where they read padding or words."""

import numpy as np
import pytest
import torch
from ready import opened

from rnngrad.data.batches import CommentBatches
from rnngrad.intervals import change_per_step
from rnngrad.models.classifier import RECURRENT, CommentClassifier
from rnngrad.study.runs.open_model import Inputs, inputs_of, open_passage
from tiny import make_run, make_sample, make_train_params

D, T = 3, 24
LENGTHS = [9, 4, 7, 12, 8]


@pytest.mark.parametrize("padding", ["pre", "none"])
def test_comments_are_padded_as_the_classifier_reads_them(padding: str) -> None:
    embedding = make_sample([3, 9, 5, 7, 30, 4], ["train", "test"], D)
    found = inputs_of(make_run(padding=padding, steps=None if padding == "none" else T), embedding)
    words = {"pre": (15, 17, 20), "none": (0, 0, 0)}[padding]
    assert [own.start for own in found.words] == list(words)
    assert [len(own) for own in found.words] == [9, 7, 4]
    assert found.lengths.tolist() == ([9, 7, 4] if padding == "none" else [T] * 3)
    for row, own in zip(found.x, found.words, strict=True):
        assert (row != 0).any(dim=1).tolist() == [t in own for t in range(len(row))]
    ranges = found.ranges()
    assert ranges["words"] == found.words
    ends = (9, 7, 4)
    empty = [range(end, end) for end in ends]
    assert ranges["padding"] == (empty if padding == "none" else [*map(range, words)])


def test_a_stream_has_no_padding_and_starts_again_at_its_end() -> None:
    embedding = make_sample([3, 9, 5, 7, 30, 4], ["train", "test"], D)
    run = make_run(input="stream", padding="none", steps=T, examples=2)
    stream = inputs_of(run, embedding)
    assert stream.x.shape == (2, T, D)
    assert stream.words == [range(T)] * 2
    assert (stream.x != 0).any(dim=2).all()
    assert not torch.equal(stream.x[0], stream.x[1])
    # 9 + 7 + 4 words
    assert torch.equal(stream.x[:, 20:], stream.x[:, : T - 20])


def test_inputs_that_are_no_comments() -> None:
    embedding = make_sample([3, 9], ["test"], D)
    run = make_run(input="emptied_comments", padding="none", steps=T, examples=1)
    emptied = inputs_of(run, embedding)
    assert emptied.x.shape == (1, T, D)
    assert not emptied.x.any()
    assert emptied.ranges() == {"padding": [range(T)], "words": [range(0)]}
    tokens = inputs_of(make_run(input="random_tokens", padding="none", steps=6), embedding)
    assert tokens.x.shape == (3, 6, D)
    assert 0 < tokens.x.abs().max() <= 0.05
    run = make_run(features=2)
    assert torch.equal(inputs_of(run, embedding).x, inputs_of(make_run(), embedding).x[:, :, :2])


@pytest.mark.parametrize("cell", list(RECURRENT))
def test_the_last_state_of_a_passage_is_the_one_that_is_classified(cell: str) -> None:
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    classifier = CommentClassifier(cell, D, make_train_params())
    model = opened(make_run(steps=15), classifier.recurrent)
    passage = open_passage(model, (sample, vectors), comments=2, steps=6)
    x, labels = passage.inputs.x, passage.inputs.labels
    assert labels is not None
    chosen = np.array([2, 4])  # the two shortest of six words or more
    assert x.shape == (2, 6, D)
    assert labels.tolist() == sample.labels[chosen].tolist()
    batch = CommentBatches(sample, vectors, chosen, "pre", 15)[[0, 1]]
    hidden, _ = classifier.recurrent(x, passage.start)
    torch.testing.assert_close(classifier.head(hidden[:, -1])[:, 0], classifier(batch))


def test_without_padding_the_first_words_are_read_from_zero() -> None:
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    model = opened(make_run(padding="none"), torch.nn.LSTM(D, 5, batch_first=True))
    passage = open_passage(model, (sample, vectors), comments=2, steps=6)
    expected = vectors[sample.tokens_of(2)[:6]]
    np.testing.assert_array_equal(passage.inputs.x[0].numpy(), expected)
    assert all(s.shape == (1, 2, 5) and not s.any() for s in passage.start)


def test_where_comments_are_short_or_few_the_passages_are_too() -> None:
    embedding = make_sample(LENGTHS, ["test"], D)
    module = torch.nn.RNN(D, 5, batch_first=True)
    few = open_passage(opened(make_run(), module), embedding, comments=2, steps=100)
    assert few.inputs.x.shape == (2, 9, D)
    unpadded = opened(make_run(padding="none"), module)
    everything = open_passage(unpadded, embedding, comments=9, steps=100)
    assert everything.inputs.x.shape == (5, 4, D)


def reading(words: list[range], steps: int) -> Inputs:
    return Inputs(torch.zeros(1), words, torch.full((len(words),), steps))


def test_padding_settles_for_100_steps_or_for_half_of_them() -> None:
    found = reading([range(250, 260), range(30, 260)], 260).ranges(settled=True)
    assert found["padding"] == [range(100, 250), range(15, 30)]
    assert found["words"] == [range(250, 260), range(30, 260)]


def test_the_example_with_most_of_both_inputs() -> None:
    words = [range(9, 10), range(4, 10), range(10)]
    assert reading(words, 10).most_of_both() == 1
    assert reading([range(10), range(10)], 10).most_of_both() == 0


def test_change_per_step_weighs_examples_by_their_steps() -> None:
    values = np.array([[0.0, -1.0, -2.0, -7.0, -7.0], [5.0, -np.inf, np.nan, 1.0, 3.0]])
    assert change_per_step(values, [range(3), range(3, 5)]) == pytest.approx((-2 + 2) / (2 + 1))
    assert change_per_step(values, [range(3), range(5, 5)]) == -1


def test_steps_without_a_finite_value_do_not_count() -> None:
    values = np.array([[-np.inf, -1.0, np.nan]])
    for steps in (range(2), range(1, 3), range(1, 2), range(1, 1)):
        assert np.isnan(change_per_step(values, [steps]))
