"""The sample as numbers: what training and probe read. Needs NumPy only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from rnngrad.stage import read_output

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TokenizedSample:
    """``n`` comments as tokens, one behind the other without padding.

    Attributes:
        tokens: (total,) int32, rows of the vectors; from 1 on, since row 0 is the padding.
        offsets: (n + 1,) int64; comment ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``, not empty.
        labels: (n,) int8, 0 or 1.
        splits: (n,) str, one of `SPLITS`.
        telling_distance: (n,) float32, tokens after the last telling word; NaN where unknown.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    telling_distance: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64, tokens of each comment."""
        return np.diff(self.offsets)

    def tokens_of(self, comment: int) -> np.ndarray:
        """(length,) int32, a view."""
        return self.tokens[self.offsets[comment] : self.offsets[comment + 1]]

    def indices_of(self, split: str) -> np.ndarray:
        """(m,) int64, the comments of a split, ascending."""
        return np.flatnonzero(self.splits == split)

    def max_length(self, limit: int | None = None) -> int:
        """``limit``, or where it is None the tokens of the longest comment."""
        return int(self.lengths.max()) if limit is None else limit

    def save(self, path: str | Path) -> None:
        """Write an .npz file, byte for byte the same for the same sample."""
        np.savez_compressed(path, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; InputError where there is something else or nothing."""

        def load(path: Path) -> Self:
            # opened here: np.load leaves a file open that it cannot read
            with path.open("rb") as file, np.load(file) as arrays:
                return cls(**arrays)

        return read_output(path, "the embed stage", load)
