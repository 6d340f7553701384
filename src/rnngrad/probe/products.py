"""Whose product is the quickest: NumPy's, torch's, or NumPy's of four rows at a time.

Small products are NumPy's: its call takes a third of torch's, and one thread is enough.

Larger ones are torch's on Intel's processors, where it brings MKL: there that takes two thirds of
the time of NumPy's, and less with more threads, which then do the rest of a step too.

On others MKL is the slower one. But before it multiplies, OpenBLAS, NumPy's, copies both matrices
into an order of its own. For few rows the copy of the weights takes as long as the product; of
small products it makes none, on processors with AVX-512. Eight to some dozens of rows are therefore
multiplied four at a time. And larger products take NumPy's own threads, which torch's, waiting
actively, keep from working; where torch has several, they are torch's.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rnngrad.probe.processor import is_intel

Array = NDArray[np.floating[Any]]

# Multiplications up to which MKL is no quicker, and OpenBLAS copies nothing: see its
# kernel/x86_64/*_small_kernel_permit*.
SMALL_PRODUCT = 10**6
TOGETHER = 4  # rows that fill the registers of such a kernel
MOST_ROWS = 64  # from about 100 on the copy no longer matters
# Multiplications that OpenBLAS leaves to one thread in any case, of matrices and by a vector.
ONE_THREAD, ONE_THREAD_VECTOR = 2**18, 9 * 2**10


def _copies_nothing() -> bool:
    """Has NumPy's OpenBLAS such kernels for this processor?"""
    built_with = np.show_config(mode="dicts").get("Build Dependencies", {})
    blas = built_with.get("blas", {}).get("name", "")
    return "openblas" in blas and torch.backends.cpu.get_cpu_capability() == "AVX512"


MKL_IS_QUICKER = torch.backends.mkl.is_available() and is_intel()
SMALL_KERNELS = _copies_nothing()


def multiply_rows(rows: Array, W: Array, out: Array) -> None:
    """out (n, m) = rows (n, k) W (k, m), all of one dtype, rows of `out` contiguous."""
    n = len(rows)
    if MKL_IS_QUICKER and n * W.size > SMALL_PRODUCT:
        torch.mm(*(torch.from_numpy(v) for v in (rows, W)), out=torch.from_numpy(out))
        return
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


def numpy_is_quicker(*sizes: int) -> bool:
    """Is NumPy's product of (m, k) by (k, n), or of a stack of them, quicker than torch's?"""
    if takes_one_thread(*sizes):
        return True
    return not MKL_IS_QUICKER and torch.get_num_threads() == 1


def rows_suit_numpy(rows: int, k: int, m: int) -> bool:
    """Are steps with such a product as quick in NumPy as in torch with all its threads?"""
    if takes_one_thread(rows, k, m) or torch.get_num_threads() == 1:
        return True
    return not MKL_IS_QUICKER and _in_stacks(rows, k * m)
