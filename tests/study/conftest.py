"""A run of a trained model that reads comments, which tests of the study share."""

from collections.abc import Callable
from typing import Any

import pytest

from rnngrad.study.runs import Run


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """A run that reads test comments, padded in front to the longest one; keywords override."""

    def make(**changes: Any) -> Run:
        settings = {
            "cell": "lstm",
            "seed": 2,
            "weights": "trained",
            "input": "comments",
            "padding": "pre",
            "steps": None,
            "examples": 3,
            "inputs_seed": 1,
            "initial_state": "uniform",
            "state_seed": 1,
        }
        return Run.model_validate(settings | changes)

    return make
