"""Numbers of any size: a float64 mantissa and an integer power of two.

A product of Jacobians leaves the range of any float within a few hundred steps, unit by unit. In an
LSTM one unit may hold on while its neighbour forgets 300 decades. `ScaledRows` thus keeps a scale
per row (state unit): a small row is still there when the large ones are reset.
"""

import math
from typing import NamedTuple

import numpy as np

Array = np.ndarray
LOG10_2 = math.log10(2.0)
ZERO = -(1 << 40)  # the exponent of a row that is exactly zero: below every other


def exponent_of(x: Array) -> Array:
    """The e of |x| in [2**(e-1), 2**e) as int64, and `ZERO` for 0."""
    return np.where(x == 0, ZERO, np.frexp(x)[1].astype(np.int64))


def times_power(x: Array, exponent: Array | int) -> Array:
    """x * 2**exponent, rounded once; 0 or inf beyond the range of float64."""
    with np.errstate(over="ignore"):
        return np.ldexp(x, np.clip(exponent, -5000, 5000).astype(np.int32))


def log10_of(x: Array, exponent: Array | int) -> Array:
    """log10 of x * 2**exponent for x >= 0, -inf for 0."""
    with np.errstate(divide="ignore"):
        logs = np.log10(x)
    return np.where(x == 0, logs, logs + np.asarray(exponent, dtype=float) * LOG10_2)


class ScaledRows(NamedTuple):
    """(..., i, k) mantissas and (..., i) exponents; row i is mantissa[i] * 2**exponent[i]."""

    mantissa: Array
    exponent: Array

    @classmethod
    def of(cls, mantissa: Array, exponent: Array | int = 0) -> "ScaledRows":
        """Normalised: the largest entry of every row in [0.5, 1), of a zero row 0."""
        size = exponent_of(np.abs(mantissa).max(axis=-1))
        exponent = np.broadcast_to(exponent, size.shape)
        zero = (size == ZERO) | (exponent <= ZERO // 2)
        shift = np.where(zero, 0, size)
        return cls(times_power(mantissa, -shift[..., None]), np.where(zero, ZERO, exponent + shift))

    @classmethod
    def join(cls, *parts: "ScaledRows") -> "ScaledRows":
        mantissa = np.concatenate([part.mantissa for part in parts], axis=-2)
        return cls(mantissa, np.concatenate([part.exponent for part in parts], axis=-1))

    def read(self, rows: slice | Array) -> "ScaledRows":
        return ScaledRows(self.mantissa[..., rows, :], self.exponent[..., rows])

    def times(self, factor: Array) -> "ScaledRows":
        """Row i times factor[..., i]."""
        size = exponent_of(factor)
        mantissa = np.frexp(factor)[0][..., None] * self.mantissa
        return ScaledRows.of(mantissa, np.where(size == ZERO, ZERO, size + self.exponent))

    def __add__(self, other: "ScaledRows") -> "ScaledRows":  # type: ignore[override]
        top = np.maximum(self.exponent, other.exponent)
        return ScaledRows.of(self.down_to(top) + other.down_to(top), top)

    def down_to(self, exponent: Array) -> Array:
        """Mantissas at the (larger) exponents given, (..., i) or (..., 1)."""
        return times_power(self.mantissa, (self.exponent - exponent)[..., None])

    def mixed_by(self, mix: Array, W: Array) -> "ScaledRows":
        """sum_j V[i,j] row_j with V[i,j] = sum_g mix[...,g,i] W[g,i,j]."""
        # a new row gets the scale of its own largest term, before the product is taken
        lead = exponent_of(np.abs(mix).max(axis=-2))
        mix = times_power(np.frexp(mix)[0], exponent_of(mix) - lead[..., None, :])
        return self.multiplied_by(np.einsum("...gi,gij->...ij", mix, W), lead)

    def multiplied_by(self, V: Array, row_exponent: Array | int = 0) -> "ScaledRows":
        """sum_j V[...,i,j] 2**row_exponent[...,i] row_j."""
        size = exponent_of(V) + self.exponent[..., None, :]
        top = size.max(axis=-1)
        V = times_power(np.frexp(V)[0], size - top[..., None])
        # `of` takes any exponent below ZERO / 2 for a zero row
        return ScaledRows.of(V @ self.mantissa, top + row_exponent)

    def aligned(self) -> tuple[Array, Array]:
        """One scale per matrix: mantissas (..., i, k), exponents (...); tiny rows become 0."""
        top = self.exponent.max(axis=-1, initial=ZERO)
        return self.down_to(top[..., None]), top

    def log10_norm(self) -> Array:
        """log10 of the Frobenius norm, (...)."""
        J, exponent = self.aligned()
        return log10_of(np.linalg.norm(J, axis=(-2, -1)), exponent)
