"""Jacobian curves of the study's models on test comments."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import rnngrad
from rnngrad.data.batches import CommentBatches, load_embedding
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.weights import load_classifier, weight_file
from rnngrad.params import EmbedParams, Params, ProbeParams, TrainParams
from rnngrad.study.gates import gate_histogram
from rnngrad.study.probed import STATE, ProbedModel
from rnngrad.study.results import MILESTONES

STATISTICS = ("column_sum", "frobenius", "spectral")


class ProbeInputs(NamedTuple):
    """The inputs of the probed modules.

    Attributes:
        inputs: (B, T, D) float32, padded as in training, but for every step of the padding.
        lengths: (B,) steps that count.
        is_word: (B, T), False on padding.
    """

    inputs: Tensor
    lengths: Tensor
    is_word: NDArray[np.bool_]

    def steps(self) -> dict[str, NDArray[np.bool_]]:
        """Where padding and words are read, (B, T) each; neither after a comment's end."""
        read = np.arange(self.inputs.shape[1]) < self.lengths.numpy()[:, None]
        return {"padding": read & ~self.is_word, "words": read & self.is_word}


def probe_inputs(
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
    embed: EmbedParams,
    probe: ProbeParams,
) -> ProbeInputs:
    """Draw ``probe.comments`` test comments and pad them as ``embed.padding`` says."""
    test = sample.indices_of("test")
    count = min(probe.comments, len(test))
    chosen = np.sort(np.random.default_rng(probe.seed).choice(test, count, replace=False))
    comments = CommentBatches(
        sample, vectors, chosen, embed.padding, sample.max_length(embed.max_length)
    )
    batch = comments[list(range(count))]
    prefix = batch.inputs.new_zeros(count, batch.shared_prefix, vectors.shape[1])
    inputs = torch.cat([prefix, batch.inputs], dim=1)
    T = inputs.shape[1]
    words = comments.lengths()[:, None]
    step = np.arange(T)
    return ProbeInputs(
        inputs=inputs,
        lengths=batch.lengths + batch.shared_prefix,
        is_word=step >= T - words if embed.padding == "pre" else step < words,
    )


def initial_state(
    module: nn.RNNBase, examples: int, probe: ProbeParams
) -> Tensor | tuple[Tensor, Tensor]:
    """(1, B, H) states, or a pair of them for an LSTM, as ``probe`` says."""
    return shared_state(module, examples, probe.initial_state, probe.seed)


def shared_state(
    module: nn.RNNBase, examples: int, kind: str, seed: int
) -> Tensor | tuple[Tensor, Tensor]:
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


def log_spaced_steps(last: int, count: int) -> list[int]:
    """Some ``count`` steps from 1 to ``last``: even on a logarithmic axis, and the milestones."""
    spread = np.geomspace(1, last, count).round().astype(int).tolist()
    return sorted({*spread, *(step for step in MILESTONES if step <= last)})


def probe_model(
    cell: str,
    folder: Path,
    train: TrainParams,
    probe: ProbeParams,
    inputs: ProbeInputs,
    seed: int,
    weights: str,
) -> ProbedModel:
    """Probe one model.

    Args:
        cell, folder, train: its cell, the output folder of its training, its settings.
        probe, inputs: what is asked of it, and what it reads.
        seed, weights: which of the cell's models; ``init`` or ``trained``.
    """
    path = weight_file(folder, weights, seed)
    module = load_classifier(path, cell, inputs.inputs.shape[2], train).recurrent
    start = initial_state(module, len(inputs.inputs), probe)
    names = [*STATISTICS, "hidden_path"] if cell == "lstm" else STATISTICS
    curves = rnngrad.jacobian_curves(
        module,
        inputs.inputs,
        start,
        state=STATE[cell],
        lengths=inputs.lengths,
        statistics=names,
        spectral_steps=log_spaced_steps(inputs.inputs.shape[1], probe.spectral_steps),
    )
    log10 = {name: getattr(curves, f"log10_{name}") for name in (*names, "cell_path")}
    gates = None
    if cell != "rnn":
        gates = gate_histogram(module, inputs.inputs, start, inputs.steps())
    found = {name: values for name, values in log10.items() if values is not None}
    return ProbedModel(seed, weights, found, gates)


def probe_from_files(
    cell: str, build: Path, params: Params, seed: int, weights: str
) -> ProbedModel:
    """:func:`probe_model` of what the stages before have written below ``build``.

    Raises:
        InputError: the embedding or the weights are missing or another model's.
    """
    inputs = probe_inputs(*load_embedding(build / "embed"), params.embed, params.probe)
    folder, train = build / "train" / cell, params.train_of(cell)
    return probe_model(cell, folder, train, params.probe, inputs, seed, weights)
