"""Products of a few rows with a weight matrix, in NumPy.

Before it multiplies, OpenBLAS copies both matrices into an order of its own. For few rows the copy
of the weights takes as long as the product; of small products it makes none, on processors with
AVX-512. Eight to some dozens of rows are therefore multiplied four at a time.

Small products also take one thread. Larger ones take NumPy's own, which torch's, waiting actively,
keep from working.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

SMALL_PRODUCT = 10**6  # multiplications; see OpenBLAS, kernel/x86_64/*_small_kernel_permit*
TOGETHER = 4  # rows that fill the registers of such a kernel
MOST_ROWS = 64  # from about 100 on the copy no longer matters
# Multiplications that OpenBLAS leaves to one thread in any case, of matrices and by a vector.
ONE_THREAD, ONE_THREAD_VECTOR = 2**18, 9 * 2**10


def _copies_nothing() -> bool:
    """Has NumPy's OpenBLAS such kernels for this processor?"""
    built_with = np.show_config(mode="dicts").get("Build Dependencies", {})
    blas = built_with.get("blas", {}).get("name", "")
    return "openblas" in blas and torch.backends.cpu.get_cpu_capability() == "AVX512"


SMALL_KERNELS = _copies_nothing()


def multiply_rows(rows: Array, W: Array, out: Array) -> None:
    """out (n, m) = rows (n, k) W (k, m), all of one dtype, rows of `out` contiguous."""
    n = len(rows)
    if not _in_stacks(n, W.size):
        rows.dot(W, out)  # np.dot takes half as long again
        return
    whole = n - n % TOGETHER
    stacks = (v[:whole].reshape(-1, TOGETHER, v.shape[1]) for v in (rows, out))
    np.matmul(next(stacks), W, out=next(stacks))
    if whole < n:
        rest = min(whole, n - 2)  # a single row would be a product by a vector
        rows[rest:].dot(W, out[rest:])


def _in_stacks(rows: int, weights: int) -> bool:
    most = SMALL_PRODUCT // weights
    return SMALL_KERNELS and TOGETHER <= most < rows <= MOST_ROWS


def takes_one_thread(*sizes: int) -> bool:
    """Is one thread enough for NumPy's product of (m, k) by (k, n)?"""
    small = SMALL_PRODUCT if SMALL_KERNELS else ONE_THREAD
    return math.prod(sizes) <= (ONE_THREAD_VECTOR if 1 in sizes else small)


def rows_take_one_thread(rows: int, k: int, m: int) -> bool:
    """Is it for `multiply_rows`?"""
    return takes_one_thread(rows, k, m) or _in_stacks(rows, k * m)
