"""The work of a case: an LSTM, its inputs and its initial state, the same for every competitor.

This file needs NumPy only: the processes that know neither torch nor rnngrad read it too.
"""

from typing import NamedTuple

import numpy as np

FEATURES = 100  # D, the dimension of the question's word vectors


class Case(NamedTuple):
    """T steps, H units, B examples."""

    steps: int
    hidden: int
    batch: int

    def __str__(self) -> str:
        return f"T {self.steps:,}, H {self.hidden}, batch {self.batch}"


class Problem(NamedTuple):
    """float32 arrays; the gates are in torch's order i, f, g, o."""

    weight_ih: np.ndarray  # (4H, D)
    weight_hh: np.ndarray  # (4H, H)
    bias: np.ndarray  # (4H,)
    inputs: np.ndarray  # (B, T, D)
    h: np.ndarray  # (B, H)
    c: np.ndarray  # (B, H)

    @property
    def case(self) -> Case:
        return Case(self.inputs.shape[1], self.h.shape[1], len(self.h))


def make_problem(case: Case) -> Problem:
    """The question's setting: Keras' initial weights, forget bias 1, h_0 and c_0 ~ U(0, 1).

    The inputs are N(0, 1): every step has words of its own, so nothing can be shared.
    """
    rng = np.random.default_rng(0)
    H, D = case.hidden, FEATURES
    limit = np.sqrt(6 / (D + 4 * H))  # Glorot-uniform over the stacked gates
    arrays = (
        rng.uniform(-limit, limit, (4 * H, D)),
        np.linalg.qr(rng.standard_normal((4 * H, H)))[0],
        np.repeat([0.0, 1.0, 0.0, 0.0], H),
        rng.standard_normal((case.batch, case.steps, D), dtype=np.float32),
        rng.uniform(size=(case.batch, H)),
        rng.uniform(size=(case.batch, H)),
    )
    return Problem(*(np.ascontiguousarray(array, dtype=np.float32) for array in arrays))
