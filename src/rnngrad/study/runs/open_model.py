"""The one place that opens a model of the study, with its inputs and its initial state."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from rnngrad.models.classifier import RECURRENT
from rnngrad.models.initializers import initialize_like_keras, set_chrono_biases, set_identity
from rnngrad.models.weights import load_classifier
from rnngrad.params import TrainParams
from rnngrad.probe.cells import SigmoidStateLSTM
from rnngrad.study.runs import Run
from rnngrad.study.runs.inputs import Embedding, Inputs, inputs_of, passage_of

State = Tensor | tuple[Tensor, Tensor]  # h, or (h, c) of an LSTM, (1, B, H) each


class Opened(NamedTuple):
    """A run that is ready to be measured.

    Attributes:
        module, head: one recurrent layer, and the nn.Linear that reads it, None without a file.
        inputs, start: what the layer reads, and from which state.
    """

    run: Run
    module: nn.RNNBase
    head: Any
    inputs: Inputs
    start: State

    @property
    def kernel(self) -> Tensor:
        """W_hh (gates x H, H), a view of the module's."""
        return cast("Tensor", self.module.weight_hh_l0).detach()

    def of(self, examples: slice) -> "Opened":
        """The same model on some of the examples."""
        start = each(lambda part: part[:, examples], self.start)
        return self._replace(inputs=self.inputs.of(examples), start=start)

    def double(self) -> "Opened":
        """A copy that computes in float64, whose weights may be changed."""
        module, head = copy.deepcopy((self.module, self.head))
        inputs = self.inputs._replace(x=self.inputs.x.double())
        start = each(Tensor.double, self.start)
        return Opened(self.run, module.double(), head and head.double(), inputs, start)


def open_model(
    run: Run, embedding: Embedding, file: Path | None = None, train: TrainParams | None = None
) -> Opened:
    """Open a run's model, with the file and the training settings of weights that come from one.

    Raises:
        InputError: the weights are missing or another model's.
    """
    inputs, head = inputs_of(run, embedding), None
    features = inputs.x.shape[2]
    if file is None or train is None:
        module = _initial(run, features)
    else:
        classifier = load_classifier(file, run.cell, features, train)
        module, head = classifier.recurrent, classifier.head
    start = initial_state(module, len(inputs.x), run.initial_state, run.state_seed)
    return Opened(run, module, head, inputs, start)


def _initial(run: Run, features: int) -> nn.RNNBase:
    torch.manual_seed(run.seed)
    relu = {"nonlinearity": "relu"} if run.initializer == "identity" else {}
    sigmoid = run.state_nonlinearity == "sigmoid"
    kind = SigmoidStateLSTM if sigmoid else RECURRENT[run.cell]
    module = kind(features, run.units, batch_first=True, **relu)
    if run.initializer != "torch":
        initialize_like_keras(module, run.forget_bias or 0.0)
    if run.initializer == "identity":
        set_identity(module)
    if run.initializer == "chrono":
        set_chrono_biases(module, run.steps or 0)
    return module


def initial_state(module: nn.RNNBase, examples: int, kind: str, seed: int = 0) -> State:
    """The state before the first step: ``zero``, or ``uniform``, U(0, 1) as in the question.

    All examples have the same one: then the probe runs the padding in front of them once.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(2, module.hidden_size, generator=generator) * (kind == "uniform")
    h, c = (part.expand(1, examples, -1).contiguous() for part in draw)
    return (h, c) if isinstance(module, nn.LSTM) else h


def open_passage(model: Opened, embedding: Embedding) -> Opened:
    """The same model on the same number of words of several comments, see `passage_of`."""
    before, passage = passage_of(model.run, embedding)
    return model._replace(inputs=passage, start=state_after(model.module, before))


@torch.no_grad()
def state_after(module: nn.RNNBase, x: Tensor) -> State:
    """The state after some inputs (B, T, D), from the zero state; there may be no inputs."""
    start = initial_state(module, len(x), "zero")
    return module(x, start)[1] if x.shape[1] else start


def each(change: Callable[..., Tensor], *states: State) -> State:
    """Apply a function to h, and to c of an LSTM."""
    if not isinstance(states[0], tuple):
        return change(*states)
    h, c = (change(*parts) for parts in zip(*states, strict=True))
    return h, c
