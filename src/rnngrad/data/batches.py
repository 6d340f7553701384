"""Batches of embedded comments. Needs torch and no Lightning: the probe reads them too."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.params import Padding
from rnngrad.stage import read_output


class Batch(NamedTuple):
    """B comments, D features, T steps.

    Attributes:
        inputs: (B, T, D) float32, what the network reads; zeros are padding.
        starts: (B,) int64, the zero steps that come before a comment's first word.
        lengths: (B,) int64, the step (counted from 1) after which the state is read.
        labels: (B,) float32, 0 or 1.
        shared_prefix: number of zero steps that come before these T in every comment. They are the
            same for all, so nobody needs to compute them B times.
    """

    inputs: Tensor
    starts: Tensor
    lengths: Tensor
    labels: Tensor
    shared_prefix: int


@dataclass(eq=False)
class CommentBatches(Dataset[Batch]):
    """Embeds and pads comments; an item is a whole batch, asked for by a list of positions.

    Attributes:
        sample, vectors: the tokenised comments; (V + 1, D) float32, row 0 zeros.
        comments: (n,) positions in ``sample`` that this dataset consists of.
        padding: ``pre`` puts zeros in front up to ``max_length``, and the network runs over them
            unmasked; ``none`` reads each comment's state at its last real word.
        max_length: words kept of a comment, its last ones (as Keras' pad_sequences does).
    """

    sample: TokenizedSample
    vectors: NDArray[np.float32]
    comments: NDArray[np.int64]
    padding: Padding
    max_length: int

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


def load_embedding(folder: Path) -> tuple[TokenizedSample, NDArray[np.float32]]:
    """The tokenised sample and its (V + 1, D) word vectors, as the embed stage wrote them.

    Raises:
        InputError: a file is missing or holds something else.
    """
    vectors = read_output(folder / "vectors.npy", "the embed stage", np.load)
    return TokenizedSample.load(folder / "tokens.npz"), vectors
