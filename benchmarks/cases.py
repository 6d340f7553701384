"""The work of one case: an LSTM, its inputs and its initial state, the same for every competitor.

Needs NumPy only: the processes that know neither torch nor rnngrad read these files too.
"""

from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np

FEATURES = 100  # D, the dimension of the question's word vectors


@dataclass(frozen=True, order=True)
class Case:
    """T steps, H units, B examples."""

    steps: int
    hidden: int
    batch: int

    @property
    def label(self) -> str:
        return f"T {self.steps:,}, H {self.hidden}, batch {self.batch}"


FULL_SIZE = Case(1403, 200, 100)  # the question's
QUICK = (
    Case(50, 32, 1),
    Case(1403, 32, 1),
    Case(200, 100, 8),
    Case(1403, 200, 1),
    FULL_SIZE,
)
FULL = tuple(Case(*sizes) for sizes in product((50, 200, 400, 1403), (32, 100, 200), (1, 8, 100)))
SMOKE = (Case(12, 8, 2), Case(40, 16, 1))


@dataclass(frozen=True)
class Problem:
    """float32 arrays; gates in torch's order i, f, g, o.

    weight_ih (4H, D), weight_hh (4H, H), bias (4H,), inputs (B, T, D), h and c (B, H).
    """

    weight_ih: np.ndarray
    weight_hh: np.ndarray
    bias: np.ndarray
    inputs: np.ndarray
    h: np.ndarray
    c: np.ndarray

    @property
    def steps(self) -> int:
        return self.inputs.shape[1]

    @property
    def hidden(self) -> int:
        return self.h.shape[1]

    @property
    def batch(self) -> int:
        return len(self.h)

    def save(self, path: Path) -> None:
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def make_problem(case: Case, seed: int = 0) -> Problem:
    """The question's setting: Keras' initial weights, forget bias 1, h_0 and c_0 ~ U(0, 1).

    The inputs are N(0, 1): every step has words of its own, so nothing can be shared.
    """
    rng = np.random.default_rng(seed)
    H, D = case.hidden, FEATURES
    limit = np.sqrt(6 / (D + 4 * H))  # Glorot-uniform over the stacked gates
    bias = np.zeros(4 * H)
    bias[H : 2 * H] = 1
    arrays = (
        rng.uniform(-limit, limit, (4 * H, D)),
        np.linalg.qr(rng.standard_normal((4 * H, H)))[0],
        bias,
        rng.standard_normal((case.batch, case.steps, D), dtype=np.float32),
        rng.uniform(size=(case.batch, H)),
        rng.uniform(size=(case.batch, H)),
    )
    return Problem(*(np.ascontiguousarray(array, dtype=np.float32) for array in arrays))
