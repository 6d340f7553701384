"""What the probe's tests share: float32 tangents where the library would take float64."""

from collections.abc import Iterator

import pytest
import torch

from rnngrad.probe import curves
from rnngrad.probe.problem import Problem


@pytest.fixture(scope="module")
def float32_from_64() -> Iterator[None]:
    """In smaller modules, for the sake of time, and in an RNN, which needs all of the care."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "_tangents_dtype", _float32_from_64)
        yield


def _float32_from_64(problem: Problem) -> torch.dtype:
    return torch.float64 if problem.hidden < 64 else problem.dtype
