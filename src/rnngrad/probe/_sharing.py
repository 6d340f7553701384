"""Examples that go the same way for a while: who runs for whom, and until when.

Examples with equal initial states and first inputs (padding in front, a prompt) have the same
Jacobians until their inputs first differ. One of them, the *leader*, runs for all. The others
*branch off* where they differ: they take over all that the leader holds and run on by themselves.
An example that equals its leader over its whole length never runs.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnngrad.probe._problem import Problem

LEAST_SHARE = 0.1  # a group that shares less of its steps runs apart
# A group branches off at MAX_CUTS steps at most: each of these costs time and a copy of J.
MIN_STEPS, MAX_CUTS = 8, 128


class Sharing(NamedTuple):
    """Per example (b,): its leader, perhaps itself, and the first step not run by the leader."""

    leader: np.ndarray
    branch: np.ndarray

    def fill(self, values: np.ndarray) -> None:
        """Copy from leaders to the others what they share of values (b, time)."""
        for example in np.flatnonzero(self.branch):
            own = slice(0, self.branch[example])
            values[example, own] = values[self.leader[example], own]


def shared(problem: Problem, examples: np.ndarray) -> Sharing:
    """Find who of the examples, all or some, run for others; the rest of the batch runs alone."""
    found = Sharing(np.arange(problem.batch), np.zeros(problem.batch, dtype=int))
    if len(examples) > 1:
        # a group has one initial state (all layers) and first input
        states = [s.transpose(0, 1).flatten(1) for s in problem.initial]
        first = torch.cat((problem.inputs[:, 0].double(), *states), dim=1).cpu().numpy()
        group = np.unique(first[examples], axis=0, return_inverse=True)[1].ravel()
        for members in (examples[group == g] for g in range(group.max() + 1)):
            if len(members) > 1:
                _share(problem, members, found)
    return found


def _share(problem: Problem, group: np.ndarray, found: Sharing) -> None:
    """Write who leads, the one that repeats its first input longest, and for how long for whom."""
    inputs, lengths = problem.inputs, problem.lengths.numpy()
    repeats = [_equal_steps(inputs[e, : lengths[e]], inputs[e, :1]) for e in group]
    longest = max(repeats)
    first = group[repeats.index(longest)]
    every = max(MIN_STEPS, -(-problem.steps // MAX_CUTS))
    common = np.zeros_like(group)
    for k, (e, same) in enumerate(zip(group, repeats, strict=True)):
        if same == longest:
            both = min(lengths[e], lengths[first])
            same = _equal_steps(inputs[e, :both], inputs[first, :both])
        # otherwise its inputs change before the leader's, and `same` is the shared part already
        common[k] = same if same == lengths[e] else same - same % every
    common[group == first] = 0
    if common.sum() >= LEAST_SHARE * lengths[group].sum():
        found.leader[group] = np.where(common > 0, first, group)
        found.branch[group] = common


def _equal_steps(x: Tensor, y: Tensor) -> int:
    """The number of leading steps of x (t, d) that equal those of y (t or 1, d)."""
    differ = (x != y).byte().flatten()
    first = int(differ.argmax())
    return first // x.shape[1] if differ[first] else len(x)
