"""One model under one setting: the question's statistic, in every arithmetic asked for."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rnngrad.data.batches import load_embedding
from rnngrad.models.classifier import RECURRENT
from rnngrad.models.initializers import initialize_like_keras, set_chrono_biases, set_identity
from rnngrad.models.weights import load_classifier, weight_file
from rnngrad.params import Params
from rnngrad.probe.arithmetic import exact_arithmetic
from rnngrad.probe.curves import curves_of_problem
from rnngrad.probe.naive import AFTER, first_zero_step, naive_column_sums
from rnngrad.probe.problem import Problem, problem_of
from rnngrad.probe.trajectory import Chunk, LayerRun, run_layer
from rnngrad.study.conditions.inputs import condition_inputs
from rnngrad.study.conditions.jobs import COLUMN_SUM, SMALLEST_NORMAL, Job, Measured, Reading
from rnngrad.study.conditions.sigmoid_state import with_sigmoid_state
from rnngrad.study.probed import STATE
from rnngrad.study.probing import log_spaced_steps, shared_state

RECORDED = 25  # log-spaced steps at which costly readings are taken
WINDOW = 20  # steps that the question looked at, at either end


def measure_job(job: Job, params: Params, embed: Path, train: Path) -> Measured:
    """Run one model and take all its readings.

    Args:
        job: what to run and to read.
        params: where training and probe settings are.
        embed: folder of the embedding stage.
        train: folder with one folder of weights per cell.
    """
    sample, vectors = load_embedding(embed)
    trained = job.setting.weights == "trained"
    padding = params.embed.padding if trained else job.setting.padding
    examples = condition_inputs(job.setting, padding, sample, vectors, params.conditions)
    module = _module(job, examples.inputs.shape[2], params, train)
    state = shared_state(
        module,
        len(examples.inputs),
        job.setting.initial_state,
        1000 * params.conditions.seed + job.seed,  # another one for every weight seed
    )
    problem = problem_of(module, examples.inputs, state)
    if job.setting.state_nonlinearity == "sigmoid":
        problem = with_sigmoid_state(problem)
    run = _Run(problem, examples.words, STATE[job.cell])
    with exact_arithmetic(problem.inputs.device):
        curves = run.curves(job.readings)
        zero = run.float32_zero_from(curves[COLUMN_SUM])
    log10 = {reading: curves[reading] for reading in job.readings}
    return Measured(job, log10, examples.words, problem.hidden, zero)


def _module(job: Job, features: int, params: Params, train: Path) -> nn.RNNBase:
    setting = job.setting
    if setting.weights == "trained":
        path = weight_file(train / job.cell, "trained", job.seed)
        return load_classifier(path, job.cell, features, params.train_of(job.cell)).recurrent
    torch.manual_seed(job.seed)
    relu = {"nonlinearity": "relu"} if setting.initializer == "identity" else {}
    module = RECURRENT[job.cell](features, setting.units, batch_first=True, **relu)
    if setting.initializer != "torch":
        initialize_like_keras(module, setting.forget_bias)
    if setting.initializer == "identity":
        set_identity(module)
    if setting.initializer == "chrono":
        set_chrono_biases(module, setting.steps)
    return module


class _Run(NamedTuple):
    """One model on the examples: d s_t/d s_0 of its state ``state``, h or c."""

    problem: Problem
    words: list[range]
    state: str

    def recorded(self) -> list[int]:
        """Steps (from 1) that costly readings are taken at."""
        T = self.problem.steps
        ends = {end for words in self.words for end in (words.start, words.stop)}
        return sorted({*log_spaced_steps(T, RECORDED), *range(1, min(T, WINDOW) + 1), *ends} - {0})

    def _recorded_by(self, reading: Reading) -> list[int]:
        """The question also looked at its last steps, in float32 with flush-to-zero."""
        T, at = self.problem.steps, self.recorded()
        if reading.arithmetic != "float32_flushed":
            return at
        return sorted({*at, *range(max(T - WINDOW, 0) + 1, T + 1)})

    def curves(self, readings: Iterable[Reading]) -> dict[Reading, NDArray[np.float64]]:
        """By reading (B, T) log10, and the column sum in any case."""
        true = {COLUMN_SUM, *(reading for reading in readings if reading.arithmetic == "log")}
        found = curves_of_problem(
            self.problem,
            self.state,
            statistics=sorted(reading.statistic for reading in true),
            spectral_steps=self.recorded(),
        )
        curves = {reading: getattr(found, f"log10_{reading.statistic}") for reading in true}
        naive = {*readings} - true
        dtypes = {_dtype(reading) for reading in naive}
        layers = {dtype: self._layer(dtype, self.problem.steps) for dtype in dtypes}
        return curves | {r: self._naive(layers[_dtype(r)], r) for r in naive}

    def _naive(self, layer: LayerRun, reading: Reading) -> NDArray[np.float64]:
        """What autograd's column sums are in this arithmetic; NaN at steps not recorded."""
        flush, at = reading.arithmetic == "float32_flushed", self._recorded_by(reading)
        sums = naive_column_sums(layer, self.state, flush=flush, at=at).T.numpy()
        out = np.full((self.problem.batch, self.problem.steps), np.nan)
        with np.errstate(divide="ignore"):
            out[:, np.array(at) - 1] = np.log10(sums)
        return out

    def float32_zero_from(self, log10: NDArray[np.float64]) -> int | None:
        """First step at which float32 with flush-to-zero is zero in every entry; None if never."""
        below = np.flatnonzero((log10 < SMALLEST_NORMAL["float32"]).all(axis=0))
        if not len(below):
            return None
        near = int(below[0]) + 1
        # it is found soon after, nearly always: later steps need not be run
        for steps in sorted({min(near + AFTER, self.problem.steps), self.problem.steps}):
            found = first_zero_step(self._layer(torch.float32, steps), self.state, near)
            if found is not None:
                return found
        return None

    def _layer(self, dtype: torch.dtype, steps: int) -> LayerRun:
        """All examples, over the first steps."""
        lengths = self.problem.lengths.clamp(max=steps)
        return run_layer(self.problem, Chunk(torch.arange(self.problem.batch), lengths), 0, dtype)


def _dtype(reading: Reading) -> torch.dtype:
    return torch.float64 if reading.arithmetic == "float64" else torch.float32
