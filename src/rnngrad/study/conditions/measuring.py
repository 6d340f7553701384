"""One model under one setting: the question's statistic, in every arithmetic asked for."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import rnngrad
from rnngrad.data.batches import load_embedding
from rnngrad.models.classifier import RECURRENT
from rnngrad.models.initializers import initialize_like_keras, set_chrono_biases, set_identity
from rnngrad.models.weights import load_classifier, weight_file
from rnngrad.params import Params
from rnngrad.probe.cells import SigmoidStateLSTM
from rnngrad.study.conditions.inputs import condition_inputs
from rnngrad.study.conditions.jobs import COLUMN_SUM, SMALLEST_NORMAL, Job, Measured, Reading
from rnngrad.study.gates import State
from rnngrad.study.probed import STATE
from rnngrad.study.probing import log_spaced_steps, shared_state

RECORDED = 25  # log-spaced steps at which costly readings are taken
WINDOW = 20  # steps that the question looked at, at either end
# steps around a guess that are searched first, and among how many parts the search goes on
BEFORE, AFTER, PARTS = 4, 28, 17


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
    module = module_of(job, examples.inputs.shape[2], params, train)
    state = shared_state(
        module,
        len(examples.inputs),
        job.setting.initial_state,
        1000 * params.conditions.seed + job.seed,  # another one for every weight seed
    )
    run = _Run(module, examples.inputs, state, examples.words, STATE[job.cell])
    curves = run.curves(job.readings)
    zero = float32_zero_from(module, examples.inputs, state, run.state, curves[COLUMN_SUM])
    log10 = {reading: curves[reading] for reading in job.readings}
    return Measured(job, log10, examples.words, module.hidden_size, zero)


def module_of(job: Job, features: int, params: Params, train: Path) -> nn.RNNBase:
    """The job's module, with the weights that its setting names."""
    setting = job.setting
    if setting.weights == "trained":
        path = weight_file(train / job.cell, "trained", job.seed)
        return load_classifier(path, job.cell, features, params.train_of(job.cell)).recurrent
    torch.manual_seed(job.seed)
    relu = {"nonlinearity": "relu"} if setting.initializer == "identity" else {}
    sigmoid = setting.state_nonlinearity == "sigmoid"
    kind = SigmoidStateLSTM if sigmoid else RECURRENT[job.cell]
    module = kind(features, setting.units, batch_first=True, **relu)
    if setting.initializer != "torch":
        initialize_like_keras(module, setting.forget_bias)
    if setting.initializer == "identity":
        set_identity(module)
    if setting.initializer == "chrono":
        set_chrono_biases(module, setting.steps)
    return module


class _Run(NamedTuple):
    """One model on the examples: d s_t/d s_0 of its state ``state``, h or c."""

    module: nn.RNNBase
    inputs: Tensor
    start: State
    words: list[range]
    state: str

    @property
    def steps(self) -> int:
        return self.inputs.shape[1]

    def recorded(self) -> list[int]:
        """Steps (from 1) that costly readings are taken at."""
        T = self.steps
        ends = {end for words in self.words for end in (words.start, words.stop)}
        return sorted({*log_spaced_steps(T, RECORDED), *range(1, min(T, WINDOW) + 1), *ends} - {0})

    def _recorded_by(self, reading: Reading) -> list[int]:
        """The question also looked at its last steps, in float32 with flush-to-zero."""
        T, at = self.steps, self.recorded()
        if reading.arithmetic != "float32_flushed":
            return at
        return sorted({*at, *range(max(T - WINDOW, 0) + 1, T + 1)})

    def curves(self, readings: Iterable[Reading]) -> dict[Reading, NDArray[np.float64]]:
        """By reading (B, T) log10, and the column sum in any case."""
        true = {COLUMN_SUM, *(reading for reading in readings if reading.arithmetic == "log")}
        found = rnngrad.jacobian_curves(
            self.module,
            self.inputs,
            self.start,
            state=self.state,
            statistics=sorted(reading.statistic for reading in true),
            spectral_steps=self.recorded(),
        )
        curves = {reading: getattr(found, f"log10_{reading.statistic}") for reading in true}
        return curves | {reading: self._naive(reading) for reading in {*readings} - true}

    def _naive(self, reading: Reading) -> NDArray[np.float64]:
        """Return log10 of autograd's column sums in this arithmetic; NaN at steps not recorded."""
        sums = rnngrad.autograd_column_sums(
            self.module,
            self.inputs,
            self.start,
            state=self.state,
            dtype=torch.float64 if reading.arithmetic == "float64" else torch.float32,
            flush=reading.arithmetic == "float32_flushed",
            steps=self._recorded_by(reading),
        )
        with np.errstate(divide="ignore"):
            return np.log10(sums)


def float32_zero_from(
    module: nn.RNNBase, inputs: Tensor, start: State, state: str, log10: NDArray[np.float64]
) -> int | None:
    """The first step from which autograd's flushed float32 result is zero in every entry.

    Searched for first around the step at which the true mean passes the smallest normal number: the
    largest entries follow it within some steps. The result is taken to stay zero once it is.

    Args:
        module, inputs, start: what reads what, and from which state.
        state: d s_t/d s_0 of h or c.
        log10: (B, T), the true column sum of it.

    Returns:
        The step, from 1; None if the result is not zero at the last one.
    """
    below = np.flatnonzero((log10 < SMALLEST_NORMAL["float32"]).all(axis=0))
    if not len(below):
        return None
    near, last = int(below[0]) + 1, inputs.shape[1]
    low, high = 0, last + 1  # not zero at low, zero at high
    at = list(range(max(near - BEFORE, 1), min(near + AFTER, last) + 1))
    while at:
        # later steps need not be run
        sums = rnngrad.autograd_column_sums(
            module, inputs[:, : at[-1]], start, state=state, flush=True, steps=at
        )
        zero = {step: bool((sums[:, step - 1] == 0).all()) for step in at}
        low = max([low, *(step for step in at if not zero[step])])
        high = min([high, *(step for step in at if zero[step] and step > low)])
        parts = {low + (high - low) * part // PARTS for part in range(1, PARTS)}
        at = sorted(parts - {low, high})
    return high if high <= last else None
