"""The runs of the study, and what its conditions read from them. Needs no torch."""

import hashlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from rnngrad.params import Padding, Params, Setting
from rnngrad.study import TRAINED, trained_weights

Jobs = dict[str, tuple[Any, ...]]


class Run(BaseModel, frozen=True):
    """One model, its inputs and its initial state: equal runs are equal objects."""

    cell: str
    seed: int  # it draws the weights
    # init: a file from before training. A value of `TRAINED`: a file from after it. initial:
    # drawn as the next four fields say.
    weights: str
    initializer: str | None = None
    forget_bias: float | None = None
    units: int | None = None
    state_nonlinearity: str | None = None
    input: str  # comments | stream | emptied_comments | random_tokens
    padding: Padding  # none for all input but comments
    steps: int | None  # or words kept of a comment; None stands for the longest comment's
    examples: int
    inputs_seed: int  # it decides which examples are drawn
    features: int | None = None  # how many are read; None stands for all
    initial_state: str  # zero | uniform
    state_seed: int

    @property
    def state(self) -> Literal["h", "c"]:
        """The question takes d c_t/d c_0 of an LSTM and d h_t/d h_0 of the others."""
        return "c" if self.cell == "lstm" else "h"


class Condition(NamedTuple):
    """A case of params.yaml for one cell and seed: its run, and the setting that reads from it."""

    name: str
    factor: str
    run: Run
    reading: Setting


def probe_jobs(params: Params, cell: str, build: Path) -> Jobs:
    """The arguments of :func:`rnngrad.study.measures.measure_model`, by model of a cell.

    Trained models read comments as in their training; untrained ones with padding, if any does.
    """
    probe, jobs, paddings = params.probe, Jobs(), trained_weights(params)
    shared: dict[str, Any] = {"input": "comments", "steps": params.embed.max_length}
    shared |= {"examples": probe.comments, "inputs_seed": probe.seed}
    shared |= {"initial_state": probe.initial_state, "state_seed": probe.seed}
    models = [(next(iter(paddings)), "init"), *paddings.items()]
    for seed, (padding, weights) in product(params.train_of(cell).seeds, models):
        run = Run(cell=cell, seed=seed, weights=weights, padding=padding, **shared)
        file, train = _training(params, run, build)
        predictions = None if weights == "init" else file.with_name("predictions.csv")
        job = (run, probe.spectral_steps, build / "embed", predictions, file, train)
        jobs[f"{weights}-{seed}"] = job
    return jobs | ({"tutorial": ()} if cell == "lstm" else {})


def condition_jobs(params: Params, build: Path) -> Jobs:
    """The arguments of :func:`rnngrad.study.measure_run.measure_run`, by :func:`job_name`."""
    return {
        # true values say where to look for float32's first zero
        job_name(run, each): (run, each, build / "embed", *_training(params, run, build))
        for _, _, run, reading in conditions_of(params)
        for each in ("log", reading.arithmetic)
    }


def job_name(run: Run, arithmetic: str) -> str:
    """The name of a folder, the same for equal runs."""
    digest = hashlib.sha256(run.model_dump_json().encode()).hexdigest()
    return f"{run.cell}-{run.seed}-{digest[:12]}-{arithmetic}"


def _training(params: Params, run: Run, build: Path) -> tuple[Any, ...]:
    """The file and the training settings of weights that come from one."""
    if run.weights == "initial":
        return ()
    paddings = {name: padding for padding, name in TRAINED.items()}
    padding = paddings.get(run.weights, run.padding)
    settings = {"seeds": [run.seed], "padding": [padding]}
    name = "trained" if run.weights in paddings else "init"
    folder = build / "train" / run.cell / padding / f"seed-{run.seed}"
    return folder / f"{name}-{run.seed}.pt", params.train_of(run.cell).model_copy(update=settings)


def conditions_of(params: Params) -> Iterator[Condition]:
    """The conditions of every case, cell and seed; none for models that nobody trained."""
    conditions = params.conditions
    for case, own in conditions.cases.items():
        setting = conditions.setting_of(case)
        for cell in setting.cells:
            seeds = conditions.seeds
            if setting.weights == "trained":
                known = cell in params.cells and setting.trained_with in params.train.padding
                seeds = params.train_of(cell).seeds if known else []
            for seed in seeds:
                yield Condition(case, own.factor, _run_of(params, setting, cell, seed), setting)


def _run_of(params: Params, setting: Setting, cell: str, seed: int) -> Run:
    """The run of a setting, without what changes nothing in it."""
    conditions, unpadded = params.conditions, setting.padding == "none"
    kind = "stream" if setting.input == "comments" and unpadded else setting.input
    # all emptied comments are alike
    examples = {"stream": conditions.streams, "emptied_comments": 1}.get(kind, conditions.comments)
    changes: dict[str, Any] = {"cell": cell, "seed": seed, "input": kind, "examples": examples}
    changes["padding"] = setting.padding if kind == "comments" else "none"
    changes["inputs_seed"] = conditions.seed
    changes["state_seed"] = 1000 * conditions.seed + seed  # another state for every weight seed
    if setting.weights == "trained":
        changes["weights"] = TRAINED[setting.trained_with]
        changes |= dict.fromkeys(("initializer", "forget_bias", "units", "state_nonlinearity"))
    elif setting.sliced_input and setting.units < params.embed.dimensions:
        changes["features"] = setting.units
    if cell != "lstm" or setting.initializer != "keras":
        changes["forget_bias"] = None
    return Run.model_validate(setting.model_dump() | changes)
