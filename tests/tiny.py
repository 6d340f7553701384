"""A tiny study: its settings, comments and runs. Keywords override."""

from pathlib import Path
from typing import Any

import numpy as np

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.params import Case, Params, TrainParams, read_params
from rnngrad.study.runs import Run

ROOT = Path(__file__).parents[1]
TRAIN = {
    "seeds": [3],
    "hidden": 6,
    "initializer": "keras",
    "forget_bias": 1.0,
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 0.02,
    "clip_norm": None,
    "padding": ["pre"],
}
RUN = {
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


def make_train_params(**changes: Any) -> TrainParams:
    return TrainParams.model_validate(TRAIN | changes)


def make_run(**changes: Any) -> Run:
    """A run of a trained model that reads test comments, padded in front to the longest one."""
    return Run.model_validate(RUN | changes)


def make_params(cases: dict[str, dict[str, Any]], **question: Any) -> Params:
    """Settings with these cases, few examples, small models and two seeds."""
    params = read_params(ROOT / "params.yaml")
    small = {"units": 5, "steps": 24} | question
    changes = {
        "seeds": [1, 2],
        "comments": 3,
        "streams": 2,
        "question": params.conditions.question.model_copy(update=small),
        "cases": {name: Case.model_validate({"factor": "some"} | c) for name, c in cases.items()},
    }
    conditions = params.conditions.model_copy(update=changes)
    return params.model_copy(update={"conditions": conditions})


def make_sample(
    lengths: list[int], splits: list[str], D: int
) -> tuple[TokenizedSample, np.ndarray]:
    """Comments of these lengths, every word its own, and random (V + 1, D) vectors."""
    n, V = len(lengths), sum(lengths)
    sample = TokenizedSample(
        tokens=np.arange(1, V + 1, dtype=np.int32),
        offsets=np.append(0, np.cumsum(lengths)),
        labels=(np.arange(n) % 2).astype(np.int8),
        splits=np.resize(splits, n),
        telling_distance=np.full(n, np.nan, dtype=np.float32),
    )
    vectors = np.random.default_rng(0).standard_normal((V + 1, D)).astype(np.float32)
    vectors[0] = 0
    return sample, vectors
