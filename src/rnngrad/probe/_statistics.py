"""The statistics of a Jacobian: Frobenius norm, column sum, spectral norm, as log10.

A *sketch* estimates the Frobenius norm from a few random directions. For v ~ N(0, 1) the mean of
||J v||^2 is ||J||_F^2. The mean over k directions is unbiased. It is distributed about as
||J||_F^2 chi^2_n / n with n = k nu degrees of freedom, where

    nu = (tr G)^2 / tr(G^2),  G = J^T J,

is the number of singular directions that matter: nearly H at t = 1, 1 once J has become rank one.
The log of that mean is biased by psi(n / 2) - log(n / 2) and has variance psi'(n / 2). Both are
exact for equal singular values and for rank one. The same directions estimate tr(G^2), as the mean
of (J v_a . J v_b)^2 over pairs. One to three directions say too little about nu and are refused.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from scipy import special

from rnngrad.errors import InputError
from rnngrad.probe._scaled import Array

Statistic = Literal["frobenius", "column_sum", "spectral", "hidden_path"]
HIDDEN_PATH: Statistic = "hidden_path"  # only for an LSTM's cell state, and only where asked for
MIN_DIRECTIONS, MAX_DIRECTIONS = 4, 10_000


def spectral_norm(J: Array) -> Array:
    """The largest singular value, (n,), of J (n, rows, k)."""
    # a Gram matrix costs accuracy in the small singular values, not in the largest
    largest = np.linalg.eigvalsh(J.swapaxes(-1, -2) @ J)[:, -1]
    return np.sqrt(largest.clip(0))


SIZES: dict[str, Callable[[Array], Array]] = {
    "frobenius": lambda J: np.linalg.norm(J, axis=(1, 2)),
    "column_sum": lambda J: np.abs(J.sum(axis=1)).mean(axis=1),
    "spectral": spectral_norm,
}
STATISTICS: tuple[Statistic, ...] = ("frobenius", "column_sum", "spectral")


def chosen_steps(steps: Any, time: int, name: str) -> Array:
    """The steps (time,) bool that `steps` holds, counted from 1; all of them for None."""
    every = np.arange(1, time + 1)
    chosen = every if steps is None else np.asarray(steps)
    # "O": integers too large for 64 bits
    if chosen.size and (chosen.dtype.kind not in "iuO" or chosen.ndim != 1):
        raise TypeError(f"{name} must be a sequence of integers")
    if not np.isin(chosen, every).all():
        raise InputError(f"{name} must lie in 1..{time}")
    return np.isin(every, chosen)


def wanted(
    statistics: Any, method: str, spectral_steps: Any, directions: int, time: int, paths: bool
) -> tuple[tuple[str, ...], Array, int]:
    """Check the options of a call; `paths`: has the Jacobian a hidden path of its own?

    Returns the statistics' names, the steps (time,) bool that take the spectral norm, and a count.
    It is that of the random directions that estimate the Frobenius norm, 0 for none.
    """
    names = () if not isinstance(statistics, Iterable) else tuple(statistics)
    names = (statistics,) if isinstance(statistics, str) else names
    known = (*STATISTICS, HIDDEN_PATH) if paths else STATISTICS
    if not names or any(name not in known for name in names):
        raise InputError(f"statistics={statistics!r}: use some of {', '.join(known)}")
    spectral_at = chosen_steps(spectral_steps, time, "spectral_steps")
    if str(method) not in {"exact", "sketch"}:
        raise InputError(f'method={method!r}: use "exact" or "sketch"')
    if method == "exact":
        return names, spectral_at, 0
    if "frobenius" not in names or HIDDEN_PATH in names:
        raise InputError('method="sketch" estimates "frobenius" only; for the others use "exact"')
    if not MIN_DIRECTIONS <= directions <= MAX_DIRECTIONS:
        raise InputError(
            f"directions={directions}: use {MIN_DIRECTIONS} to {MAX_DIRECTIONS}; the log of "
            'fewer is biased by up to 0.26 decades, and for more there is "exact"'
        )
    return names, spectral_at, directions


def random_start(size: int, rows: slice | Array, batch: int, count: int, seed: int) -> Array:
    """Gaussian directions (batch, size, count), zero but in some rows."""
    # directions differ between examples: an average over examples would keep a common error
    V = np.zeros((batch, size, count))
    V[:, rows] = np.random.default_rng(abs(seed)).standard_normal(V[:, rows].shape)
    return V


def log10_norm_estimate(Y: Array) -> tuple[Array, Array]:
    """Bias-corrected log10 ||J||_F and its standard error, (n,) each, from Y = J v (n, rows, k)."""
    k, size = Y.shape[-1], np.abs(Y).max(axis=(1, 2), keepdims=True)
    Y = Y / np.where(size > 0, size, 1)  # fourth powers would leave the range of float64
    gram = Y.swapaxes(-1, -2) @ Y
    squares = np.diagonal(gram, axis1=-2, axis2=-1)
    mean = squares.mean(axis=-1)
    pairs = ((gram**2).sum(axis=(-2, -1)) - (squares**2).sum(axis=-1)) / (k * (k - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        # E[mean^2] exceeds (tr G)^2 by 2 tr(G^2) / k
        nu = mean**2 / pairs - 2.0 / k
        log_mean = np.log(mean) + 2 * np.log(size[:, 0, 0])
    n = k * np.nan_to_num(nu, nan=1.0, posinf=1.0).clip(min=1.0)
    log10_norm = (log_mean - special.digamma(n / 2) + np.log(n / 2)) / (2 * math.log(10))
    # nu is itself estimated from the k directions: without the last factor a 95 % interval of
    # four directions covers 90 %
    spread = np.sqrt(special.polygamma(1, n / 2)) * math.sqrt(1 + 2 / k)
    return log10_norm, spread / (2 * math.log(10))
