"""Examples that go the same way for a while: who runs for whom, and until when.

Examples with equal initial states and equal first inputs (padding in front, a start token, a
prompt) have the same states and the same Jacobians until their inputs first differ. One of them,
the *leader*, runs for all. At the step where its inputs first differ an example *branches off*: it
takes over what the leader's slot holds, and runs on in a slot of its own. An example that equals
its leader over its whole length never runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from rnngrad.probe.problem import Problem
from rnngrad.probe.processor import last_cache_bytes

# A group that shares less of its steps runs apart: a start token is not worth another order.
WORTH = 0.1
# Of tangents per part: the more threads there are, the more they need to be kept busy, above all
# when few directions are left; but out of the cores' cache every step takes longer.
THREAD_BYTES = 24 * 2**20
LEAST_BYTES = 8 * 2**20
CACHE_PART = 4  # a part takes no more than 1 / CACHE_PART of the last cache
# Where steps are shared few examples run at most of them, and room that nobody runs in takes no
# memory; but every part pays for its leader.
SHARED_BYTES = 512 * 2**20
# Examples branch off at multiples of these: a few steps too early cost less than a cut for each.
BRANCH_EVERY = 8


class Segment(NamedTuple):
    """Steps `start` to `stop` - 1, during which nobody branches off.

    examples: position in the schedule of the example in each slot, longest first.
    source: the slot whose contents each slot takes over before the first step; at step 0, of the
        start: that of its own example.
    running: how many slots, from the first on, have each of the steps.
    served, served_by: every example whose curve these steps belong to, and the slot that runs it.
    """

    start: int
    stop: int
    examples: list[int]
    source: list[int]
    running: list[int]
    served: list[int]
    served_by: list[int]


@dataclass(frozen=True)
class Schedule:
    """Some examples of a problem in the order in which they start to run, then longest first."""

    rows: Tensor  # (b,) positions in the problem's batch
    lengths: Tensor  # (b,)
    leader: Tensor  # (b,) positions in the schedule; an example that shares nothing leads itself
    branch: Tensor  # (b,) first step that the leader does not run for it; 0 for leaders

    @property
    def steps(self) -> int:
        return int(self.lengths.max())

    @classmethod
    def of(cls, problem: Problem, rows: Tensor, share: bool) -> "Schedule":
        """Of the examples `rows` (b,); `share`: may one run for another?"""
        lengths = problem.lengths[rows]
        leader, branch = torch.arange(len(rows)), torch.zeros_like(rows)
        if len(rows) == 1:
            return cls(rows, lengths, leader, branch)
        if share:
            for group in _groups(problem, rows):
                _share(problem, rows, group, leader, branch)
        order = _sorted_by(branch, -lengths)
        return cls(rows[order], lengths[order], torch.argsort(order)[leader[order]], branch[order])

    def segments(self) -> Iterator[Segment]:
        """Cut where an example branches off."""
        branch, lengths, leader = (v.tolist() for v in (self.branch, self.lengths, self.leader))
        everyone = range(len(branch))
        slots = dict(zip(everyone, everyone, strict=True))
        for start, stop in pairwise(sorted({*branch, self.steps})):
            before = slots
            here = [e for e in everyone if branch[e] <= start < lengths[e]]
            here.sort(key=lambda e: -lengths[e])
            source = [before[e] if e in before else before[leader[e]] for e in here]
            slots = {e: slot for slot, e in enumerate(here)}
            served = [e for e in everyone if e in slots or branch[e] >= stop]
            by = [slots[e] if e in slots else slots[leader[e]] for e in served]
            running = self._running(here, start, stop)
            yield Segment(start, stop, here, source, running, served, by)

    def _running(self, examples: list[int], start: int, stop: int) -> list[int]:
        longer = self.lengths[examples].unsqueeze(0) > torch.arange(start, stop).unsqueeze(1)
        return longer.sum(dim=1).tolist()


def schedules(problem: Problem, cached: int, held: int, share: bool) -> Iterator[Schedule]:
    """The batch in parts that fit the memory aimed at; what shares comes together.

    `cached`, `held`: bytes per example that every step reads, and all that are held.
    """
    whole = Schedule.of(problem, torch.arange(problem.batch), share)
    shares = torch.bincount(whole.leader, minlength=problem.batch)[whole.leader] > 1
    size = max(1, SHARED_BYTES // held if bool(shares.any()) else _part_bytes(problem) // cached)
    group = torch.where(shares, whole.leader, problem.batch)
    order = _sorted_by(group, whole.branch, -whole.lengths)
    if len(order) <= size:
        yield whole
        return
    for part in order.tensor_split(-(-len(order) // size)):
        yield Schedule.of(problem, whole.rows[part], share)


def _part_bytes(problem: Problem) -> int:
    if problem.inputs.device.type != "cpu":
        return SHARED_BYTES  # a step of few examples takes a GPU as long as one of many
    in_cache = last_cache_bytes() // CACHE_PART
    return max(LEAST_BYTES, min(THREAD_BYTES * torch.get_num_threads(), in_cache))


def _sorted_by(*keys: Tensor) -> Tensor:
    """Positions in the order of the first key, then the second, ..., then as they were."""
    order = torch.arange(len(keys[0]))
    for key in reversed(keys):
        order = order[torch.argsort(key[order], stable=True)]
    return order


def _groups(problem: Problem, rows: Tensor) -> list[Tensor]:
    """Positions in `rows` of those with one initial state (all layers) and first input."""
    states = [
        s[:, rows].transpose(0, 1).flatten(1) for s in (problem.h, problem.c) if s is not None
    ]
    first = torch.cat((problem.inputs[rows, 0].double(), *states), dim=1)
    group = torch.unique(first, dim=0, return_inverse=True)[1].cpu()
    found = (torch.nonzero(group == g).flatten() for g in range(int(group.max()) + 1))
    return [members for members in found if len(members) > 1]


def _share(problem: Problem, rows: Tensor, group: Tensor, leader: Tensor, branch: Tensor) -> None:
    """Write the group's leader, and for how long it runs for each of the others.

    The leader is the one that repeats its first input longest: behind padding, the shortest
    comment; a prompt that all begin with is everybody's.
    """
    inputs, lengths = problem.inputs, problem.lengths[rows]
    repeats = [_equal_steps(inputs[rows[e], : lengths[e]], inputs[rows[e], :1]) for e in group]
    longest = max(repeats)
    first = group[repeats.index(longest)]
    common = torch.zeros_like(group)
    for k, (e, same) in enumerate(zip(group, repeats, strict=True)):
        if same == longest:
            both = min(lengths[e], lengths[first])
            same = _equal_steps(inputs[rows[e], :both], inputs[rows[first], :both])
        # else it differs from its first input, and the leader does not yet
        common[k] = same if same == lengths[e] else same - same % BRANCH_EVERY
    common[group == first] = 0
    if common.sum() >= WORTH * lengths[group].sum():
        leader[group], branch[group] = first, common


def _equal_steps(x: Tensor, y: Tensor) -> int:
    """How many leading steps of x (t, d) equal those of y (t or 1, d)."""
    differ = (x != y).byte().flatten()
    first = int(differ.argmax())
    return first // x.shape[1] if differ[first] else len(x)
