"""Column sums whose signs cancel, taken again with float64 cotangents.

Where one direction u of the state dominates, J_t is nearly u w^T, and its column sums are 1^T u
times w. If the entries of u happen to cancel, what is left of float32 tangents is their rounding.
Some steps before, the same sum is v^T J_s with v = 1^T M_t ... M_(s+1): the cotangent v, pushed
back in float64, is no longer nearly orthogonal to what dominates, and float32 is good enough for
J_s.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rnngrad.probe.cells import OneStep
from rnngrad.probe.scaled import LOG10_2
from rnngrad.probe.sums_from_start import push_back
from rnngrad.probe.tangents import Propagation, Tangents
from rnngrad.probe.trajectory import BLOCK

# Parts of what random signs would give. Below the first, a sum is taken again; below the second it
# cannot be told from float32 tangents: it would be more than 1e-4 of it off, or nearly. Rounding
# dies with the directions that do; where none does, it gathers like a random walk (measured over
# 1,403 steps, from 96 units on: up to 5e-5).
DOUBTFUL, LOST = 2e-2, 8e-3
GATHERING_STEPS = 100
PATIENCE = 3  # tangents that a doubtful sum is taken from, at most, unless it is lost
# How far back a cotangent may be pushed: most settle within 64 steps, a few need 400.
REMEMBERED_STEPS = 512
REMEMBERED_BYTES = 64 * 2**20


class Passage(NamedTuple):
    """Some steps of some examples, and the tangents before the first of them, where remembered.

    slots, slots_before: where each of the slots of today is in either.
    """

    one: OneStep  # (t, n, ...)
    slots: Tensor
    before: Tangents | None
    slots_before: Tensor
    exact: bool  # the identity: no rounding yet

    def arranged(self, source: list[int]) -> "Passage":
        """Slot s takes over what slot source[s] holds."""
        return self._replace(slots=self.slots[source], slots_before=self.slots_before[source])

    def size(self) -> int:
        """Bytes."""
        held = [v for v in (*self.one[1:], *(self.before or ())[:4]) if v is not None]
        return sum(v.nbytes for v in held)


class Reading(NamedTuple):
    """Column sums, and what part each is of what random signs would give (inf where exact)."""

    log10: Tensor
    part: Tensor


class CancelledSums:
    """The last steps of the examples in their slots.

    `run` is at its start, with `running` slots; `rows` are read.
    """

    def __init__(self, run: Propagation, rows: slice, running: int) -> None:
        self.run, self.rows = run, rows
        self.passages: list[Passage] = []
        self.before: Tangents | None = run.now(running)
        self.slots_before = self._slots(running)
        self.columns = run.J.shape[-1]
        self.exact_steps = 0  # since the tangents are float64
        self.since = 0  # steps since the last tangents remembered

    def arrange(self, source: list[int]) -> None:
        """Slot s takes over what slot source[s] holds."""
        self.passages = [passage.arranged(source) for passage in self.passages]
        self.slots_before = self.slots_before[source]

    def _slots(self, n: int) -> Tensor:
        return torch.arange(n, device=self.run.J.device)

    def settle(self, one: OneStep, running: int, found: dict[str, Tensor]) -> Tensor:
        """Take again what cancels in the column sums found; return (t, n), where that is in vain.

        Args:
            one: the factors of the steps just taken (t, n, ...).
            running: how many slots have the last of them.
            found: their statistics, (t, n) each; NaN where an example does not run.
        """
        if self.run.dtype == torch.float64:
            # soon all that could be pushed back through are steps without rounding
            self.exact_steps += len(one.mix)
            if self.exact_steps > REMEMBERED_STEPS:
                self.passages = []
                return torch.zeros(one.mix.shape[:2], dtype=torch.bool)
        self._remember(one)
        part = _part_of_random(found, self.columns)
        growth = self._growth()
        doubtful = part < DOUBTFUL * growth
        if doubtful.any():
            self._take_again(doubtful, part, growth, found["column_sum"])
        self._look_ahead(running, len(one.mix))
        return (part < LOST * growth).cpu()

    def _growth(self) -> float:
        """Of the rounding in the tangents."""
        kept = self.run.kept_steps if self.run.dtype == torch.float32 else 0
        return math.sqrt(1 + kept / GATHERING_STEPS)

    def _take_again(self, doubtful: Tensor, part: Tensor, growth: float, log10: Tensor) -> None:
        """Replace log10 sums (t, n), and their parts, by readings with a larger part."""
        steps, examples = doubtful.nonzero(as_tuple=True)
        v = self._pushed_to_start(steps, examples)
        met = 0
        for passage in reversed(self.passages):
            if passage is not self.passages[-1]:
                v = self._pushed_through(passage, examples, v)
            if passage.before is None:
                continue
            again = self._met(v, passage, examples)
            better = again.part > part[steps, examples]
            at = steps[better], examples[better]
            part[at], log10[at] = again.part[better], again.log10[better]
            met += 1
            left = part[steps, examples] < (DOUBTFUL if met < PATIENCE else LOST) * growth
            if not left.any():
                return
            steps, examples, v = steps[left], examples[left], v[left]

    def _remember(self, one: OneStep) -> None:
        everyone = self._slots(one.mix.shape[1])
        exact = not self.passages
        self.passages.append(Passage(one, everyone, self.before, self.slots_before, exact))
        steps = [len(passage.one.mix) for passage in self.passages]
        sizes = [passage.size() for passage in self.passages]
        # the last tangents stay in any case
        while sum(sizes) > REMEMBERED_BYTES or sum(steps) > REMEMBERED_STEPS:
            if all(passage.before is None for passage in self.passages[1:]):
                break
            del self.passages[0], steps[0], sizes[0]

    def _look_ahead(self, running: int, steps: int) -> None:
        """Remember the tangents before the next steps, if the last ones are some steps old."""
        self.before, self.since = None, self.since + steps
        if self.since >= BLOCK:
            self.before, self.since = self.run.now(running), 0
        self.slots_before = self._slots(running)

    def _pushed_to_start(self, steps: Tensor, examples: Tensor) -> Tensor:
        """Cotangents v (sums, units), at the start of the last passage, of sums at its steps."""
        cell = self.run.cell
        v = cell.weight_hh.new_zeros(len(steps), self.run.w.shape[-1] * len(cell.states))
        return self._pushed_through(self.passages[-1], examples, v, steps.tolist())

    def _pushed_through(
        self, passage: Passage, examples: Tensor, v: Tensor, begin: Sequence[int] = ()
    ) -> Tensor:
        """The cotangents before the passage; in its steps `begin`, in order, sums begin with 1."""
        slots = passage.slots[examples]
        first = len(begin)
        for t in reversed(range(len(passage.one.mix))):
            while first and begin[first - 1] == t:
                first -= 1
                v[first, self.rows] = 1
            if first < len(v):
                push_back(self.run.cell, passage.one.at(t), slots[first:], v[first:])
        return v

    def _met(self, v: Tensor, passage: Passage, examples: Tensor) -> Reading:
        """The sums v^T J, (sums,), from cotangents v (sums, units) before the passage."""
        before, slots = passage.before, passage.slots_before[examples]
        assert before is not None
        sums = v.new_empty(len(v))
        for slot in slots.unique().tolist():
            of, now = slots == slot, before.of_slot(slot)
            sums[of] = now.in_directions(v[of] @ now.J.double()).abs().mean(dim=-1)
        if passage.exact:
            part = torch.full_like(sums, torch.inf)
        else:
            typical = torch.linalg.vector_norm(v * before.norms[slots], dim=-1)
            part = sums / typical * math.sqrt(self.columns)
        # 0 or inf: beyond float64
        part = torch.where((sums > 0) & torch.isfinite(sums), part, 0.0)
        return Reading(sums.log10() + before.exponent[slots].double() * LOG10_2, part)


def _part_of_random(found: dict[str, Tensor], columns: int) -> Tensor:
    """(t, n) of the column sums; float32 leaves an error of 1e-7 to 4e-7 of the whole.

    With random signs mean_j |sum_i J_ij| is about ||J||_F / sqrt(columns).
    """
    return 10 ** (found["column_sum"] - found["frobenius"] + 0.5 * math.log10(columns))
