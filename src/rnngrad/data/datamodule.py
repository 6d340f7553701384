"""The order in which comments are learned from: batches of similar length."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, DataLoader, Sampler

from rnngrad.data.batches import Batch, CommentBatches
from rnngrad.data.tokenized import SPLITS, TokenizedSample
from rnngrad.params import TrainParams


@dataclass(eq=False)
class SimilarLengths(Sampler[list[int]]):
    """Batches of comments of similar length, in random order, another one each epoch.

    Comments are sorted by a length that is jittered by some 5%, cut into batches, and the batches
    shuffled. A batch then costs its own longest comment, not the longest of the corpus. The order
    depends on ``seed`` and the epoch alone, so an interrupted training resumes exactly.
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
        # a generator starts at the first batch: resuming, Lightning asks for the iterator before it
        # tells the epoch
        yield from batches


class CommentData(pl.LightningDataModule):
    """The three splits of a tokenised sample as loaders of :class:`Batch`.

    ``params`` hold the one seed and the one padding of a model, and the size of its batches.
    Validation and test comments come from short to long.
    """

    def __init__(
        self,
        sample: TokenizedSample,
        vectors: NDArray[np.float32],
        params: TrainParams,
        max_length: int | None,
    ) -> None:
        super().__init__()
        self.batch_size = params.batch_size
        (self.seed,), (padding,) = params.seeds, params.padding
        longest = sample.max_length(max_length)
        self.train, self.validation, self.test = (
            CommentBatches(sample, vectors, sample.indices_of(split), padding, longest)
            for split in SPLITS
        )
        for split in (self.validation, self.test):
            split.comments = split.comments[np.argsort(split.lengths(), kind="stable")]

    def train_dataloader(self) -> DataLoader[Batch]:
        order = SimilarLengths(self.train.lengths(), self.batch_size, self.seed)
        return DataLoader(self.train, sampler=order, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._in_order(self.validation)

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._in_order(self.test)

    def _in_order(self, split: CommentBatches) -> DataLoader[Batch]:
        order = BatchSampler(range(len(split)), 4 * self.batch_size, drop_last=False)
        return DataLoader(split, sampler=order, batch_size=None)
