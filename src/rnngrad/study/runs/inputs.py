"""The inputs of the study's models, and the steps at which they read padding or words."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from rnngrad.data.batches import CommentBatches
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.study.runs import Run

SETTLING = 100  # steps of padding after which the initial state has faded

Embedding = tuple[TokenizedSample, NDArray[np.float32]]  # (V + 1, D) word vectors, row 0 zeros
Ranges = dict[str, list[range]]


class Inputs(NamedTuple):
    """B examples of T steps.

    Attributes:
        x: (B, T, D) float32; padding is there step by step.
        words: by example, the steps (from 0) at which words are read.
        lengths: (B,) int64, the steps that count.
        labels: (B,) float32 of comments; None of other inputs.
    """

    x: Tensor
    words: list[range]
    lengths: Tensor
    labels: Tensor | None = None

    def of(self, examples: slice) -> "Inputs":
        """Those of some of the examples."""
        labels = None if self.labels is None else self.labels[examples]
        return Inputs(self.x[examples], self.words[examples], self.lengths[examples], labels)

    def ranges(self) -> Ranges:
        """By kind of input, the steps at which each example reads it; there may be none."""
        ends = zip(self.words, self.lengths.tolist(), strict=True)
        padding = [range(own.start) if own.start else range(own.stop, end) for own, end in ends]
        return {"padding": padding, "words": self.words}


def inputs_of(run: Run, embedding: Embedding) -> Inputs:
    """The inputs of a run, the same for every model."""
    sample, vectors = embedding
    T, n, test = sample.max_length(run.steps), run.examples, sample.indices_of("test")
    rng = np.random.default_rng(run.inputs_seed)
    if run.input == "comments":
        chosen = np.sort(rng.choice(test, min(n, len(test)), replace=False))
        found = padded_comments(run, embedding, chosen)
    elif run.input == "stream":
        # from the first comment again where all of them have fewer words
        streams = (
            np.resize(np.concatenate([sample.tokens_of(i) for i in rng.permutation(test)]), T)
            for _ in range(n)
        )
        found = _unpadded(torch.from_numpy(vectors[np.stack([*streams])]), range(T))
    elif run.input == "random_tokens":
        # Keras' Embedding before training: U(-0.05, 0.05)
        table = rng.uniform(-0.05, 0.05, vectors.shape).astype(np.float32)
        found = _unpadded(torch.from_numpy(table[rng.integers(1, len(table), (n, T))]), range(T))
    else:
        found = _unpadded(torch.zeros(n, T, vectors.shape[1]), range(0))
    return found._replace(x=found.x[:, :, : run.features].contiguous())


def _unpadded(x: Tensor, words: range) -> Inputs:
    return Inputs(x, [words] * len(x), torch.full((len(x),), x.shape[1]))


def padded_comments(run: Run, embedding: Embedding, chosen: NDArray[np.int64]) -> Inputs:
    """Comments as a classifier reads them, given by their positions in the sample."""
    limit = embedding[0].max_length(run.steps)
    comments = CommentBatches(*embedding, chosen, run.padding, limit)
    batch = comments[list(range(len(chosen)))]
    first = (batch.starts + batch.shared_prefix).tolist()
    words = [range(s, s + n) for s, n in zip(first, comments.lengths().tolist(), strict=True)]
    x = pad(batch.inputs, (0, 0, batch.shared_prefix, 0))
    return Inputs(x, words, batch.lengths + batch.shared_prefix, batch.labels)


def passage_of(
    run: Run, embedding: Embedding, comments: int = 4, steps: int = 128
) -> tuple[Tensor, Inputs]:
    """The same number of words of several comments, behind what is read before them.

    These are the shortest test comments that have ``steps`` words. Their last words count where
    padding is in front, the first ones otherwise. Where there are too few such comments the longest
    ones count, with the steps of the shortest of them. Few comments have more words, and 100 steps
    are to be seen from more than one start.
    """
    sample = embedding[0]
    test = sample.indices_of("test")
    lengths = np.minimum(sample.lengths[test], sample.max_length(run.steps))
    order = np.argsort(lengths, kind="stable")
    first = min(int((lengths < steps).sum()), max(len(test) - comments, 0))
    chosen = order[first : first + comments]
    T = min(steps, int(lengths[chosen].min()))
    x, _, _, labels = padded_comments(run, embedding, test[chosen])
    begin = x.shape[1] - T if run.padding == "pre" else 0
    words = _unpadded(x[:, begin : begin + T], range(T))
    return x[:, :begin], words._replace(labels=labels)


def settled_ranges(ranges: Ranges) -> Ranges:
    """All words; and padding without its first 100 steps, or its first half if it has fewer."""
    settled = [own[min(SETTLING, len(own) // 2) :] for own in ranges["padding"]]
    return ranges | {"padding": settled}


def most_of_both(ranges: Ranges) -> int:
    """The example that has the most steps of whichever input it has least of.

    An input that no example has does not count.
    """
    counts = [[len(steps) for steps in own] for own in ranges.values() if any(own)]
    return int(np.argmax(np.min(counts, axis=0)))
