"""Every loop over steps, compiled once by numba.

All compiled functions stand in this file: numba's cache does not see changes in others. They
release the GIL; `np.dot` is SciPy's BLAS here. Letters and gate order are those of
`rnngrad.probe.cells`. t is the step of a block, G the number of gates. Arrays are C-contiguous.
"""

import math
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import wraps
from typing import Any

import numba
import numpy as np
from numba.core.caching import NullCache

_cached: list[Any] = []
_untold = threading.Lock()  # all loops are kept in one folder: one message is enough
_FASTMATH = {"reassoc", "contract"}  # sums may run in any order, so several terms are added at once


def _compiled(function: Callable[..., Any]) -> Any:
    options = {"nogil": True, "error_model": "numpy", "fastmath": _FASTMATH}
    try:
        _cached.append(numba.njit(cache=True, **options)(function))
    except RuntimeError:  # numba found no folder that it may write to
        return numba.njit(**options)(function)
    return _cached[-1]


def _loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled function that Python calls: it says so when its first call takes long."""
    compiled = _compiled(function)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            if getattr(compiled, "signatures", True):  # NUMBA_DISABLE_JIT leaves plain functions
                return compiled(*arguments)
        except SystemError as error:  # numba makes one of Ctrl-C
            root: BaseException = error
            while root.__cause__:
                root = root.__cause__
            raise type(root)(*root.args) from error
        with ThreadPoolExecutor(1) as thread:  # in the main thread Ctrl-C may crash numba
            first = thread.submit(compiled, *arguments)
            if not wait([first], 1.0).done and _untold.acquire(blocking=False):
                often = "once" if compiled.stats.cache_path else "each time, for lack of a folder"
                said = f"rnngrad: compiling the probe's loops ({often}), or loading them"
                print(said, file=sys.stderr)
            try:
                return first.result()
            except OSError:  # the folder's disk is full
                for each in _cached:
                    each._cache = NullCache()
                return thread.submit(compiled, *arguments).result()

    return call


# Rows whose sizes differ by more than 2**400 leave the quick loop: their squares could underflow.
SMALLEST_SQUARE, LARGEST_SQUARE = 2.0**-800, 2.0**800
# Limits of the largest squared row norm of J. Beyond them a pass over J puts it back to order 1.
RESCALE_BELOW, RESCALE_ABOVE = 2.0**-100, 2.0**100


@_compiled
def _gate(x):
    """s(x) and 1 - s(x), both with all digits."""
    small = math.exp(-abs(x))
    large, small = 1.0 / (1.0 + small), small / (1.0 + small)
    return (large, small) if x >= 0 else (small, large)


@_compiled
def _squash(x):
    """tanh(x) and its derivative 1 / cosh(x)^2, both with all digits."""
    size = abs(x)
    if size < 0.5:
        m = math.expm1(-2.0 * size)
        tanh, small = -m / (2.0 + m), 1.0 + m
    else:
        small = math.exp(-2.0 * size)
        tanh = (1.0 - small) / (1.0 + small)
    return math.copysign(tanh, x), 4.0 * small / ((1.0 + small) * (1.0 + small))


RNN_TANH, RNN_RELU, GRU, LSTM, LSTM_SIGMOID = range(5)  # the cells that `steps` knows


@_loop
def steps(cell, a, W_T, bias, h, c):
    """Take a block of steps; h and c (b, H) move on in place. A cell with one state has c = h.

    a (b, t, GH): the input part of the pre-activations; W_T (H, GH) and bias (GH,) add the rest.

    Returns every h (b, t, H) and the factors: mix (b, t, G, H), keep and other (b, t, H). For an
    LSTM other is `through`, for a GRU it is `new`.
    """
    B, T, GH = a.shape
    H = W_T.shape[0]
    w, path, mix = np.empty((B, GH)), np.empty((B, T, H)), np.empty((B, T, GH // H, H))
    keep, other = np.zeros((B, T, H)), np.zeros((B, T, H))
    for t in range(T):
        np.dot(h, W_T, w)
        w += bias
        for b in range(B):
            for j in range(H):
                x = a[b, t, j] + w[b, j]
                if cell == GRU:
                    r, r_less = _gate(x)
                    z, z_less = _gate(a[b, t, H + j] + w[b, H + j])
                    q = w[b, 2 * H + j]
                    n, slope = _squash(a[b, t, 2 * H + j] + r * q)
                    new = z_less * slope
                    mix[b, t, 0, j] = new * q * (r * r_less)
                    mix[b, t, 1, j] = (h[b, j] - n) * (z * z_less)
                    mix[b, t, 2, j] = new * r
                    other[b, t, j] = new
                    keep[b, t, j] = z
                    h[b, j] = z_less * n + z * h[b, j]
                elif cell in (LSTM, LSTM_SIGMOID):
                    i, i_less = _gate(x)
                    f, f_less = _gate(a[b, t, H + j] + w[b, H + j])
                    g, g_slope = _squash(a[b, t, 2 * H + j] + w[b, 2 * H + j])
                    o, o_less = _gate(a[b, t, 3 * H + j] + w[b, 3 * H + j])
                    mix[b, t, 0, j] = g * (i * i_less)
                    mix[b, t, 1, j] = c[b, j] * (f * f_less)
                    mix[b, t, 2, j] = i * g_slope
                    c[b, j] = f * c[b, j] + i * g
                    if cell == LSTM:
                        squashed, slope = _squash(c[b, j])
                    else:
                        squashed, less = _gate(c[b, j])
                        slope = squashed * less
                    mix[b, t, 3, j] = squashed * (o * o_less)
                    other[b, t, j] = o * slope
                    keep[b, t, j] = f
                    h[b, j] = o * squashed
                elif cell == RNN_TANH:
                    h[b, j], mix[b, t, 0, j] = _squash(x)
                else:  # NaN passes relu, as it does in torch
                    h[b, j] = 0.0 if x <= 0 else x
                    mix[b, t, 0, j] = 0.0 if x <= 0 else 1.0
                path[b, t, j] = h[b, j]
    return path, mix, keep, other


@_loop
def tangent_steps(W, mix, keep, through, J, exponent, lo, hi, at):
    """J_t of one example over the steps of a block, from J (rows, k) times 2**exponent.

    W (G, H, H), mix (t, G, H), keep (t, H). An LSTM has through (t, H), other cells (t, 0). The
    rows of J are d h, then d c. Any further rows are d c less the cell path.

    Returns the number of steps taken, J after them, and exponents (t,), of which the last is that
    of J. The rest leaves out the factors 2**exponents. Rows lo to hi - 1 give squared Frobenius
    norms (t,) and column sums (t, k). Then follow these rows (n, hi - lo, k) where at (t,) holds.
    Squared norms (t,) of the rows past d c are last. A step that would need a scale per row is not
    taken.
    """
    T, G, H = mix.shape
    rows, k = J.shape
    lstm = through.shape[1] > 0
    inner = G - 1 if lstm else G  # the gates through which the last state is reached
    last = H if lstm else 0  # where the last state begins
    V, P = np.empty((last + H, H)), np.empty((last + H, k))
    now, new = J.copy(), np.empty_like(J)
    exponents, squares, beyond = np.zeros(T, dtype=np.int64), np.zeros(T), np.zeros(T)
    sums, copies = np.zeros((T, k)), np.empty((at.sum(), hi - lo, k))
    copied, top = 0, 1.0
    for t in range(T):
        if top > RESCALE_ABOVE or 0 < top < RESCALE_BELOW:
            shift = math.frexp(math.sqrt(top))[1]
            now *= 2.0**-shift
            exponent += shift
        for i in range(H):
            m = mix[t, 0, i]
            for j in range(H):
                V[last + i, j] = m * W[0, i, j]
            for g in range(1, inner):
                m = mix[t, g, i]
                for j in range(H):
                    V[last + i, j] += m * W[g, i, j]
            if lstm:
                m, u = mix[t, inner, i], through[t, i]
                for j in range(H):
                    V[i, j] = m * W[inner, i, j] + u * V[H + i, j]
        np.dot(V, now[:H], P)
        top, low, lost = 0.0, np.inf, False
        for i in range(rows):
            own, f, product = i, keep[t, i % H], i if i < last + H else i - H
            if i < last:
                own, f = last + i, f * through[t, i]
            size = 0.0
            for q in range(k):
                value = P[product, q] + f * now[own, q]
                new[i, q] = value
                size += value * value
            if lo <= i < hi:
                squares[t] += size
                for q in range(k):
                    sums[t, q] += new[i, q]
                for q in range(k if at[t] else 0):
                    copies[copied, i - lo, q] = new[i, q]
            if i >= 2 * H:
                beyond[t] += size
            top = max(top, size)
            if size > 0:
                low = min(low, size)
            elif not lost:
                lost = not _truly_zero(mix[t], keep[t, i % H], through[t], now, i, own)
        if lost or not (top < LARGEST_SQUARE and low > SMALLEST_SQUARE * max(top, 1.0)):
            return t, now, exponents, squares, sums, copies, beyond
        exponents[t] = exponent
        copied += at[t]
        now, new = new, now
    return T, now, exponents, squares, sums, copies, beyond


@_compiled
def _truly_zero(mix, keep, through, now, row, own):
    """Is a new row zero because all its terms are zero, and not by underflow?

    Its terms are the old row `own`, if kept, and the old d h, if a gate lets it in.
    """
    G, H = mix.shape
    i, outer = row % H, len(through) > 0 and row < H
    reads, kept = mix[: G - 1 if len(through) else G, i].any(), keep != 0
    if outer:
        kept = kept and through[i] != 0
        reads = mix[G - 1, i] != 0 or (reads and through[i] != 0)
    return not (kept and now[own].any()) and not (reads and now[:H].any())
