"""The order in which comments are learned from: batches of similar length."""

from collections.abc import Iterator

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from rnngrad.data.batches import Batch, CommentBatches, Padding
from rnngrad.data.tokenized import TokenizedSample


class SimilarLengths(Sampler[list[int]]):
    """Batches of comments of similar length, in random order, another one each epoch.

    Comments are sorted by a length that is jittered by some 5%, cut into batches, and the batches
    shuffled. A batch then costs its own longest comment, not the longest of the corpus. The order
    depends on ``seed`` and the epoch alone, so an interrupted training resumes exactly.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = np.argsort(self.lengths * np.exp(0.05 * rng.standard_normal(len(self.lengths))))
        batches = [
            order[start : start + self.batch_size].tolist()
            for start in range(0, len(order), self.batch_size)
        ]
        rng.shuffle(batches)
        # a generator starts at the first batch: resuming, Lightning asks for the iterator before it
        # tells the epoch
        yield from batches


class InOrder(Sampler[list[int]]):
    """Consecutive comments from the shortest to the longest: for evaluation."""

    def __init__(self, lengths: NDArray[np.int64], batch_size: int) -> None:
        self.order = np.argsort(lengths, kind="stable")
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.order), self.batch_size):
            yield self.order[start : start + self.batch_size].tolist()


class CommentData(pl.LightningDataModule):
    """The three splits of a tokenised sample as loaders of :class:`Batch`."""

    def __init__(
        self,
        sample: TokenizedSample,
        vectors: NDArray[np.float32],
        *,
        padding: Padding,
        max_length: int | None,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed
        self.splits = {
            split: CommentBatches(
                sample, vectors, sample.indices_of(split), padding, sample.max_length(max_length)
            )
            for split in ("train", "validation", "test")
        }

    def train_dataloader(self) -> DataLoader[Batch]:
        batches = self.splits["train"]
        order = SimilarLengths(batches.lengths(), self.batch_size, self.seed)
        return DataLoader(batches, sampler=order, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._in_order("validation")

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._in_order("test")

    def _in_order(self, split: str) -> DataLoader[Batch]:
        batches = self.splits[split]
        return DataLoader(
            batches, sampler=InOrder(batches.lengths(), 4 * self.batch_size), batch_size=None
        )

    def predicted_comments(self) -> NDArray[np.int64]:
        """Positions in the sample of the test comments, in the order of their predictions."""
        batches = self.splits["test"]
        return batches.comments[InOrder(batches.lengths(), self.batch_size).order]
