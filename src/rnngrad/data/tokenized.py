"""The sample as numbers: what training and probe read. Needs NumPy only."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Self

import numpy as np

from rnngrad.stage import read_output

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TokenizedSample:
    """``n`` comments as tokens, one behind the other without padding."""

    tokens: np.ndarray  # (total,) int32, rows of the vectors; from 1 on, since row 0 is the padding
    offsets: np.ndarray  # (n + 1,) int64; comment i is tokens[offsets[i]:offsets[i + 1]], not empty
    labels: np.ndarray  # (n,) int8, 0 or 1
    splits: np.ndarray  # (n,) str, one of SPLITS
    telling_distance: np.ndarray  # (n,) float32, tokens after the last telling word; NaN: unknown

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
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; InputError where there is something else or nothing."""
        # from memory: np.load leaves a file open that it cannot read
        return read_output(
            path, "the embed stage", lambda p: cls(**np.load(BytesIO(p.read_bytes())))
        )
