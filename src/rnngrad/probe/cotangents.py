"""The cotangents of all losses at once, pushed back through time, and the norms of delta.

Losses that lie many steps ahead all reach a step by the few directions that survive the way. They
are kept as coefficients times these directions (`Cotangents`), which are pushed back as if they
were losses themselves.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rnngrad.probe.scaled import ZERO, ScaledRows, exponent_of, power_of_two

AHEAD = 128  # a loss this many steps ahead may be written in directions
DROPPED = 1e-10  # of each loss's cotangent, with the units on scales of their own
WORTH = 0.8  # where more directions would stay, all losses keep rows of their own
# A unit is that small in one loss beside what it is in others: a few are by chance, none so very.
UNLIKE, CHANCE = 1e-5, 3
LOST = 1e-9


class Cotangents(NamedTuple):
    """dL_T/d(states of all layers)_t of the losses T >= t, earliest first.

    The rows are those of the next losses and after them the directions, all of which are on one
    scale. The last losses are coefficients @ directions.
    """

    rows: Tensor  # (b, losses + directions, n)
    exponent: Tensor  # (b, losses + directions): times 2**exponent
    coefficients: Tensor  # (b, last losses, directions)
    squares: Tensor  # (b, last losses), sums over the squared coefficients
    last_exponent: Tensor  # (b, last losses), beside that of the directions

    @classmethod
    def none(cls, like: Tensor, n: int) -> "Cotangents":
        b, integers = len(like), like.new_zeros(len(like), 0, dtype=torch.int64)
        return cls(
            like.new_zeros(b, 0, n),
            integers,
            like.new_zeros(b, 0, 0),
            like.new_zeros(b, 0),
            integers,
        )

    @property
    def directions(self) -> int:
        return self.coefficients.shape[-1]

    @property
    def single(self) -> int:
        """How many losses have a row of their own."""
        return self.rows.shape[1] - self.directions

    @property
    def waiting(self) -> int:
        """How many of these might be written in directions."""
        return max(self.single - AHEAD, 0)

    @property
    def scale(self) -> Tensor:
        """The exponent (b, 1) of the directions."""
        return (
            self.exponent[:, -1:] if self.directions else self.exponent.new_zeros(len(self.rows), 1)
        )

    def share(self, sizes: Tensor) -> None:
        """Replace those of the directions among the rows' sizes by the largest of them."""
        if self.directions:
            sizes[:, self.single :] = sizes[:, self.single :].amax(dim=1, keepdim=True)

    def with_room(self, losses: int) -> "Cotangents":
        """A copy with zero rows for so many losses in front."""
        b, _, n = self.rows.shape
        rows = torch.cat((self.rows.new_zeros(b, losses, n), self.rows), dim=1)
        exponent = torch.cat((self.exponent.new_zeros(b, losses), self.exponent), dim=1)
        return self._replace(rows=rows, exponent=exponent)

    def without(self, losses: int) -> "Cotangents":
        """All but the first losses; a view."""
        return self._replace(rows=self.rows[:, losses:], exponent=self.exponent[:, losses:])

    def from_loss(self, first: int) -> tuple[ScaledRows, ScaledRows]:
        """Rows before and from loss `first`, the latter with a row for every loss."""
        k = self.single
        last = self.coefficients @ self.rows[:, k:]
        return (
            ScaledRows(self.rows[:, :first], self.exponent[:, :first]),
            ScaledRows.of(
                torch.cat((self.rows[:, first:k], last), dim=1),
                torch.cat((self.exponent[:, first:k], self.last_exponent + self.scale), dim=1),
            ),
        )

    def expanded(self) -> "Cotangents":
        """A row for every loss."""
        none = Cotangents.none(self.rows, self.rows.shape[-1])
        rows = self.from_loss(0)[1]
        return none._replace(rows=rows.mantissa, exponent=rows.exponent)

    def compressed(self) -> "Cotangents":
        """The losses far ahead in as few directions as they have; expanded if that is not few."""
        first = min(AHEAD, self.single)
        soon, late = self.from_loss(first)
        units = exponent_of(late.mantissa.abs().amax(dim=1, keepdim=True)).clamp(min=-1000)
        if not _alike(late.mantissa * power_of_two(-units)):
            return self.expanded()
        generators, of = self._generators(late, first)
        Q, S = torch.linalg.qr((generators * power_of_two(-units)).mT)
        V, coefficients = _leading(of @ S.mT)
        if V.shape[-1] > WORTH * late.exponent.shape[1]:
            return self.expanded()
        directions = (Q @ V).mT * power_of_two(units)
        exponent = soon.exponent.new_zeros(directions.shape[:2])
        return Cotangents(
            torch.cat((soon.mantissa, directions), dim=1),
            torch.cat((soon.exponent, exponent), dim=1),
            coefficients,
            coefficients.square().sum(dim=-1),
            late.exponent,
        )

    def _generators(self, late: ScaledRows, first: int) -> tuple[Tensor, Tensor]:
        """Rows and the coefficients with which they give `late`."""
        k, new = self.single, self.single - first
        rows = torch.cat((late.mantissa[:, :new], self.rows[:, k:]), dim=1)
        of = rows.new_zeros(*late.exponent.shape, rows.shape[1])
        of[:, :new, :new].diagonal(dim1=1, dim2=2).fill_(1)
        if self.directions:
            shift = self.last_exponent + self.scale
            zero = late.exponent[:, new:] <= ZERO // 2
            factor = torch.where(zero, 0.0, power_of_two(shift - late.exponent[:, new:]))
            of[:, new:, new:] = self.coefficients * factor.unsqueeze(-1)
        return rows, of


def _alike(late: Tensor) -> bool:
    """Are all losses spread over the units in the same way? Largest entry of every unit about 1.

    Where they are not, directions would hold what is small in one loss with an error that is
    measured by the others, and nothing but the small might be left in the end.
    """
    size = late.abs()
    there = size.amax(dim=1, keepdim=True) * size.amax(dim=2, keepdim=True) > 0
    small = ((size < UNLIKE) & there).sum(dim=2)
    return int(small.max()) <= CHANCE and not bool(((size < LOST) & there).any())


def _leading(x: Tensor) -> tuple[Tensor, Tensor]:
    """V (b, n, r), orthonormal columns, with x V V^T = x (b, losses, n) in every row; and x V."""
    R = torch.linalg.qr(x, mode="r")[1]
    V = torch.linalg.svd(R, full_matrices=False)[2].mT
    coefficients = x @ V
    parts = coefficients.square().flip(-1).cumsum(dim=-1)
    droppable = (parts <= DROPPED**2 * parts[..., -1:]).all(dim=1).sum(dim=-1)
    kept = V.shape[-1] - int(droppable.min())
    return V[..., :kept].contiguous(), coefficients[..., :kept].contiguous()
