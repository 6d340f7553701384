"""A run of a trained model that reads comments, and settings, that tests of the study share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rnngrad.params import Case, Params, read_params
from rnngrad.study.runs import Run

ROOT = Path(__file__).parents[2]


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


@pytest.fixture(scope="session")
def make_params() -> Callable[..., Params]:
    """Settings with these cases, few examples, small models and two seeds."""

    def make(cases: dict[str, dict[str, Any]], **question: Any) -> Params:
        params = read_params(ROOT / "params.yaml")
        small = {"units": 5, "steps": 24} | question
        changes = {
            "seeds": [1, 2],
            "comments": 3,
            "streams": 2,
            "question": params.conditions.question.model_copy(update=small),
            "cases": {
                name: Case.model_validate({"factor": "some"} | own) for name, own in cases.items()
            },
        }
        return params.model_copy(
            update={"conditions": params.conditions.model_copy(update=changes)}
        )

    return make
