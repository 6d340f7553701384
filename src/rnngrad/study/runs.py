"""The runs of the study, and what its conditions read from them. Needs no torch."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from rnngrad.params import Params, Setting
from rnngrad.study.results import WEIGHTS


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Untrained(_Frozen):
    """A model whose weights are drawn from the seed of its run; see the settings of conditions."""

    units: int
    initializer: str
    forget_bias: float
    state_nonlinearity: str


class Reads(_Frozen):
    """The examples that a model reads, drawn from the test split.

    Attributes:
        input: comments | stream | emptied_comments | random_tokens.
        padding: pre | post | none; none for all input but comments.
        steps: the words that are kept of a comment, or the steps of other input; None stands for
            the length of the longest comment.
        examples: their number.
        features: the number of features that are read, the first ones; None stands for all.
        seed: decides which examples.
    """

    input: str
    padding: Literal["pre", "post", "none"]
    steps: int | None
    examples: int
    features: int | None
    seed: int


class Run(_Frozen):
    """One model, its inputs and its initial state: equal runs are equal objects.

    Attributes:
        cell, seed: rnn | lstm | gru, and the seed of its weights.
        weights: a file from before (init) or after training (trained), or how to draw them.
        reads: the inputs.
        initial_state, state_seed: uniform | zero, and the seed of the former.
    """

    cell: str
    seed: int
    weights: Literal["init", "trained"] | Untrained
    reads: Reads
    initial_state: str
    state_seed: int

    @property
    def state(self) -> str:
        """The question takes d c_t/d c_0 of an LSTM and d h_t/d h_0 of the others."""
        return "c" if self.cell == "lstm" else "h"


class Reading(NamedTuple):
    """The statistic that a condition takes, the arithmetic it is taken in, and the last step."""

    arithmetic: str
    statistic: str
    halved_mean: bool


class Condition(NamedTuple):
    """A case of params.yaml for one cell and seed: a run and a reading of it."""

    name: str
    factor: str
    run: Run
    reading: Reading


def probe_jobs(params: Params, cell: str, build: Path) -> dict[str, tuple[Any, ...]]:
    """By model of a cell, the arguments of :func:`rnngrad.study.measures.measure_model`."""
    probe, embed = params.probe, params.embed
    reads = Reads(
        input="comments",
        padding=embed.padding,
        steps=embed.max_length,
        examples=probe.comments,
        features=None,
        seed=probe.seed,
    )
    jobs: dict[str, tuple[Any, ...]] = {}
    for seed in params.train_of(cell).seeds:
        for weights in WEIGHTS:
            run = Run(
                cell=cell,
                seed=seed,
                weights=weights,
                reads=reads,
                initial_state=probe.initial_state,
                state_seed=probe.seed,
            )
            file, train = _training(params, run, build)
            predictions = file.with_name("predictions.csv") if weights == "trained" else None
            job = (run, probe.spectral_steps, build / "embed", file, train, predictions)
            jobs[f"{weights}-{seed}"] = job
    if cell == "lstm":
        jobs["tutorial"] = ()
    return jobs


def conditions_of(params: Params) -> Iterator[Condition]:
    """The conditions of every case, cell and seed."""
    for case in params.conditions.cases:
        factor, setting = params.conditions.factor_of(case), params.conditions.setting_of(case)
        reading = Reading(setting.arithmetic, setting.statistic, setting.halved_mean)
        trained = setting.weights == "trained"
        for cell in setting.cells:
            if trained and cell not in params.cells:
                continue  # nobody trained it
            for seed in params.train_of(cell).seeds if trained else params.conditions.seeds:
                yield Condition(case, factor, _run_of(params, setting, cell, seed), reading)


def _run_of(params: Params, setting: Setting, cell: str, seed: int) -> Run:
    """The run of a setting, without anything that changes nothing in it."""
    conditions, trained = params.conditions, setting.weights == "trained"
    padding = params.embed.padding if trained else setting.padding
    kind = "stream" if (setting.input, padding) == ("comments", "none") else setting.input
    # all emptied comments are alike
    examples = {"stream": conditions.streams, "emptied_comments": 1}.get(kind, conditions.comments)
    sliced = setting.sliced_input and setting.units < params.embed.dimensions and not trained
    biased = cell == "lstm" and setting.initializer == "keras"
    untrained = Untrained(
        units=setting.units,
        initializer=setting.initializer,
        forget_bias=setting.forget_bias if biased else 0.0,
        state_nonlinearity=setting.state_nonlinearity,
    )
    reads = Reads(
        input=kind,
        padding=padding if kind == "comments" else "none",
        steps=setting.steps,
        examples=examples,
        features=setting.units if sliced else None,
        seed=conditions.seed,
    )
    return Run(
        cell=cell,
        seed=seed,
        weights="trained" if trained else untrained,
        reads=reads,
        initial_state=setting.initial_state,
        state_seed=1000 * conditions.seed + seed,  # another one for every weight seed
    )


def condition_jobs(params: Params, build: Path) -> dict[str, tuple[Any, ...]]:
    """By :func:`job_name`, the arguments of :func:`rnngrad.study.measure_run.measure_run`."""
    jobs: dict[str, tuple[Any, ...]] = {}
    for condition in conditions_of(params):
        # the true values say where to look for float32's first zero, whatever the arithmetic
        for arithmetic in ("log", condition.reading.arithmetic):
            run = condition.run
            job = (run, arithmetic, build / "embed", *_training(params, run, build))
            jobs[job_name(run, arithmetic)] = job
    return dict(sorted(jobs.items(), key=lambda item: _soon_done(*item[1][:2])))


def job_name(run: Run, arithmetic: str) -> str:
    """A folder's name, the same for equal runs wherever they stand in params.yaml."""
    digest = hashlib.sha256(run.model_dump_json().encode()).hexdigest()
    return f"{run.cell}-{run.seed}-{digest[:12]}-{arithmetic}"


def _soon_done(run: Run, arithmetic: str) -> tuple[bool, bool, int]:
    # Long runs come first, so that no core is left alone with one in the end. Examples share the
    # steps of padding in front.
    return run.reads.padding == "pre", arithmetic == "log", -(run.reads.steps or 0)


def _training(params: Params, run: Run, build: Path) -> tuple[Any, ...]:
    """The weight file and the settings that its model was trained with, where there is one."""
    if isinstance(run.weights, Untrained):
        return ()
    from rnngrad.models.weights import weight_file

    train = params.train_of(run.cell).model_copy(update={"seeds": [run.seed]})
    return weight_file(build / "train" / run.cell, run.weights, run.seed), train
