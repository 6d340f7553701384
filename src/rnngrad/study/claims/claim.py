"""One statement, what was measured about it, and the verdict that the criterion gives."""

from dataclasses import dataclass
from typing import Literal

from rnngrad.intervals import Interval

Verdict = Literal["holds", "holds only if …", "does not hold"]

QUESTION = "the question"
NUMPY_LSTM = "tutorial 1: an LSTM in NumPy, weight gradients per step"
MANUAL_LSTM = "tutorial 2: an LSTM layer with manual backpropagation"
GATES_AND_PATHS = "tutorial 3: gates and paths"


@dataclass(frozen=True)
class Claim:
    """A row of the claims table.

    Attributes:
        id: 1, 2, ...
        statement: as its source puts it.
        source: who says so.
        criterion: what would have to be measured for "holds", and what for "holds only if …";
            the condition of the latter is named here.
        measured: one sentence with the numbers.
        interval: of the number that decides, its mean over seeds with the 95% interval; None where
            no number varies with the seed.
        verdict: what the criterion makes of the numbers.
    """

    id: int
    statement: str
    source: str
    criterion: str
    measured: str
    interval: Interval | None
    verdict: Verdict


def verdict(*, holds: bool, sometimes: bool) -> Verdict:
    """The verdict on a statement that ``holds``, or that does so ``sometimes``, or else never."""
    if holds:
        return "holds"
    return "holds only if …" if sometimes else "does not hold"
