"""Decades per step over stretches of equal input: padding, or words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

SETTLING = 100  # steps of padding after which the initial state has faded


@dataclass(frozen=True)
class Stretch:
    """Steps ``start`` to ``stop - 1`` (from 0) of one example."""

    example: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def steps(self) -> slice:
        return slice(self.start, self.stop)


def stretches(mask: NDArray[np.bool_]) -> list[Stretch]:
    """The unbroken runs of True in a (B, T) mask, example by example."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, stops = np.argwhere(edges == 1), np.argwhere(edges == -1)
    return [
        Stretch(int(b), int(start), int(stop))
        for (b, start), (_, stop) in zip(starts, stops, strict=True)
    ]


def settled(stretch: Stretch) -> Stretch:
    """The stretch without its first 100 steps, or without its first half where it is shorter."""
    skipped = min(SETTLING, len(stretch) // 2)
    return replace(stretch, start=stretch.start + skipped)


def settled_stretches(steps: dict[str, NDArray[np.bool_]]) -> dict[str, list[Stretch]]:
    """By kind of input, where it is read: padding once it has settled, and all of the words.

    Args:
        steps: by kind of input, a (B, T) mask; ``padding`` is one of them.
    """
    found = {name: stretches(mask) for name, mask in steps.items()}
    return found | {"padding": [settled(stretch) for stretch in found["padding"]]}


def most_of_both(steps: dict[str, NDArray[np.bool_]]) -> int:
    """The example that has the most steps of whichever input it has least of.

    Args:
        steps: as above; an input that no example has does not count.
    """
    counts = [mask.sum(axis=1) for mask in steps.values() if mask.any()]
    return int(np.argmax(np.min(counts, axis=0)))


def change_per_step(values: NDArray[np.floating], over: Sequence[Stretch]) -> float:
    """The gain per step from each stretch's first step to its last, over all stretches together.

    Args:
        values: (B, T), such as log10 of a norm: the result is then in decades per step, negative
            where the norm decays.
        over: stretches of one step, and those that start or end at no finite value, do not count.

    Returns:
        NaN where no stretch counts.
    """
    gained, steps = 0.0, 0
    for stretch in over:
        if len(stretch) < 2:
            continue
        first, last = (float(values[stretch.example, t]) for t in (stretch.start, stretch.stop - 1))
        if np.isfinite(first) and np.isfinite(last):
            gained += last - first
            steps += len(stretch) - 1
    return gained / steps if steps else np.nan
