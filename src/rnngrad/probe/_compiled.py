"""Every loop over steps, compiled once by numba.

All compiled functions stand in this file: numba's cache does not see changes in others. They
release the GIL, so that Python threads run them side by side; `np.dot` is SciPy's BLAS here. The
letters and the order of the gates are those of `rnngrad.probe.cells`. Arrays are C-contiguous; b is
the example, t the step of a block, G the number of gates.
"""

import math
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import numba
import numpy as np

_FASTMATH = {"reassoc", "contract"}  # sums in any order, so that several are taken at once
_told = threading.Event()


def _compiled(function: Callable[..., Any]) -> Any:
    options = {"nogil": True, "error_model": "numpy", "fastmath": _FASTMATH}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder that it may write to
        return numba.njit(**options)(function)


def _loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled function that Python calls: it says so when its first call takes long."""
    compiled = _compiled(function)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        if compiled.signatures:
            return compiled(*arguments)
        timer = threading.Timer(1.0, _tell, [compiled.stats.cache_path])
        timer.start()
        try:
            return compiled(*arguments)
        finally:
            timer.cancel()

    return call


def _tell(cache: str | None) -> None:
    if not _told.is_set():
        _told.set()
        often = "once" if cache else "each time, for numba finds no folder to keep them in"
        print(f"rnngrad: compiling the probe's loops ({often})", file=sys.stderr)


# Rows whose sizes differ by more than 2**400 leave the quick loop: their squares could underflow.
SMALLEST_SQUARE = 2.0**-800
LARGEST_SQUARE = 2.0**800
# A matrix or a row of another size than this is put back to order 1; doing so is a pass over it.
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


@_loop
def rnn_steps(a, W_T, relu, h, path, mix):
    """All steps of a block: a (b, t, H) is the input part, h (b, H) moves on in place.

    Fills path with the states and mix with the factor phi'(a), (b, t, H) each.
    """
    B, T, H = a.shape
    z = np.empty((B, H))
    for t in range(T):
        np.dot(h, W_T, z)
        for b in range(B):
            for j in range(H):
                x = z[b, j] + a[b, t, j]
                if relu:
                    # NaN passes, as it does in torch
                    value = 0.0 if x <= 0 else x
                    slope = 0.0 if x <= 0 else 1.0
                else:
                    value, slope = _squash(x)
                h[b, j] = path[b, t, j] = value
                mix[b, t, j] = slope


@_loop
def gru_steps(a, W_T, bias_hn, h, path, mix, new, keep):
    """As `rnn_steps`; a (b, t, 3H) holds b_ih and of b_hh what belongs to r and z.

    Fills mix (b, t, 3, H), new (b, t, H), the input side of n, and keep (b, t, H).
    """
    B, T, H = path.shape
    w = np.empty((B, 3 * H))
    for t in range(T):
        np.dot(h, W_T, w)
        for b in range(B):
            for j in range(H):
                r, r_less = _gate(a[b, t, j] + w[b, j])
                z, z_less = _gate(a[b, t, H + j] + w[b, H + j])
                q = w[b, 2 * H + j] + bias_hn[j]
                n, slope = _squash(a[b, t, 2 * H + j] + r * q)
                through_n = z_less * slope
                mix[b, t, 0, j] = through_n * q * (r * r_less)
                mix[b, t, 1, j] = (h[b, j] - n) * (z * z_less)
                mix[b, t, 2, j] = through_n * r
                new[b, t, j] = through_n
                keep[b, t, j] = z
                h[b, j] = path[b, t, j] = z_less * n + z * h[b, j]


@_loop
def lstm_steps(a, W_T, sigmoid_state, h, c, path, mix, keep, through):
    """As `rnn_steps`; a (b, t, 4H), states h and c (b, H).

    Fills mix (b, t, 4, H), keep and through (b, t, H).
    """
    B, T, H = path.shape
    w = np.empty((B, 4 * H))
    for t in range(T):
        np.dot(h, W_T, w)
        for b in range(B):
            for j in range(H):
                i, i_less = _gate(a[b, t, j] + w[b, j])
                f, f_less = _gate(a[b, t, H + j] + w[b, H + j])
                g, g_slope = _squash(a[b, t, 2 * H + j] + w[b, 2 * H + j])
                o, o_less = _gate(a[b, t, 3 * H + j] + w[b, 3 * H + j])
                mix[b, t, 0, j] = g * (i * i_less)
                mix[b, t, 1, j] = c[b, j] * (f * f_less)
                mix[b, t, 2, j] = i * g_slope
                new = f * c[b, j] + i * g
                if sigmoid_state:
                    squashed, less = _gate(new)
                    slope = squashed * less
                else:
                    squashed, slope = _squash(new)
                mix[b, t, 3, j] = squashed * (o * o_less)
                keep[b, t, j] = f
                through[b, t, j] = o * slope
                c[b, j] = new
                h[b, j] = path[b, t, j] = o * squashed


@_loop
def tangent_steps(
    W, mix, keep, through, J, exponent, lo, hi, at, squares, hidden, exponents, sums, kept
):
    """J_t of one example over the steps of a block: J (rows, k) in place, times 2**exponent.

    W (G, H, H), mix (t, G, H), keep (t, H); through is (t, H) for an LSTM and (t, 0) otherwise.
    The rows are d h, those of d c, and where there are more, d c less the cell path.

    Fills for the rows lo to hi - 1: squares (t,) of their Frobenius norm, their column sums
    (t, k), exponents (t,) of both, and where at (t,) holds, the rows themselves in the next of
    kept (n, hi - lo, k). Fills hidden (t,) with the squared norm of the rows past d c.

    Returns the steps taken and the exponent. A step that would need a scale per row is not taken.
    """
    T, G, H = mix.shape
    rows, k = J.shape
    lstm = through.shape[1] > 0
    inner = G - 1 if lstm else G  # the gates through which the last state is reached
    last = H if lstm else 0
    V, P = np.empty((last + H, H)), np.empty((last + H, k))
    now, new = J, np.empty_like(J)
    taken, copied = 0, 0
    for t in range(T):
        for i in range(H):
            m = mix[t, 0, i]
            for j in range(H):
                V[last + i, j] = m * W[0, i, j]
            for g in range(1, inner):
                m = mix[t, g, i]
                for j in range(H):
                    V[last + i, j] += m * W[g, i, j]
            if lstm:
                m = mix[t, inner, i]
                for j in range(H):
                    V[i, j] = m * W[inner, i, j]
        np.dot(V, now[:H], P)
        for i in range(H):
            f = keep[t, i]
            for q in range(k):
                new[last + i, q] = P[last + i, q] + f * now[last + i, q]
            if lstm:
                u = through[t, i]
                for q in range(k):
                    new[i, q] = P[i, q] + u * new[H + i, q]
            if rows > 2 * H:
                for q in range(k):
                    new[2 * H + i, q] = P[H + i, q] + f * now[2 * H + i, q]
        total, beyond, top, low, lost = 0.0, 0.0, 0.0, np.inf, False
        for q in range(k):
            sums[t, q] = 0.0
        for i in range(rows):
            size = 0.0
            for q in range(k):
                size += new[i, q] * new[i, q]
            top = max(top, size)
            if size > 0:
                low = min(low, size)
            elif not lost:
                lost = not _truly_zero(mix, keep, through, t, now, new, i)
            if lo <= i < hi:
                total += size
                for q in range(k):
                    sums[t, q] += new[i, q]
            if i >= 2 * H:
                beyond += size
        if lost or not (top < LARGEST_SQUARE and low > SMALLEST_SQUARE * max(top, 1.0)):
            break
        squares[t], hidden[t], exponents[t] = total, beyond, exponent
        if at[t]:
            _copy(new[lo:hi], kept[copied])
            copied += 1
        if top > RESCALE_ABOVE or (0 < top < RESCALE_BELOW):
            shift = math.frexp(math.sqrt(top))[1]
            scale = 2.0**-shift
            for i in range(rows):
                for q in range(k):
                    new[i, q] *= scale
            exponent += shift
        now, new = new, now
        taken += 1
    if taken % 2:
        _copy(now, J)
    return taken, exponent


# Loops in place of NumPy's slices and masks, which would take seconds more to compile.
@_compiled
def _copy(x, target):
    for i in range(x.shape[0]):
        for q in range(x.shape[1]):
            target[i, q] = x[i, q]


@_compiled
def _any(x):
    flat = x.ravel()
    for i in range(flat.size):  # noqa: SIM110
        if flat[i] != 0:
            return True
    return False


@_compiled
def _truly_zero(mix, keep, through, t, now, new, row):
    """Is a new row zero because all that it is a sum of is zero, and not by underflow?"""
    G, H = mix.shape[1:]
    lstm = through.shape[1] > 0
    i = row % H
    if lstm and row < H:
        if through[t, i] != 0 and _any(new[H + i]):
            return False
        reads = mix[t, G - 1, i] != 0
    else:
        if keep[t, i] != 0 and _any(now[row]):
            return False
        reads = False
        for g in range(G - 1 if lstm else G):
            reads = reads or mix[t, g, i] != 0
    return not reads or not _any(now[:H])


@_loop
def deltas(mix, example, h, c, smallest, delta, norms):
    """The cotangents delta (r, GH) of the gates, of r losses at one step; norms (r,) if not ().

    mix (b, G, H), one side of the gates, of every example; example (r,): whose each loss is. h and
    c (r, H): dL/dh and, of an LSTM, the whole dL/dc; otherwise c is h. Results below `smallest`
    become 0, as in arithmetic that flushes to zero.
    """
    G, H = mix.shape[1:]
    for r in range(len(h)):
        own, top = mix[example[r]], smallest * 0
        for g in range(G):
            of = h[r] if g == G - 1 else c[r]
            for j in range(H):
                value = of[j] * own[g, j]
                size = abs(value)
                if size < smallest:
                    value = size = size * 0
                delta[r, g * H + j] = value
                top = max(top, size)
        if len(norms):
            total = 0.0
            for j in range(G * H if top > 0 else 0):
                part = delta[r, j] / top
                total += part * part
            norms[r] = top * math.sqrt(total)


@_loop
def keep_scales(cotangents, exponent, arriving):
    """Put the cotangents (p, r, H) of r losses, all p states together, to order 1 where need be.

    They are to be multiplied with 2**exponent (r,); arriving (r,) is the exponent of what will be
    added next, or very low.
    """
    for r in range(len(exponent)):
        top = 0.0
        for p in range(len(cotangents)):
            for j in range(cotangents.shape[2]):
                top = max(top, abs(cotangents[p, r, j]))
        size = math.frexp(top)[1]
        if top == 0:
            exponent[r] = max(arriving[r], -(2**30))
        elif abs(size) > 100 or arriving[r] > exponent[r] + 100:
            shift = max(size, arriving[r] - exponent[r])
            exponent[r] += shift
            factor = 2.0 ** -min(shift, 1000)
            if shift > 1000:
                factor *= 2.0 ** -min(shift - 1000, 1000)
            for p in range(len(cotangents)):
                for j in range(cotangents.shape[2]):
                    cotangents[p, r, j] *= factor
