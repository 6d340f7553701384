import numpy as np
import pytest

from rnngrad.data.demo import LONGEST, TELLING_WORDS, demo_comments
from rnngrad.data.embedding import tokenize
from rnngrad.data.sampling import replaced_count
from rnngrad.params import DemoParams


def corpus(comments_per_class=1000, label_noise=0.04, seed=1):
    return demo_comments(
        DemoParams(comments_per_class=comments_per_class, label_noise=label_noise, seed=seed)
    )


@pytest.fixture(scope="module")
def demo():
    return corpus()


@pytest.fixture(scope="module")
def counts(demo):
    return demo["text"].str.split().str.len().to_numpy()


# of the real comments
@pytest.mark.parametrize(
    ("share", "expected"), [(0.1, 8), (0.5, 36), (0.9, 149), (0.95, 225), (0.99, 618)]
)
def test_word_counts_are_those_of_real_comments(counts, share, expected):
    assert np.quantile(counts, share) == pytest.approx(expected, rel=0.03)


def test_mean_and_longest_comment(counts):
    assert counts.mean() == pytest.approx(68, rel=0.03)
    assert counts.max() == LONGEST == 1403
    assert (counts == LONGEST).sum() == 1


def test_both_classes_have_the_same_word_counts(demo, counts):
    labels = demo["label"].to_numpy()
    medians = [np.median(counts[labels == label]) for label in (0, 1)]
    assert medians[0] == pytest.approx(medians[1], rel=0.2)


def test_every_word_is_one_token(demo):
    for text in demo["text"]:
        tokens = tokenize(text)
        assert len(tokens) == len(text.split())
        assert all(token.replace("'", "").isalpha() for token in tokens)


def test_newlines_quotes_and_commas_as_in_real_comments(demo):
    shares = [demo["text"].str.contains(mark, regex=False).mean() for mark in '\n",']
    assert shares[:2] == pytest.approx([0.59, 0.32], abs=0.04)
    assert shares[2] > 0.5


def test_zipf_vocabulary_of_several_thousand_words(demo):
    tokens = [token for text in demo["text"] for token in tokenize(text)]
    words, counts = np.unique(tokens, return_counts=True)
    order = np.argsort(-counts)
    assert 4000 < len(words) < 7000
    assert words[order[0]] == "the"
    ranks = np.arange(10, 2000)
    slope, _ = np.polyfit(np.log(ranks), np.log(counts[order[ranks]]), 1)
    assert slope == pytest.approx(-1, abs=0.15)


def test_telling_words_stand_where_the_record_says(demo):
    told = 0
    for text, places in zip(demo["text"], demo["telling_words"], strict=True):
        tokens = tokenize(text)
        assert {tokens[place] for place in places} <= TELLING_WORDS
        assert np.all(np.diff(places) > 0)
        if len(places):
            told += 1
            assert len(places) == sum(token in TELLING_WORDS for token in tokens)
    assert told == 1000


def test_a_friendly_comment_has_one_telling_word_at_most_and_rarely(demo):
    friendly = demo[demo["telling_words"].str.len() == 0]["text"]
    decoys = [sum(token in TELLING_WORDS for token in tokenize(text)) for text in friendly]
    assert max(decoys) == 1
    assert 0.04 < np.mean(decoys) < 0.12


def test_most_hostile_comments_still_tell_after_the_filler(demo, counts):
    hostile = demo["telling_words"].str.len().to_numpy() > 0
    distances = []
    for count, places in zip(counts[hostile], demo["telling_words"][hostile], strict=True):
        left = places[places < count - replaced_count(int(count), 0.3)]
        distances += [count - 1 - left[-1]] if len(left) else []
    assert 0.93 < len(distances) / hostile.sum() < 1
    low, median, high = np.quantile(distances, [0.1, 0.5, 0.99])
    assert low < 10 < median < 40
    assert high > 150


@pytest.mark.parametrize("noise", [0.0, 0.04, 0.25])
def test_label_noise_flips_as_many_in_both_classes(noise):
    demo = corpus(100, noise)
    hostile = demo["telling_words"].str.len().to_numpy() > 0
    labels = demo["label"].to_numpy()
    for value in (False, True):
        assert (labels[hostile == value] != value).sum() == 100 * noise
    assert (labels == 1).sum() == 100


def test_the_seed_makes_the_corpus():
    first, again, other = corpus(50), corpus(50), corpus(50, seed=2)
    assert first.equals(again)
    assert not first["text"].equals(other["text"])


@pytest.mark.parametrize("size", [20, 21, 300])
def test_other_sizes(size):
    demo = corpus(size)
    assert demo["label"].value_counts().to_dict() == {0: size, 1: size}
    assert max(len(text.split()) for text in demo["text"]) == LONGEST
