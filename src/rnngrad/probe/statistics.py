"""What is read off a Jacobian: Frobenius norm, column sum, spectral norm, as log10."""

from collections.abc import Iterable, Sequence, Set

import numpy as np
import torch
from torch import Tensor

from rnngrad.errors import InputError
from rnngrad.probe.scaled import LOG10_2
from rnngrad.probe.sketch import log10_norm_estimate
from rnngrad.probe.tangents import Tangents

STATISTICS = ("frobenius", "column_sum", "spectral")
HIDDEN_PATH = "hidden_path"  # of an LSTM's cell state, and only where asked for


def wanted_statistics(statistics: Sequence[str], paths: bool = False) -> tuple[str, ...]:
    """The checked names; `paths`: has the Jacobian a hidden path of its own?"""
    names = () if not isinstance(statistics, Iterable) else tuple(statistics)
    names = (statistics,) if isinstance(statistics, str) else names
    if HIDDEN_PATH in names and not paths:
        raise InputError(f'statistics: "{HIDDEN_PATH}" is for an nn.LSTM with state="c"')
    known = (*STATISTICS, HIDDEN_PATH) if paths else STATISTICS
    if not names or any(name not in known for name in names):
        raise InputError(f"statistics={statistics!r}: use some of {', '.join(known)}")
    return names


def spectral_mask(steps: Sequence[int] | np.ndarray | None, last: int) -> np.ndarray:
    """(last,) bool: where the spectral norm is taken."""
    if steps is None:
        return np.ones(last, dtype=bool)
    chosen = np.asarray(steps)
    if not chosen.size:
        chosen = chosen.astype(int)  # an empty list is one of floats
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
        raise TypeError("spectral_steps must be a sequence of integers")
    if len(chosen) and not (chosen.min() >= 1 and chosen.max() <= last):
        raise InputError(f"spectral_steps must lie in 1..{last}")
    mask = np.zeros(last, dtype=bool)
    mask[chosen - 1] = True
    return mask


def record(
    found: dict[str, Tensor],
    steps: slice,
    now: Tangents,
    rows: slice | Tensor,
    spectral_at: np.ndarray,
) -> None:
    """Write log10 of the statistics named in `found` into their rows `steps`.

    now: the tangents of the running examples after the first of the steps, then after the second,
    and so on. spectral_at: at which of the steps the spectral norm is taken, (steps,) bool.
    """
    now = now.read(rows)
    n = len(now.J) // len(spectral_at)
    for name, values in _log10(now, found.keys() - {"spectral"}).items():
        found[name][steps, :n] = values.unflatten(0, (-1, n))
    if "spectral" in found and spectral_at.any():
        at = np.repeat(spectral_at, n)
        scale = now.exponent[at].double() * LOG10_2
        values = spectral_norm(now.J[at]).log10() + scale
        found["spectral"][steps][spectral_at, :n] = values.unflatten(0, (-1, n))


def _log10(now: Tangents, names: Set[str]) -> dict[str, Tensor]:
    """(m,) per statistic, of m Jacobians."""
    scale, values = now.exponent.double() * LOG10_2, {}
    if "frobenius_error" in names:
        estimate, values["frobenius_error"] = log10_norm_estimate(now.J)
        values["frobenius"] = estimate + scale
    elif "frobenius" in names:
        values["frobenius"] = torch.linalg.vector_norm(now.norms, dim=1).log10() + scale
    if "column_sum" in names:
        values["column_sum"] = column_sum(now).log10() + scale
    return values


def column_sum(now: Tangents) -> Tensor:
    """mean_j |sum_i J_ij|, (n,) float64."""
    sums = now.in_directions(now.J.sum(dim=1, keepdim=True))
    return torch.linalg.vector_norm(sums, ord=1, dim=(1, 2)) / sums.shape[-1]


def spectral_norm(J: Tensor) -> Tensor:
    """Largest singular value, (n,) float64.

    From the Gram matrix: squaring costs accuracy in the small singular values, not in the largest.
    """
    J = J.double()
    return torch.linalg.eigvalsh(J.mT @ J)[:, -1].clamp(min=0).sqrt()
