"""Modules of a test's own making, ready to be measured."""

from torch import nn

from rnngrad.study.runs import Run
from rnngrad.study.runs.inputs import Inputs
from rnngrad.study.runs.open_model import Opened, State


def ready(module: nn.RNNBase, inputs: Inputs, start: State) -> Opened:
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
    return Opened(run, module, None, inputs, start)
