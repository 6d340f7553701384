"""Word vectors from the sample itself: positive pointwise mutual information and a truncated SVD.

Levy & Goldberg, "Neural word embedding as implicit matrix factorization" (NIPS 2014), with the
context distribution smoothed as in Levy, Goldberg & Dagan (TACL 2015)::

    PPMI[w, v] = max(0, log(n(w, v) * N / (n(w) * n_s(v)))),  n_s(v) ~ n(v)^0.75
    PPMI ~ U S V^T,  vectors = U sqrt(S)

n(w, v) counts how often v stands within ``WINDOW`` words of w. Every vector then gets the mean
length of GloVe's, since an RNN's gradients depend on the scale of its input. PPMI leaves frequent
words with vectors near zero, where GloVe's are 3.8 to 8.0 long.
"""

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from rnngrad.errors import InputError

WINDOW = 5
MIN_COUNT = 2  # a word seen less often has no statistics to speak of and goes without a vector
SMOOTHING = 0.75
LENGTH = 5.7  # the mean Euclidean norm of glove.6B.100d


def corpus_vectors(
    tokens: np.ndarray, lengths: np.ndarray, words: int, dimensions: int
) -> np.ndarray:
    """Train vectors on the tokens (total,) int32, from 1 to ``words``, of comments of ``lengths``.

    Returns:
        (words + 1, dimensions) float32, rows of norm ``LENGTH``. Row 0 is zero, and so are
        words seen fewer than ``MIN_COUNT`` times or only in comments of one word.
    """
    counts = np.bincount(tokens, minlength=words + 1)
    frequent = np.flatnonzero(counts >= MIN_COUNT)
    information = ppmi(cooccurrences(tokens, lengths, words)[frequent][:, frequent])
    if dimensions >= min(len(frequent), information.nnz):
        raise InputError(
            f"embed.dimensions is {dimensions}, but the sample has {len(frequent)} words that "
            f"occur {MIN_COUNT} times or more; lower it or give more comments"
        )
    # a fixed start vector and fixed signs: ARPACK would draw both anew
    start = np.random.default_rng(0).standard_normal(len(frequent))
    # sums over several threads are rounded in another order: their number would be in the vectors
    with threadpool_limits(1, user_api="blas"):
        left, values, _ = map(np.asarray, svds(information, k=dimensions, v0=start))
    order = np.argsort(-values)
    factors = left[:, order] * np.sqrt(values[order])
    largest = factors[np.abs(factors).argmax(axis=0), np.arange(dimensions)]
    factors *= np.where(largest < 0, -1, 1)
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    vectors = np.zeros((words + 1, dimensions), dtype=np.float32)
    # a word that only ever stands alone has no neighbour, and norm 0
    vectors[frequent] = LENGTH * factors / np.where(norms > 0, norms, 1)
    return vectors


def cooccurrences(tokens: np.ndarray, lengths: np.ndarray, words: int) -> csr_array:
    """(words + 1, words + 1), how often two words stand within the window of each other."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    total = csr_array((words + 1, words + 1), dtype=np.int32)
    for distance in range(1, WINDOW + 1):
        together = owners[:-distance] == owners[distance:]
        pairs = tokens[:-distance][together], tokens[distance:][together]
        total += coo_array((np.ones(len(pairs[0]), np.int32), pairs), shape=total.shape).tocsr()
    return (total + total.T).tocsr()


def ppmi(counts: csr_array) -> csr_array:
    """Positive pointwise mutual information of a symmetric matrix of counts."""
    totals = counts.sum(axis=1, dtype=np.float64)
    smoothed = totals**SMOOTHING
    chance = np.repeat(totals, np.diff(counts.indptr)) * smoothed[counts.indices] / smoothed.sum()
    values = np.maximum(np.log(counts.data / chance), 0)
    positive = csr_array((values, counts.indices, counts.indptr), shape=counts.shape, copy=True)
    positive.eliminate_zeros()
    return positive
