"""The study's own work: a training step for every comment, and all of its stages."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from benchmarks.turns import Found, Problem, Turn, timed
from rnngrad.data.batches import Batch
from rnngrad.data.demo import real_word_counts
from rnngrad.models.classifier import CommentClassifier
from rnngrad.params import TrainParams

STARTS = "Running stage '"
BATCHES = 20  # of comments of similar length; their lengths are spread as those of the question
PADDED_BATCHES = 2  # that pay for all their padding; each costs the same


def training(problem: Problem, padding: str, everything: str = "") -> Turn:
    """everything: all padding is run through, by plain torch."""
    model, batches = _model(problem), _batches(padding, problem)
    logits = partial(_plain, model) if everything else model
    if everything:
        batches = [_padded(batch, problem) for batch in batches[:PADDED_BATCHES]]
    part = len(batches) / BATCHES
    return timed(lambda some: _train(model, logits, batches[: 1 if some else None]), part)


def _model(problem: Problem) -> CommentClassifier:
    torch.set_flush_denormal(True)  # as the study's training does: gradients die on their way
    torch.manual_seed(0)
    keras = {"hidden": problem.size[1], "initializer": "keras", "forget_bias": 1.0}
    params = TrainParams.model_construct(**keras)
    return CommentClassifier("lstm", problem.inputs.shape[2], params)


def _batches(padding: str, problem: Problem) -> list[Batch]:
    """In random order, so that the first is none of the extremes."""
    (T, _, size), D = problem.size, problem.inputs.shape[2]
    draw = torch.Generator().manual_seed(0)
    words = torch.from_numpy(np.minimum(real_word_counts(BATCHES * size), T)).split(size)
    batches = []
    for i in torch.randperm(BATCHES, generator=draw):
        counts, longest = words[i], int(words[i].max())
        real = torch.arange(longest) < counts[:, None]
        inputs = torch.randn(size, longest, D, generator=draw) * real[..., None]
        starts, prefix = torch.zeros_like(counts), 0
        if padding == "pre":
            inputs, starts, prefix = inputs.flip(1), longest - counts, T - longest
        labels = torch.randint(2, (size,), generator=draw).float()
        batches.append(Batch(inputs, starts, starts + counts, labels, prefix))
    return batches


def _padded(batch: Batch, problem: Problem) -> Batch:
    """All zeros of the shared prefix in front, or as many behind."""
    T, prefix = problem.size[0], batch.shared_prefix
    inputs = pad(batch.inputs, (0, 0, prefix, T - prefix - batch.inputs.shape[1]))
    return batch._replace(inputs=inputs, lengths=batch.lengths + prefix, shared_prefix=0)


def _plain(model: CommentClassifier, batch: Batch) -> Tensor:
    """Logits as plain torch computes them: the layer over all steps."""
    states, _ = model.recurrent(batch.inputs)
    return model.head(states[torch.arange(len(states)), batch.lengths - 1]).squeeze(-1)


def _train(
    model: CommentClassifier, logits: Callable[[Batch], Tensor], batches: Sequence[Batch]
) -> Found:
    """A step for every batch; the loss and the gradients of the first."""
    found: Found = {}
    for batch in batches:
        model.zero_grad()
        loss = binary_cross_entropy_with_logits(logits(batch), batch.labels)
        loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        values = gradients | {"loss": loss.detach()}
        found = found or {name: value.numpy().copy() for name, value in values.items()}
    return found


def stages(problem: Problem) -> Turn:
    """The default study runs from nothing, in a clone of the last commit."""
    # the study sets its numbers of threads itself
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as clone:
        subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
        with subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "--force"], cwd=clone, text=True,
            env=environment | {"PYTHONPATH": f"{clone}/src"}, stdout=subprocess.PIPE,
        ) as dvc:  # fmt: skip
            lines = [(perf_counter(), line) for line in dvc.stdout or ()]
        if dvc.returncode:
            raise RuntimeError("dvc repro failed: no times")
    seconds = stage_seconds([*lines, (perf_counter(), STARTS)])
    return Turn(sum(seconds.values()), {name: np.array(s) for name, s in seconds.items()})


def stage_seconds(lines: Iterable[tuple[float, str]]) -> dict[str, float]:
    """From each line that says that a stage runs to the next such line."""
    starts = [(now, line[len(STARTS) :].split("'")[0]) for now, line in lines if STARTS in line]
    return {name: round(end - now, 1) for (now, name), (end, _) in pairwise(starts)}
