"""Modules of a test's own making, ready to be measured."""

import torch
from torch import Tensor, nn

from rnngrad.study.runs import Run
from rnngrad.study.runs.open_model import Inputs, Opened, State
from tiny import make_run


def words_alone(x: Tensor, labels: Tensor | None = None) -> Inputs:
    """Words at every step."""
    B, T, _ = x.shape
    return Inputs(x, [range(T)] * B, torch.full((B,), T), labels)


def ready(
    module: nn.RNNBase, inputs: Inputs, start: State, head: nn.Linear | None = None
) -> Opened:
    cell = "lstm" if isinstance(module, nn.LSTM) else "rnn"
    run = make_run(cell=cell, seed=1, examples=len(inputs.words))
    return Opened(run, module, head, inputs, start)


def opened(run: Run, module: nn.RNNBase, head: nn.Linear | None = None) -> Opened:
    """The module; what it reads of the run's own inputs is not asked for."""
    nothing = torch.zeros(1, 1, module.input_size)
    return Opened(run, module, head, words_alone(nothing), nothing)
