"""The floor: the matrix products that remain of the exact curves, and nothing else.

With the sum over gates taken in the matrix, a step of an example is one (2H, H) by (H, H) product:
d c and d h of the new step by d h of the old. NumPy's and torch's products differ in rate, by
machine; the better one counts.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch

from benchmarks.cases import Problem
from benchmarks.competitors import Curves

CACHE_BYTES = 8 * 2**20  # of tangents at once
TRIALS = 20


def products(problem: Problem, steps: int) -> Callable[[], Curves]:
    H, B = problem.hidden, problem.batch
    at_once = min(B, max(1, CACHE_BYTES // (4 * H * H)))
    rng = np.random.default_rng(0)
    V = rng.standard_normal((at_once, 2 * H, H), dtype=np.float32)
    J = rng.standard_normal((at_once, H, H), dtype=np.float32)
    product = best_product(V, J)

    def run() -> Curves:
        for start in range(0, B, at_once):
            n = min(at_once, B - start)
            for _ in range(steps):
                product(n)
        return Curves()

    return run


def best_product(V: np.ndarray, J: np.ndarray) -> Callable[[int], object]:
    """V[:n] @ J[:n] by whichever library is faster here."""
    out = np.empty((len(V), V.shape[1], J.shape[2]), dtype=V.dtype)
    V_t, J_t, out_t = map(torch.from_numpy, (V, J, out))

    def by_numpy(n: int) -> None:
        np.matmul(V[:n], J[:n], out=out[:n])

    def by_torch(n: int) -> None:
        torch.bmm(V_t[:n], J_t[:n], out=out_t[:n])

    return min((by_numpy, by_torch), key=lambda product: _seconds(product, len(V)))


def _seconds(product: Callable[[int], object], n: int) -> float:
    times = []
    for _ in range(TRIALS):
        start = perf_counter()
        product(n)
        times.append(perf_counter() - start)
    return min(times)
