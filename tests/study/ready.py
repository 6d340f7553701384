"""Modules of a test's own making, ready to be measured."""

import torch
from torch import Tensor, nn

from rnngrad.study.runs import Run
from rnngrad.study.runs.open_model import Inputs, Opened, State


def words_alone(x: Tensor, labels: Tensor | None = None) -> Inputs:
    """Words at every step."""
    B, T, _ = x.shape
    return Inputs(x, [range(T)] * B, torch.full((B,), T), labels)


def ready(
    module: nn.RNNBase, inputs: Inputs, start: State, head: nn.Linear | None = None
) -> Opened:
    run = Run(
        cell="lstm" if isinstance(module, nn.LSTM) else "rnn",
        seed=1,
        weights="trained",
        input="comments",
        padding="pre",
        steps=None,
        examples=len(inputs.words),
        inputs_seed=1,
        initial_state="uniform",
        state_seed=1,
    )
    return Opened(run, module, head, inputs, start)
