"""Jacobian curves of the study's models on test comments."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import rnngrad
from rnngrad.data.batches import CommentBatches
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.weights import load_classifier, weight_file
from rnngrad.params import EmbedParams, ProbeParams, TrainParams
from rnngrad.study.decades import log10_mean
from rnngrad.study.gates import gate_histogram, memory_gate
from rnngrad.study.results import MILESTONES

STATISTICS = ("column_sum", "frobenius", "spectral")
STATE = {"rnn": "h", "gru": "h", "lstm": "c"}  # the question's d h_t/d h_0 and d c_t/d c_0


class ProbeInputs(NamedTuple):
    """What the probed modules read.

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


class ProbedModel(NamedTuple):
    """What the probe finds in one model.

    Attributes:
        log10: by statistic, float64 (B, T); NaN beyond a comment's end.
        gates: histogram of the LSTM's forget gate or the GRU's update gate; None for an RNN.
    """

    seed: int
    weights: str
    log10: dict[str, NDArray[np.float64]]
    gates: pd.DataFrame | None


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
        gates = gate_histogram(memory_gate(module, inputs.inputs, start), inputs.steps())
    found = {name: values for name, values in log10.items() if values is not None}
    return ProbedModel(seed, weights, found, gates)


def summarize(cell: str, model: ProbedModel) -> pd.DataFrame:
    """One row per statistic and step: log10 of the mean over examples, and their spread.

    Columns: cell, seed, weights, state, statistic, step (from 1), log10_mean, log10_median,
    log10_low, log10_high (10th and 90th percentile), examples (whose comment reaches the step).
    """
    parts = []
    for statistic, values in model.log10.items():
        reached = ~np.isnan(values).all(axis=0)
        low, median, high = _quantiles(values[:, reached])
        part = pd.DataFrame(
            {
                "step": np.flatnonzero(reached) + 1,
                "log10_mean": log10_mean(values[:, reached]),
                "log10_median": median,
                "log10_low": low,
                "log10_high": high,
                "examples": (~np.isnan(values[:, reached])).sum(axis=0),
            }
        )
        names = {
            "cell": cell,
            "seed": model.seed,
            "weights": model.weights,
            "state": STATE[cell],
            "statistic": statistic,
        }
        parts.append(part.assign(**names)[[*names, *part.columns]])
    return pd.concat(parts, ignore_index=True)


def _quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # the log10 of an exact zero is -inf, between which no quantile can be interpolated
    lowest = -1e300
    found = np.nanquantile(np.maximum(values, lowest), [0.1, 0.5, 0.9], axis=0)
    return np.where(found < lowest / 1e3, -np.inf, found)
