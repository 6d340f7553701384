"""Batches of embedded comments, and their order. Needs no Lightning: the probe reads them too."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.params import Padding
from rnngrad.stage import read_output


class Batch(NamedTuple):
    """B comments, D features, T steps."""

    inputs: Tensor  # (B, T, D) float32, what the network reads; zeros are padding
    starts: Tensor  # (B,) int64, the zero steps that come before a comment's first word
    lengths: Tensor  # (B,) int64, the step (counted from 1) after which the state is read
    labels: Tensor  # (B,) float32, 0 or 1
    shared_prefix: int  # zero steps before these T in every comment: not computed B times


@dataclass(eq=False)
class CommentBatches(Dataset[Batch]):
    """Embeds and pads comments; an item is a whole batch, asked for by a list of positions.

    ``pre`` padding puts zeros in front up to ``max_length``, and the network runs over them
    unmasked. ``none`` reads each comment's state at its last real word.
    """

    sample: TokenizedSample
    vectors: NDArray[np.float32]  # (V + 1, D), row 0 zeros
    comments: NDArray[np.int64]  # (n,) positions in the sample of those that this dataset has
    padding: Padding
    max_length: int  # words kept of a comment, its last ones (as Keras' pad_sequences does)

    def __len__(self) -> int:
        return len(self.comments)

    def lengths(self) -> NDArray[np.int64]:
        """(n,) words of each comment, as many as are kept of it."""
        return np.minimum(self.sample.lengths[self.comments], self.max_length)

    def __getitem__(self, positions: list[int]) -> Batch:
        chosen, pre = self.comments[positions], self.padding == "pre"
        words = [torch.from_numpy(self.sample.tokens_of(i)[-self.max_length :]) for i in chosen]
        side = "left" if pre else "right"
        tokens = pad_sequence(words, batch_first=True, padding_side=side).numpy()
        counts, T = torch.tensor([len(w) for w in words]), tokens.shape[1]
        starts = T - counts if pre else torch.zeros_like(counts)
        return Batch(
            inputs=torch.from_numpy(self.vectors[tokens]),
            starts=starts,
            lengths=starts + counts,
            labels=torch.from_numpy(self.sample.labels[chosen].astype(np.float32)),
            shared_prefix=self.max_length - T if pre else 0,
        )

    def from_short_to_long(self) -> Self:
        """The same comments in another order."""
        return replace(self, comments=self.comments[np.argsort(self.lengths(), kind="stable")])

    def in_order(self, batch_size: int) -> DataLoader[Batch]:
        order = BatchSampler(range(len(self)), batch_size, drop_last=False)
        return DataLoader(self, sampler=order, batch_size=None)

    def shuffled(self, batch_size: int, seed: int) -> DataLoader[Batch]:
        order = SimilarLengths(self.lengths(), batch_size, seed)
        return DataLoader(self, sampler=order, batch_size=None)


@dataclass(eq=False)
class SimilarLengths(Sampler[list[int]]):
    """Batches of comments whose lengths are similar, to some 5%, in random order.

    A batch costs its own longest comment, not that of the corpus. The order depends on ``seed``
    and the epoch alone, so an interrupted training resumes exactly.
    """

    lengths: NDArray[np.int64]
    batch_size: int
    seed: int
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        jitter = np.exp(0.05 * rng.standard_normal(len(self.lengths)))
        order = np.argsort(self.lengths * jitter).tolist()
        batches = [*BatchSampler(order, self.batch_size, drop_last=False)]
        rng.shuffle(batches)
        yield from batches  # resuming, Lightning asks for the iterator before it tells the epoch


def load_embedding(folder: Path) -> tuple[TokenizedSample, NDArray[np.float32]]:
    """The tokenised sample and its (V + 1, D) word vectors, as the embed stage wrote them."""
    vectors = read_output(folder / "vectors.npy", "the embed stage", np.load)
    return TokenizedSample.load(folder / "tokens.npz"), vectors
