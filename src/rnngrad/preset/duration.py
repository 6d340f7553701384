"""How long training and probing take on this machine, from a few updates and one probed model."""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import move_data_to_device
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

import rnngrad
from rnngrad.data.batches import Batch, CommentBatches
from rnngrad.data.corpus_vectors import LENGTH
from rnngrad.data.datamodule import CommentData
from rnngrad.data.tokenized import SPLITS, TokenizedSample
from rnngrad.models.classifier import CommentClassifier
from rnngrad.models.learner import Learner
from rnngrad.params import Params, TrainParams
from rnngrad.preset.lengths import Lengths
from rnngrad.study.probed import STATE
from rnngrad.study.probing import initial_state, log_spaced_steps, probe_inputs

WORDS = 1000
"""Random vectors that stand in for those of a study's words."""
TIMED = (0.5, 0.99)
"""Which batches are timed, as shares of all from short comments to long ones."""
REPEATS = 3
PROBED = (2, 16)
"""Comments on which the probe is timed: few and more."""


class Line(NamedTuple):
    """Seconds of something that grows evenly with its size: ``fixed + slope * size``."""

    fixed: float
    slope: float

    def seconds(self, sizes: NDArray[np.int64]) -> float:
        """The seconds that things of these sizes take together."""
        return self.fixed * len(sizes) + self.slope * float(sizes.sum())


class Rates(NamedTuple):
    """The seconds that a cell's work takes on this machine.

    Attributes:
        update: of a training batch, by the words of its longest comment.
        evaluation: of a batch of the validation or test split, by the same.
        probe: of one model, by the number of comments.
    """

    update: Line
    evaluation: Line
    probe: Line


def cores() -> int:
    return os.cpu_count() or 1


def processor() -> str:
    """The name of the GPU, or the number of CPU cores, that training runs on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cores()} CPU cores"


def training_seconds(rates: Rates, train: TrainParams, data: CommentData) -> float:
    """Seconds of the stage train for one cell: all seeds, which share the cores evenly.

    On a GPU they share one processor, and count as if they came one after the other.
    """
    at_once = 1 if torch.cuda.is_available() else cores()
    epoch = rates.update.seconds(batch_steps(data.train_dataloader()))
    epoch += rates.evaluation.seconds(batch_steps(data.val_dataloader()))
    test = rates.evaluation.seconds(batch_steps(data.predict_dataloader()))
    return (train.epochs * epoch + test) * max(1.0, len(train.seeds) / at_once)


def probing_seconds(rates: Rates, train: TrainParams, comments: int) -> float:
    """Seconds of the stage probe for one cell: every seed, untrained and trained, on all cores.

    Without what the stage measures for the claims.
    """
    models = 2 * len(train.seeds)
    return rates.probe.seconds(np.array([comments])) * max(1.0, models / cores())


def batch_steps(loader: DataLoader[Batch]) -> NDArray[np.int64]:
    """Words of the longest comment in each batch of an epoch."""
    lengths = cast("CommentBatches", loader.dataset).lengths()
    batches = cast("list[list[int]]", loader.sampler)
    return np.array([lengths[batch].max() for batch in batches])


def stand_in(params: Params, train: TrainParams, lengths: Lengths) -> CommentData:
    """Comments as long as the study's, of random words, in batches as the study's."""
    rng = np.random.default_rng(0)
    n = len(lengths.sample)
    held_out = [params.sample.validation, params.sample.test]
    sample = TokenizedSample(
        tokens=rng.integers(1, WORDS + 1, lengths.sample.sum(), dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths.sample)]),
        labels=rng.integers(0, 2, n, dtype=np.int8),
        splits=rng.choice(SPLITS, n, p=[1 - sum(held_out), *held_out]),
        telling_distance=np.full(n, np.nan, dtype=np.float32),
    )
    vectors = rng.standard_normal((WORDS + 1, params.embed.dimensions)).astype(np.float32)
    vectors *= LENGTH / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0
    return CommentData(
        sample,
        vectors,
        padding=params.embed.padding,
        max_length=lengths.steps,
        batch_size=train.batch_size,
        seed=0,
    )


def measure(cell: str, params: Params, lengths: Lengths) -> Rates:
    """Time one cell on comments that stand in for the study's; takes seconds.

    To be called in a pool of :mod:`rnngrad.workers`, since that is how training runs: on a CPU
    with one thread.
    """
    train = params.train_of(cell)
    data = stand_in(params, train, lengths)
    learner = Learner(cell, params.embed.dimensions, train)
    model = learner.classifier
    probe = _line([_probed(count, cell, model, params, data) for count in PROBED])
    learner.to("cuda" if torch.cuda.is_available() else "cpu")
    # as the training does: on a CPU, denormal numbers cost ten times as much
    torch.set_flush_denormal(True)
    optimizer = learner.configure_optimizers()

    def update(batch: Batch) -> None:
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(model(batch), batch.labels).backward()
        if train.clip_norm is not None:
            clip_grad_norm_(model.parameters(), train.clip_norm)
        optimizer.step()

    of_update = _line(_timed_batches(update, data.train_dataloader(), learner.device))
    with torch.no_grad():
        of_evaluation = _line(_timed_batches(model, data.val_dataloader(), learner.device))
    return Rates(of_update, of_evaluation, probe)


def _timed_batches(
    step: Callable[[Batch], object], loader: DataLoader[Batch], device: torch.device
) -> list[tuple[int, float]]:
    """Longest comment and seconds of one batch for each of ``TIMED``."""
    batches = list(cast("list[list[int]]", loader.sampler))
    steps = batch_steps(loader)
    order = np.argsort(steps)
    chosen = [order[round(share * (len(order) - 1))] for share in TIMED]

    def run(positions: list[int]) -> None:
        step(move_data_to_device(loader.dataset[positions], device))  # type: ignore[index]

    return [(int(steps[i]), _seconds(partial(run, batches[i]))) for i in chosen]


def _probed(
    comments: int, cell: str, model: CommentClassifier, params: Params, data: CommentData
) -> tuple[int, float]:
    """The number of comments and the seconds of probing them."""
    test = data.splits["test"]
    probe = params.probe.model_copy(update={"comments": comments})
    inputs = probe_inputs(test.sample, test.vectors, params.embed, probe)
    state = initial_state(model.recurrent, len(inputs.inputs), probe)

    def run() -> None:
        rnngrad.jacobian_curves(
            model.recurrent,
            inputs.inputs,
            state,
            state=STATE[cell],
            lengths=inputs.lengths,
            spectral_steps=log_spaced_steps(inputs.inputs.shape[1], probe.spectral_steps),
        )

    return len(inputs.inputs), _seconds(run, repeats=1)


def _line(points: list[tuple[int, float]]) -> Line:
    (small, fast), (large, slow) = points
    # two of one size have no slope, and noise may make it negative
    slope = max(slow - fast, 0.0) / max(large - small, 1)
    return Line(max(fast - slope * small, 0.0), slope)


def _seconds(run: Callable[[], None], repeats: int = REPEATS) -> float:
    """The median of some runs; one before them warms up where there is more than one."""
    # one thread's processor time does not grow when others keep the machine busy
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    seconds = []
    for _ in range(repeats + (repeats > 1)):
        start = clock()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return float(np.median(seconds[-repeats:]))
