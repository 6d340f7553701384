import numpy as np
import pytest
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from rnngrad.data.corpus_vectors import WINDOW, cooccurrences, corpus_vectors, ppmi
from rnngrad.errors import InputError


def topics(comments=300, length=20, words=40, seed=0):
    """Comments on one of two topics: words 1 to 20, or words 21 to 40."""
    rng = np.random.default_rng(seed)
    half = words // 2
    return [
        (rng.integers(1, half + 1, size=length) + half * (i % 2)).astype(np.int32)
        for i in range(comments)
    ]


def joined(comments):
    return np.concatenate(comments), np.array([len(comment) for comment in comments])


def counted_by_hand(comments, words):
    counts = np.zeros((words + 1, words + 1))
    for comment in comments:
        for i, left in enumerate(comment):
            for j, right in enumerate(comment):
                counts[left, right] += 0 < abs(i - j) <= WINDOW
    return counts


def test_cooccurrences_are_counted_within_the_window_and_the_comment():
    rng = np.random.default_rng(3)
    comments = [rng.integers(1, 8, size=n).astype(np.int32) for n in (1, 2, 5, 6, 7, 12, 1)]
    found = cooccurrences(*joined(comments), 7).toarray()
    np.testing.assert_array_equal(found, counted_by_hand(comments, 7))


def test_ppmi_of_a_small_matrix():
    counts = np.array([[0.0, 4, 1], [4, 2, 0], [1, 0, 0]])
    totals = counts.sum(axis=1)
    smoothed = totals**0.75 / (totals**0.75).sum()
    with np.errstate(divide="ignore"):
        expected = np.maximum(np.log(counts / np.outer(totals, smoothed)), 0)
    np.testing.assert_allclose(ppmi(csr_array(counts)).toarray(), expected, atol=1e-12)


def test_words_of_one_topic_point_the_same_way():
    vectors = corpus_vectors(*joined(topics()), 40, dimensions=10)
    cosines = vectors[1:] @ vectors[1:].T / 5.7**2
    same, other = cosines[:20, :20], cosines[:20, 20:]
    assert same[~np.eye(20, dtype=bool)].mean() > other.mean() + 0.2


def test_shape_length_and_zero_rows():
    comments = [*topics(), np.array([41], dtype=np.int32), *[np.array([42], dtype=np.int32)] * 2]
    vectors = corpus_vectors(*joined(comments), 42, dimensions=10)
    assert vectors.shape == (43, 10)
    assert vectors.dtype == np.float32
    norms = np.linalg.norm(vectors, axis=1)
    # the padding, a word seen once, and one that always stands alone
    assert norms[[0, 41, 42]].tolist() == [0, 0, 0]
    assert norms[1:41] == pytest.approx(np.full(40, 5.7), rel=1e-5)


@pytest.mark.parametrize(
    ("comments", "words"),
    [
        (topics(words=8), 8),
        ([np.array([1, 2, 3, 1, 2, 3], dtype=np.int32)], 3),
        # words enough, but none has a neighbour
        ([np.array([1 + i % 20], dtype=np.int32) for i in range(60)], 20),
    ],
)
def test_too_few_words_for_the_dimensions(comments, words):
    with pytest.raises(
        InputError, match=r"embed\.dimensions is 10, but the sample has .* lower it"
    ):
        corpus_vectors(*joined(comments), words, dimensions=10)


def test_the_number_of_threads_is_not_in_the_vectors():
    rng = np.random.default_rng(5)
    frequency = 1 / np.arange(1, 6001)
    words = rng.choice(6000, size=(800, 90), p=frequency / frequency.sum()) + 1
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(corpus_vectors(*joined(words.astype(np.int32)), 6000, 100))
    np.testing.assert_array_equal(*found)
