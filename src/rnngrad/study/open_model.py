"""The one place that opens a model of the study, with what it reads and its initial state."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import RECURRENT
from rnngrad.models.initializers import initialize_like_keras, set_chrono_biases, set_identity
from rnngrad.models.weights import load_classifier
from rnngrad.params import TrainParams
from rnngrad.probe.cells import SigmoidStateLSTM
from rnngrad.study.inputs import Inputs, inputs_of
from rnngrad.study.runs import Run, Untrained

State = Tensor | tuple[Tensor, Tensor]  # h, or (h, c) of an LSTM


class Opened(NamedTuple):
    """A run, ready to be measured.

    Attributes:
        module: one recurrent layer in float32.
        head: the logistic unit that reads its last h; None where the model was not trained here.
        inputs, start: what the module reads, and from which state, (1, B, H) or a pair of them.
    """

    module: nn.RNNBase
    head: nn.Linear | None
    inputs: Inputs
    start: State


def open_model(
    run: Run,
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
    file: Path | None = None,
    train: TrainParams | None = None,
) -> Opened:
    """Open a run's model.

    Args:
        run: says which.
        sample, vectors: the embedded comments.
        file, train: the weights and the settings of their training, where the run is not untrained.

    Raises:
        InputError: the weights are missing or another model's.
    """
    inputs = inputs_of(run.reads, sample, vectors)
    features = inputs.x.shape[2]
    if isinstance(run.weights, Untrained):
        module, head = _untrained(run, run.weights, features), None
    else:
        assert file is not None and train is not None
        classifier = load_classifier(file, run.cell, features, train)
        module, head = classifier.recurrent, classifier.head
    start = initial_state(module, len(inputs.x), run.initial_state, run.state_seed)
    return Opened(module, head, inputs, start)


def _untrained(run: Run, weights: Untrained, features: int) -> nn.RNNBase:
    torch.manual_seed(run.seed)
    relu = {"nonlinearity": "relu"} if weights.initializer == "identity" else {}
    sigmoid = weights.state_nonlinearity == "sigmoid"
    kind = SigmoidStateLSTM if sigmoid else RECURRENT[run.cell]
    module = kind(features, weights.units, batch_first=True, **relu)
    if weights.initializer != "torch":
        initialize_like_keras(module, weights.forget_bias)
    if weights.initializer == "identity":
        set_identity(module)
    if weights.initializer == "chrono":
        assert run.reads.steps is not None
        set_chrono_biases(module, run.reads.steps)
    return module


def initial_state(module: nn.RNNBase, examples: int, kind: str, seed: int = 0) -> State:
    """(1, B, H) states, or a pair of them for an LSTM: zeros, or U(0, 1) as in the question.

    ``kind`` is "zero" or "uniform". All examples have the same one: then the padding in front of
    them is one and the same, and the probe runs it once.
    """
    shape = (1, 1, module.hidden_size)
    generator = torch.Generator().manual_seed(seed)
    h, c = (
        (torch.rand(shape, generator=generator) if kind == "uniform" else torch.zeros(shape))
        .expand(-1, examples, -1)
        .contiguous()
        for _ in range(2)
    )
    return (h, c) if isinstance(module, nn.LSTM) else h


@torch.no_grad()
def state_after(module: nn.RNNBase, x: Tensor) -> State:
    """The state after some inputs (B, T, D), from the zero state; there may be no inputs."""
    start = initial_state(module, len(x), "zero")
    return module(x, start)[1] if x.shape[1] else start


def some(state: State, examples: slice) -> State:
    """The states of some of the examples."""
    if isinstance(state, tuple):
        h, c = (part[:, examples].contiguous() for part in state)
        return h, c
    return state[:, examples].contiguous()


def in_float64(state: State) -> State:
    return (state[0].double(), state[1].double()) if isinstance(state, tuple) else state.double()
