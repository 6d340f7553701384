"""The one place that opens a model of the study, with its inputs and its initial state."""

import copy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils._pytree import tree_map

from rnngrad.data.batches import CommentBatches
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import RECURRENT, CommentClassifier
from rnngrad.models.initializers import make_layer
from rnngrad.params import TrainParams
from rnngrad.probe.cells import SigmoidStateLSTM
from rnngrad.stage import read_output
from rnngrad.study.runs import Run

Embedding = tuple[TokenizedSample, NDArray[np.float32]]  # (V + 1, D) word vectors, row 0 zeros
State = Tensor | tuple[Tensor, Tensor]  # h, or (h, c) of an LSTM, (1, B, H) each


class Inputs(NamedTuple):
    """B examples of T steps."""

    x: Tensor  # (B, T, D) float32; padding is there step by step
    words: list[range]  # by example, the steps (from 0) at which words are read, after padding
    lengths: Tensor  # (B,) int64, the steps that count
    labels: Tensor | None = None  # (B,) float32 of comments

    def ranges(self, *, settled: bool = False) -> dict[str, list[range]]:
        """By kind of input, the steps at which each example reads it; there may be none.

        Padding is ``settled`` after its first 100 steps, or its first half if it has fewer.
        """
        padding = [range(own.start) for own in self.words]
        if settled:
            # by then the initial state has faded
            padding = [steps[min(100, len(steps) // 2) :] for steps in padding]
        return {"padding": padding, "words": self.words}

    def most_of_both(self) -> int:
        """The example with the most steps of its rarer kind of input; unread kinds do not count."""
        counts = [[len(steps) for steps in own] for own in self.ranges().values() if any(own)]
        return int(np.argmax(np.min(counts, axis=0)))


class Opened(NamedTuple):
    """A run that is ready to be measured."""

    run: Run
    module: nn.RNNBase  # one layer
    head: Any  # the nn.Linear that reads it; None without a file
    inputs: Inputs
    start: State

    @property
    def problem(self) -> tuple[nn.RNNBase, Tensor, State]:
        """Module, inputs and initial state, as the probe's functions take them."""
        return self.module, self.inputs.x, self.start

    @property
    def kernel(self) -> Tensor:
        """W_hh (gates x H, H), a view of the module's."""
        return cast("Tensor", self.module.weight_hh_l0).detach()

    def of(self, examples: slice) -> "Opened":
        """The same model on some of the examples."""
        inputs = Inputs._make(part if part is None else part[examples] for part in self.inputs)
        start = tree_map(lambda part: part[:, examples], self.start)
        return self._replace(inputs=inputs, start=start)

    def double(self) -> "Opened":
        """A copy that computes in float64, whose weights may be changed."""
        module, head = copy.deepcopy((self.module, self.head))
        inputs = self.inputs._replace(x=self.inputs.x.double())
        start = tree_map(Tensor.double, self.start)
        return Opened(self.run, module.double(), head and head.double(), inputs, start)


def open_model(
    run: Run, embedding: Embedding, file: Path | None = None, train: TrainParams | None = None
) -> Opened:
    """Open a run's model, with the file and the training settings of weights that come from one.

    Weights that are missing or damaged are an `InputError`.
    """
    inputs, head = inputs_of(run, embedding), None
    features = inputs.x.shape[2]
    if file is None or train is None:
        torch.manual_seed(run.seed)
        kind = SigmoidStateLSTM if run.state_nonlinearity == "sigmoid" else RECURRENT[run.cell]
        how = {"forget_bias": run.forget_bias or 0.0, "longest": run.steps or 0}
        module = make_layer(kind, features, run.units or 0, run.initializer, **how)
    else:
        classifier = load_classifier(file, run.cell, features, train)
        module, head = classifier.recurrent, classifier.head
    start = initial_state(module, len(inputs.x), run.initial_state, run.state_seed)
    return Opened(run, module, head, inputs, start)


def load_classifier(path: Path, cell: str, features: int, params: TrainParams) -> CommentClassifier:
    """The classifier with the weights of ``path``; InputError where they are missing or damaged."""
    model = CommentClassifier(cell, features, params)
    reader = partial(torch.load, map_location="cpu", weights_only=True)
    model.load_state_dict(read_output(path, "dvc repro", reader))
    return model.eval()


def open_passage(
    model: Opened, embedding: Embedding, comments: int = 4, steps: int = 128
) -> Opened:
    """The same model on as many words of several comments, in the state that the steps before left.

    These are the shortest test comments that have ``steps`` words, else the longest. All are cut to
    the shortest of them. Where padding is in front their last words count, else the first.
    """
    sample, run = embedding[0], model.run
    test = sample.indices_of("test")
    lengths = np.minimum(sample.lengths[test], sample.max_length(run.steps))
    order = np.argsort(lengths, kind="stable")
    first = min(int((lengths < steps).sum()), max(len(test) - comments, 0))
    chosen = order[first : first + comments]
    T = min(steps, int(lengths[chosen].min()))
    x, _, _, labels = padded_comments(run, embedding, test[chosen])
    begin = x.shape[1] - T if run.padding == "pre" else 0
    words = _unpadded(x[:, begin : begin + T], range(T))._replace(labels=labels)
    return model._replace(inputs=words, start=state_after(model.module, x[:, :begin]))


def inputs_of(run: Run, embedding: Embedding) -> Inputs:
    """The inputs of a run, the same for every model."""
    sample, vectors = embedding
    T, n, test = sample.max_length(run.steps), run.examples, sample.indices_of("test")
    rng = np.random.default_rng(run.inputs_seed)
    if run.input == "comments":
        chosen = np.sort(rng.choice(test, min(n, len(test)), replace=False))
        found = padded_comments(run, embedding, chosen)
    elif run.input == "stream":
        # from the first comment again where all of them have fewer words
        orders = (rng.permutation(test) for _ in range(n))
        words = (np.concatenate([sample.tokens_of(i) for i in order]) for order in orders)
        streams = np.stack([np.resize(stream, T) for stream in words])
        found = _unpadded(torch.from_numpy(vectors[streams]), range(T))
    elif run.input == "random_tokens":
        # Keras' Embedding before training: U(-0.05, 0.05)
        table = rng.uniform(-0.05, 0.05, vectors.shape).astype(np.float32)
        found = _unpadded(torch.from_numpy(table[rng.integers(1, len(table), (n, T))]), range(T))
    else:
        found = _unpadded(torch.zeros(n, T, vectors.shape[1]), range(T, T))
    return found._replace(x=found.x[:, :, : run.features].contiguous())


def _unpadded(x: Tensor, words: range) -> Inputs:
    return Inputs(x, [words] * len(x), torch.full((len(x),), x.shape[1]))


def padded_comments(run: Run, embedding: Embedding, chosen: NDArray[np.int64]) -> Inputs:
    """Comments as a classifier reads them, given by their positions in the sample."""
    limit = embedding[0].max_length(run.steps)
    comments = CommentBatches(*embedding, chosen, run.padding, limit)
    batch = comments[list(range(len(chosen)))]
    starts, ends = batch.starts + batch.shared_prefix, batch.lengths + batch.shared_prefix
    words = [*map(range, starts.tolist(), ends.tolist())]
    x = pad(batch.inputs, (0, 0, batch.shared_prefix, 0))
    return Inputs(x, words, ends, batch.labels)


def initial_state(module: nn.RNNBase, examples: int, kind: str, seed: int = 0) -> State:
    """The state before the first step: ``zero``, or ``uniform``, U(0, 1) as in the question."""
    # all examples have the same one: then the probe runs the padding in front of them once
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(2, module.hidden_size, generator=generator) * (kind == "uniform")
    h, c = (part.expand(1, examples, -1).contiguous() for part in draw)
    return (h, c) if isinstance(module, nn.LSTM) else h


@torch.no_grad()
def state_after(module: nn.RNNBase, x: Tensor, start: State | None = None) -> State:
    """The state after some inputs (B, T, D), from zero by default; there may be no inputs."""
    start = initial_state(module, len(x), "zero") if start is None else start
    return module(x, start)[1] if x.shape[1] else start
