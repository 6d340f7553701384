"""What is read off a Jacobian: Frobenius norm, column sum, spectral norm, as log10."""

from collections.abc import Sequence

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
    names = (statistics,) if isinstance(statistics, str) else tuple(statistics or ())
    if HIDDEN_PATH in names and not paths:
        raise InputError(f'statistics: "{HIDDEN_PATH}" is for an nn.LSTM with state="c"')
    known = (*STATISTICS, HIDDEN_PATH)
    if not names or any(name not in known for name in names):
        raise InputError(f"statistics={statistics!r}: use some of {', '.join(STATISTICS)}")
    return names


def spectral_mask(steps: Sequence[int] | np.ndarray | None, last: int) -> np.ndarray:
    """(last,) bool: where the spectral norm is taken."""
    if steps is None:
        return np.ones(last, dtype=bool)
    chosen = np.asarray(steps)
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
        raise TypeError("spectral_steps must be a sequence of integers")
    if len(chosen) and not (chosen.min() >= 1 and chosen.max() <= last):
        raise InputError(f"spectral_steps must lie in 1..{last}")
    mask = np.zeros(last, dtype=bool)
    mask[chosen - 1] = True
    return mask


def record(
    found: dict[str, Tensor], t: int, now: Tangents, rows: slice | Tensor, spectral: bool
) -> None:
    """Write log10 of the statistics named in `found` into their row t."""
    J, norms, exponent, _ = now.read(rows)
    n = len(J)
    scale = exponent.double() * LOG10_2
    if "frobenius_error" in found:
        estimate, found["frobenius_error"][t, :n] = log10_norm_estimate(J)
        found["frobenius"][t, :n] = estimate + scale
    elif "frobenius" in found:
        norm = torch.linalg.vector_norm(norms, dim=1)
        found["frobenius"][t, :n] = norm.log10() + scale
    if "column_sum" in found:
        found["column_sum"][t, :n] = column_sum(J).log10() + scale
    if "spectral" in found and spectral:
        found["spectral"][t, :n] = spectral_norm(J).log10() + scale


def column_sum(J: Tensor) -> Tensor:
    """mean_j |sum_i J_ij|, (n,) float64."""
    return J.sum(dim=1).abs().mean(dim=1).double()


def spectral_norm(J: Tensor) -> Tensor:
    """Largest singular value, (n,) float64.

    From the Gram matrix: squaring costs accuracy in the small singular values, not in the largest.
    """
    J = J.double()
    return torch.linalg.eigvalsh(J.mT @ J)[:, -1].clamp(min=0).sqrt()
