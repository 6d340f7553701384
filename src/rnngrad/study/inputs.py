"""The inputs of the study's models: comments, streams of them, nothing, or random tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from rnngrad.data.batches import CommentBatches, Padding
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.study.runs import Reads

PASSAGES = 4
# few comments have more words, and 100 steps are to be seen from more than one start
PASSAGE_STEPS = 128


class Inputs(NamedTuple):
    """B examples of T steps.

    Attributes:
        x: (B, T, D) float32, every step of the padding included.
        words: by example, the half-open range of steps (from 0) at which words are read.
        lengths: (B,) int64, the steps that count.
    """

    x: Tensor
    words: list[range]
    lengths: Tensor

    def ranges(self) -> dict[str, list[range]]:
        """By kind of input, the steps at which each example reads it; empty where it does not."""
        padding = [
            range(words.start) if words.start else range(words.stop, length)
            for words, length in zip(self.words, self.lengths.tolist(), strict=True)
        ]
        return {"padding": padding, "words": self.words}


def inputs_of(reads: Reads, sample: TokenizedSample, vectors: NDArray[np.float32]) -> Inputs:
    """The examples that ``reads`` names, the same for every model.

    Args:
        reads: what is read.
        sample: the tokenised comments.
        vectors: (V + 1, D) float32, row 0 zeros.
    """
    T, n = sample.max_length(reads.steps), reads.examples
    rng = np.random.default_rng(reads.seed)
    test = sample.indices_of("test")
    if reads.input == "comments":
        chosen = np.sort(rng.choice(test, min(n, len(test)), replace=False))
        found = padded_comments(sample, vectors, chosen, reads.padding, T)
    elif reads.input == "stream":
        # from the first comment again where all of them have fewer words
        tokens = [
            np.resize(np.concatenate([sample.tokens_of(i) for i in rng.permutation(test)]), T)
            for _ in range(n)
        ]
        found = _whole(vectors[np.stack(tokens)], range(T))
    elif reads.input == "random_tokens":
        # Keras' Embedding before training: U(-0.05, 0.05)
        table = rng.uniform(-0.05, 0.05, vectors.shape).astype(np.float32)
        found = _whole(table[rng.integers(1, len(table), (n, T))], range(T))
    else:
        found = _whole(np.zeros((n, T, vectors.shape[1]), np.float32), range(0))
    return found._replace(x=found.x[:, :, : reads.features].contiguous())


def padded_comments(
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
    chosen: NDArray[np.int64],
    padding: Padding,
    limit: int,
) -> Inputs:
    """Comments as a classifier reads them, their last ``limit`` words each."""
    comments = CommentBatches(sample, vectors, chosen, padding, limit)
    batch = comments[list(range(len(chosen)))]
    first = (batch.starts + batch.shared_prefix).tolist()
    return Inputs(
        x=pad(batch.inputs, (0, 0, batch.shared_prefix, 0)),
        words=[range(s, s + n) for s, n in zip(first, comments.lengths().tolist(), strict=True)],
        lengths=batch.lengths + batch.shared_prefix,
    )


def _whole(x: NDArray[np.float32], words: range) -> Inputs:
    B, T, _ = x.shape
    return Inputs(torch.from_numpy(x), [words] * B, torch.full((B,), T))


class Passages(NamedTuple):
    """The same number of words of several comments, none of them padding.

    Attributes:
        before: (B, S, D) float32, all that is read before the passage.
        x: (B, T, D) float32, the passage.
        labels: (B,) float32, 0 or 1.
    """

    before: Tensor
    x: Tensor
    labels: Tensor


def passages_of(
    reads: Reads,
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
    comments: int = PASSAGES,
    steps: int = PASSAGE_STEPS,
) -> Passages:
    """The shortest test comments that have ``steps`` words, padded as in ``reads``.

    Where padding is in front, their last words count, otherwise the first ones. Where there are not
    that many of the length, the longest comments count, and the steps of the shortest of them.
    """
    test, limit = sample.indices_of("test"), sample.max_length(reads.steps)
    lengths = np.minimum(sample.lengths[test], limit)
    order = np.argsort(lengths, kind="stable")
    first = min(int((lengths < steps).sum()), max(len(test) - comments, 0))
    chosen = order[first : first + comments]
    T = min(steps, int(lengths[chosen].min()))
    front = reads.padding == "pre"
    x = padded_comments(sample, vectors, test[chosen], "pre" if front else "none", limit).x
    begin = x.shape[1] - T if front else 0
    labels = torch.from_numpy(sample.labels[test[chosen]].astype(np.float32))
    return Passages(x[:, :begin], x[:, begin : begin + T], labels)


SETTLING = 100  # steps of padding after which the initial state has faded


def settled(steps: range) -> range:
    """The steps without the first 100, or without the first half where they are fewer."""
    return steps[min(SETTLING, len(steps) // 2) :]


def settled_ranges(ranges: dict[str, list[range]]) -> dict[str, list[range]]:
    """Padding once it has settled, and all of the words."""
    return ranges | {"padding": [settled(steps) for steps in ranges["padding"]]}


def most_of_both(ranges: dict[str, list[range]]) -> int:
    """The example that has the most steps of whichever input it has least of.

    An input that no example has does not count.
    """
    counts = [[len(steps) for steps in own] for own in ranges.values() if any(own)]
    return int(np.argmax(np.min(counts, axis=0)))


def change_per_step(values: NDArray[np.floating], ranges: Sequence[range]) -> float:
    """The gain per step from the first step to the last of each example's range, over all of them.

    Args:
        values: (B, T), such as log10 of a norm: the result is then in decades per step, negative
            where the norm decays.
        ranges: by example; those that start or end at no finite value do not count.

    Returns:
        NaN where no step counts.
    """
    gained, steps = 0.0, 0
    for row, own in zip(values, ranges, strict=True):
        if len(own) > 1 and np.isfinite(row[[own[0], own[-1]]]).all():
            gained += float(row[own[-1]]) - float(row[own[0]])
            steps += len(own) - 1
    return gained / steps if steps else np.nan
