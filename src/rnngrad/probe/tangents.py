"""J_t = M_t M_(t-1) ... M_1 for a chunk of examples, at every t, whatever its size.

Two ways to take a step. The quick one keeps one power of two per example, folded into the factors
of the next step, and is one batched matrix product in the tangents' dtype. It is exact to that
dtype as long as all rows of J (state units) are of comparable size. Before a row could underflow
relative to the others, and whenever a step would overflow, the step is taken again with one scale
per row in float64 (`ScaledRows`), until the rows have come together again.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rnngrad.probe.cells import Cell, OneStep
from rnngrad.probe.directions import DROPPED, FEW, significant_directions, taken_by_gate
from rnngrad.probe.scaled import ZERO, ScaledRows, power_of_two
from rnngrad.probe.workspace import Workspace

# A row this far (in powers of two) below the largest, or below 1 after the step, leaves the quick
# way; float32 ends at 2**-126, and the squares in its norm at half of that.
SPREAD_LIMIT = 50
SPREAD_BACK = 30  # and it returns once the rows are this close again
COMPRESS_EVERY = 32  # steps
GROWTH_LIMIT = 2.0**60  # in one step; NaN and inf are not below it either
GOLDEN = 0.5 * (5**0.5 - 1)  # its multiples, modulo 1, fill the interval evenly
FACTOR_SPREAD = 25  # rows, factors and weights together stay above 2**-126
# Below this many units a float32 product is no faster than a float64 one, only less accurate.
FLOAT32_FROM = 96


class Tangents(NamedTuple):
    """J_t of the running examples: mantissas (n, rows, k), row norms (n, rows), exponents (n,).

    Exponents of float32 tangents need not be integers.
    """

    J: Tensor
    norms: Tensor
    exponent: Tensor
    # (n, directions, k) float64 with orthonormal columns: J is in this basis of k < directions
    basis: Tensor | None = None
    scaled: ScaledRows | None = None  # the same with one exponent per row, where J needs that

    def read(self, rows: slice | Tensor) -> "Tangents":
        """Some of the rows, on a scale of their own.

        On the scale of all rows those of one state are lost where the other state is far above it.
        """
        if self.scaled is None:
            return Tangents(self.J[:, rows], self.norms[:, rows], self.exponent, self.basis)
        return Tangents.of(self.scaled.read(rows), self.basis)

    @classmethod
    def of(cls, scaled: ScaledRows, basis: Tensor | None) -> "Tangents":
        J, exponent = scaled.aligned()
        return cls(J, scaled.norms(exponent), exponent, basis, scaled)

    def of_slot(self, slot: int) -> "Tangents":
        """Of one slot, without the axis of slots; on one scale."""
        basis = None if self.basis is None else self.basis[slot]
        return Tangents(self.J[slot], self.norms[slot], self.exponent[slot], basis)

    def in_directions(self, v: Tensor) -> Tensor:
        """v J, (..., directions) float64, from v J (..., k) in the basis."""
        return v.double() if self.basis is None else v.double() @ self.basis.mT


def identity(rows: int, state_rows: slice) -> Tensor:
    """d(h, c)_0 / d(state)_0: (rows, k)."""
    return torch.eye(rows, dtype=torch.float64)[:, state_rows]


def propagate(
    cell: Cell, steps: Iterator[OneStep], start: Tensor, running: list[int], dtype: torch.dtype
) -> Iterator[Tangents]:
    """The tangents after every step, from `start` (rows, k) or (b, rows, k)."""
    run = Propagation(cell, start, running[0], dtype)
    for n, one in zip(running, steps, strict=True):
        yield run.step(one, n)


class Propagation:
    """Buffers and scales of `slots` slots, from `start` (see `propagate`) in the first `running`.

    A sketch, whose directions differ by example, is not in need of the last digits of float32.

    slots: as many as `running` if None. Nothing is written into those that nobody runs in.
    drops: may directions be dropped on which nothing depends any more, to `DROPPED` of it?
    """

    def __init__(
        self,
        cell: Cell,
        start: Tensor,
        running: int,
        dtype: torch.dtype,
        slots: int | None = None,
        drops: bool = False,
    ) -> None:
        device = cell.weight_hh.device
        self.cell, self.dtype = cell, dtype
        self._set_weights()
        slots = running if slots is None else slots
        start = start if start.dim() == 2 else start[:running]
        now = start.to(device, dtype).expand(running, -1, -1)
        self.J, self.out, self.work = self._room(now, slots)
        self.sketches = start.dim() == 3
        self.exponent = torch.zeros(slots, dtype=torch.int64, device=device)
        self.shift = torch.zeros_like(self.exponent)
        self.dither, self.taken = 1.0, 0
        self.lost: Tensor | None = None
        self.rows: ScaledRows | None = None
        self.basis: Tensor | None = None
        self.dropped = DROPPED[dtype] if drops else None
        self.since, self.wait = 0, COMPRESS_EVERY

    def _set_weights(self) -> None:
        """W_hh by gate, (g, H, H), and for few directions transposed, (H, g H)."""
        W = self.cell.weight_hh.to(self.dtype)
        self.w = W.unflatten(0, (self.cell.gates, -1)).contiguous()
        self.W_T = W.T.contiguous()
        self.workspace = Workspace(W)

    @property
    def by_gate(self) -> bool:
        return taken_by_gate(self.J.shape[-1], self.cell)

    def _room(self, now: Tensor, slots: int) -> tuple[Tensor, Tensor, Tensor]:
        """J of `slots` slots, `now` in the first; the like; and what is in between of a step."""
        n, rows, directions = now.shape
        gates, H = self.w.shape[:2]
        if taken_by_gate(directions, self.cell):
            # with the units last in memory: so few directions do not fill a vector register
            J = now.new_empty(slots, directions, rows).mT
            work = J.new_empty(slots, directions, gates * H)
        else:
            J = now.new_empty(slots, rows, directions)
            work = J.new_empty(slots, rows, H)
        J[:n] = now
        return J, torch.empty_like(J), work

    def now(self, n: int) -> Tangents:
        """A copy of the first n slots' tangents as they are."""
        if self.rows is not None:
            return Tangents.of(self.rows, self._basis(n))
        J = self.J[:n].clone()
        exponent = self.exponent[:n].double() - math.log2(self.dither)
        return Tangents(J, row_norms(J), exponent, self._basis(n))

    def _basis(self, n: int) -> Tensor | None:
        return None if self.basis is None else self.basis[:n]

    @property
    def kept_steps(self) -> int:
        """Steps in a row, as far as looked at, in which no direction died."""
        if self.dropped is None:
            return self.since  # nobody looks: perhaps all of them
        looked = self.wait - COMPRESS_EVERY
        return looked + self.since if looked else 0

    def compress(self, n: int, steps: int, left: int) -> None:
        """Drop directions on which no row of the first n slots depends any more.

        To be called every few `steps`; it waits longer and longer while nothing is dropped. With
        few steps left to come it would take longer than they do.
        """
        self.since += steps
        if self.dropped is None or self.rows is not None:
            return
        if self.since < self.wait or left < COMPRESS_EVERY:
            return
        self.since = 0
        J = self.J[:n].double() / self.dither
        V = significant_directions(J, self.dropped)
        if V is None:
            self.wait *= 2
        else:
            self.wait = COMPRESS_EVERY
            self._replace(J @ V, V if self.basis is None else self.basis[:n] @ V)

    def _replace(self, J: Tensor, basis: Tensor) -> None:
        if J.shape[-1] <= FEW:  # float64 then costs little more than float32
            self.dtype = torch.float64
            self._set_weights()
        self.dither, self.lost = 1.0, None
        self.basis = basis.new_empty(len(self.J), *basis.shape[1:])
        self.basis[: len(basis)] = basis
        self.J, self.out, self.work = self._room(J.to(self.dtype), len(self.J))

    def arrange(self, source: list[int]) -> None:
        """Slot s takes over what slot source[s] holds."""
        moved = [slot for slot, old in enumerate(source) if slot != old]
        if not moved:
            return
        n = len(source)
        if self.rows is None:
            self.J[moved] = self.J[[source[slot] for slot in moved]]
        else:
            self.rows = ScaledRows(self.rows.mantissa[source], self.rows.exponent[source])
        if self.basis is not None:
            # not in place: tangents that somebody remembers are in this basis
            self.basis = torch.cat((self.basis[source], self.basis[n:]))
        self.exponent[:n], self.shift[:n] = self.exponent[source], self.shift[source]
        self.lost = None if self.lost is None else self.lost[source]

    def step(self, one: OneStep, n: int) -> Tangents:
        """The tangents of the first n slots after one more step."""
        one = one.first(n)
        if self.rows is None:
            tangents = self._quick(one, n)
            if tangents is not None:
                return tangents
            J, norm_exponent = self.J[:n].double() / self.dither, self.exponent[:n].unsqueeze(1)
            self.dither = 1.0
            self.rows = ScaledRows.of(J, norm_exponent.expand(J.shape[:2]))
        return self._scaled(one, n, self.rows)

    def _quick(self, one: OneStep, n: int) -> Tangents | None:
        dither = self._next_dither()
        scaled = self._scaled_by_shift(self._rounded(one, dither / self.dither), n)
        out = self.out[:n]
        if self.by_gate:
            self.cell.few_tangents(scaled, self.W_T, self.J[:n], self.work[:n], out)
        else:
            self.cell.tangents(scaled, self.w, self.J[:n], self.work[:n], out)
        norms = row_norms(out).double()
        low, top = norms.aminmax(dim=1)
        # the clamp: where all rows shrink in one step, none is small beside the others
        small = top.clamp(min=1) * 2.0**-SPREAD_LIMIT
        if not bool(((top < GROWTH_LIMIT) & (low > small)).all()) and (
            not bool((top < GROWTH_LIMIT).all())
            or self._lost(one, out, norms <= small.unsqueeze(1))
        ):
            return None
        self.J, self.out, self.dither = self.out, self.J, dither
        self.exponent[:n] += self.shift[:n]
        self.shift[:n] = torch.frexp(top).exponent  # 0 of 0
        exponent = self.exponent[:n].double() - math.log2(dither)
        return Tangents(out, norms, exponent, self._basis(n))

    def _next_dither(self) -> float:
        """A factor in [1, 2) that the mantissas carry, another one after every step.

        On constant inputs V = sum_g diag(mix_g) W_g is the same at every step, and so would be the
        rounding of its entries: 1e-5 in 1,000 steps. With another factor they are rounded anew.
        """
        if not self._diffuses:
            return 1.0
        self.taken += 1
        return 1 + self.taken * GOLDEN % 1

    def _lost(self, one: OneStep, out: Tensor, small: Tensor) -> bool:
        """Could one of the small rows (n, rows), or the next step's, have underflown?"""
        if bool((small & (out != 0).any(dim=-1)).any()):
            return True
        # a zero row is a true zero, if nothing as large as the rows, factors and weights can be
        # here multiplies to zero
        factors = (self.w, *(v for v in one if v is not None))
        return not all(moderate(v, FACTOR_SPREAD) for v in factors)

    def rounded_block(self, one: OneStep) -> tuple[OneStep, Tensor]:
        """The factors of a block of steps (t, n, ...) in the tangents' dtype, and the dither that
        the mantissas carry after each of them (t,).
        """
        steps = len(one.mix)
        if not self._diffuses:
            return one.each(lambda v: v.to(self.dtype)), one.mix.new_ones(steps)
        dither = one.mix.new_tensor([self.dither, *(self._next_dither() for _ in range(steps))])
        joined = _joined(one, (dither[1:] / dither[:-1])[:, None, None, None])
        return _parted(torch.stack([self._diffused(v) for v in joined]), one), dither[1:]

    @property
    def _diffuses(self) -> bool:
        """Is what rounding a factor loses of use at the next step?"""
        return self.dtype != torch.float64 and not self.sketches

    def _rounded(self, one: OneStep, dither: float) -> OneStep:
        """The factors (n, ...) in the tangents' dtype with the dither folded in."""
        if not self._diffuses:
            return one.each(lambda v: v.to(self.dtype))
        return _parted(self._diffused(_joined(one, dither)), one)

    def _diffused(self, factors: Tensor) -> Tensor:
        """Factors (n, g, H) in the tangents' dtype.

        On constant inputs (padding) a factor is the same at every step, and rounding it would shift
        the curve by 1e-5 in 1,000 steps; the ratio lost at one step is therefore handed to the
        next.
        """
        # relative, so that a gate that suddenly closes does not inherit the open gate's remainder
        exact = factors if self.lost is None else factors * self.lost[: len(factors)]
        rounded = exact.to(self.dtype)
        # nor a closed gate's, which is no rounding error: below `tiny` digits are missing
        tiny = torch.finfo(self.dtype).tiny
        self.lost = torch.where(rounded.abs() < tiny, 1.0, exact / rounded)
        return rounded

    def _scaled_by_shift(self, one: OneStep, n: int) -> OneStep:
        """The factors with 2**-shift folded in; `through` acts on rows that already carry it."""
        scale = power_of_two(-self.shift[:n]).to(self.dtype).unsqueeze(1)
        mix = one.mix * scale.unsqueeze(2)
        keep = None if one.keep is None else one.keep * scale
        return OneStep(mix, mix, keep, one.through)

    def _scaled(self, one: OneStep, n: int, rows: ScaledRows) -> Tangents:
        rows = ScaledRows(rows.mantissa[:n], rows.exponent[:n])
        self.rows = rows = self.cell.scaled_tangents(one, rows)
        tangents = Tangents.of(rows, self._basis(n))
        J, exponent = tangents.J, tangents.exponent
        zero = rows.exponent <= ZERO // 2
        lowest = torch.where(zero, exponent.unsqueeze(1), rows.exponent).amin(dim=1)
        if bool((exponent - lowest < SPREAD_BACK).all()):
            self.J[:n].copy_(J)
            self.exponent[:n] = torch.where(zero.all(dim=1), 0, exponent)
            self.shift[:n] = 0
            self.rows = None
        return tangents


def _joined(one: OneStep, dither: float | Tensor) -> Tensor:
    """All factors (..., g, H), with the dither in those of what the step begins with."""
    begin = one.mix if one.keep is None else torch.cat((one.mix, one.keep.unsqueeze(-2)), dim=-2)
    begin = begin * dither
    return begin if one.through is None else torch.cat((begin, one.through.unsqueeze(-2)), dim=-2)


def _parted(factors: Tensor, like: OneStep) -> OneStep:
    """The other way round."""
    g = like.mix.shape[-2]
    mix = factors[..., :g, :]
    keep = None if like.keep is None else factors[..., g, :]
    through = None if like.through is None else factors[..., g + 1, :]
    return OneStep(mix, mix, keep, through)


def row_norms(J: Tensor) -> Tensor:
    """(..., rows), from (..., rows, k). What underflows in a square is for the caller to find."""
    if J.stride(-1) == 1:
        return torch.linalg.vector_norm(J, dim=-1)
    # torch's own norm takes ten times as long over columns that stand apart
    return J.square().sum(dim=-1).sqrt_()


def moderate(x: Tensor, spread: int) -> bool:
    """Are all entries of x that are not zero within 2**spread of 1?"""
    size, limit = x[x != 0].abs(), 2.0**spread
    return bool(((size > 1 / limit) & (size < limit)).all())
