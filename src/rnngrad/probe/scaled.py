"""Numbers of any size: a float64 mantissa and an integer power of two.

A product of Jacobians leaves the range of any float within a few hundred steps, and it does so unit
by unit: in an LSTM one unit may hold on while its neighbour forgets 300 decades. One scale per
matrix is therefore not enough. `ScaledRows` keeps one per row (state unit), so that a small row is
still there when the large ones are reset.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG10_2 = math.log10(2.0)
ZERO = -(1 << 40)  # the exponent of a row that is exactly zero: below every other


def power_of_two(exponent: Tensor) -> Tensor:
    """2**exponent in float64, exactly, with exponents clamped to the normal range.

    Written into the exponent bits: torch.exp2 need not be exact and torch.ldexp goes through
    the default dtype.
    """
    return ((exponent.clamp(-1022, 1023) + 1023) << 52).view(torch.float64)


def shifted(x: Tensor, exponent: Tensor) -> Tensor:
    """x * 2**exponent for exponents <= 0; below the range of float64 the result is 0."""
    return torch.where(exponent < -1022, 0.0, x * power_of_two(exponent))


def exponent_of(x: Tensor) -> Tensor:
    """The e of |x| in [2**(e-1), 2**e) as int64, and `ZERO` for 0."""
    return torch.where(x == 0, ZERO, torch.frexp(x).exponent.to(torch.int64))


class ScaledRows(NamedTuple):
    """(b, i, k) mantissas and (b, i) exponents; row i is mantissa[b, i] * 2**exponent[b, i]."""

    mantissa: Tensor
    exponent: Tensor

    @classmethod
    def of(cls, mantissa: Tensor, exponent: Tensor) -> "ScaledRows":
        """Normalised: the largest entry of every row in [0.5, 1), of a zero row 0."""
        size = exponent_of(mantissa.abs().amax(dim=-1))
        zero = (size == ZERO) | (exponent <= ZERO // 2)
        shift = torch.where(zero, 0, size)
        # in two halves: 2**1074 does not fit into a float64
        half = shift.div(2, rounding_mode="floor")
        mantissa = mantissa * power_of_two(-half).unsqueeze(-1)
        mantissa = mantissa * power_of_two(half - shift).unsqueeze(-1)
        return cls(mantissa, torch.where(zero, ZERO, exponent + shift))

    @classmethod
    def join(cls, *parts: "ScaledRows") -> "ScaledRows":
        mantissa = torch.cat([p.mantissa for p in parts], dim=1)
        return cls(mantissa, torch.cat([p.exponent for p in parts], dim=1))

    def split(self) -> tuple["ScaledRows", "ScaledRows"]:
        m, e = self.mantissa.chunk(2, 1), self.exponent.chunk(2, 1)
        return ScaledRows(m[0], e[0]), ScaledRows(m[1], e[1])

    def times(self, factor: Tensor) -> "ScaledRows":
        """Row i times factor[b, i]."""
        size = exponent_of(factor)
        mantissa = torch.frexp(factor).mantissa.unsqueeze(-1) * self.mantissa
        exponent = torch.where(size == ZERO, ZERO, size + self.exponent)
        return ScaledRows.of(mantissa, exponent)

    def __add__(self, other: "ScaledRows") -> "ScaledRows":  # type: ignore[override]
        top = torch.maximum(self.exponent, other.exponent)
        return ScaledRows.of(self.down_to(top) + other.down_to(top), top)

    def down_to(self, exponent: Tensor) -> Tensor:
        """Mantissas at the (larger) exponents given, (b, i) or (b, 1)."""
        return shifted(self.mantissa, (self.exponent - exponent).unsqueeze(-1))

    def mixed_by(self, mix: Tensor, w: Tensor) -> "ScaledRows":
        """sum_j V[b,i,j] row_j with V[b,i,j] = sum_g mix[b,g,i] w[g,i,j].

        Each new row gets the scale of its own largest term, before the product is taken.
        """
        lead = exponent_of(mix.abs().amax(dim=1))
        mix = shifted(torch.frexp(mix).mantissa, exponent_of(mix) - lead.unsqueeze(1))
        V = torch.einsum("bgi,gij->bij", mix, w)
        return self.multiplied_by(V, lead)

    def multiplied_by(self, V: Tensor, row_exponent: Tensor | int = 0) -> "ScaledRows":
        """sum_j V[b,i,j] 2**row_exponent[b,i] row_j."""
        size = exponent_of(V) + self.exponent.unsqueeze(1)
        top = size.amax(dim=-1)
        V = shifted(torch.frexp(V).mantissa, size - top.unsqueeze(-1))
        # `of` takes any exponent below ZERO / 2 for a zero row
        return ScaledRows.of(V @ self.mantissa, top + row_exponent)

    def read(self, rows: slice | Tensor) -> "ScaledRows":
        """Some of the rows."""
        return ScaledRows(self.mantissa[:, rows], self.exponent[:, rows])

    def norms(self, exponent: Tensor) -> Tensor:
        """(b, i) norms of the rows at the exponents (b,) given; no square underflows on the way."""
        norms = torch.linalg.vector_norm(self.mantissa, dim=-1)
        return shifted(norms, self.exponent - exponent.unsqueeze(1))

    def aligned(self) -> tuple[Tensor, Tensor]:
        """One scale per example: mantissas (b, i, k), exponents (b,); rows too small become 0."""
        top = self.exponent.amax(dim=1)
        return self.down_to(top.unsqueeze(1)), top
