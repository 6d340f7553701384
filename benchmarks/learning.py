"""Training, beside what plain torch takes for the same."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.findings import Finding, Sizes, interleaved, ratio
from benchmarks.verification import RefusedError
from rnngrad.data.batches import Batch, CommentBatches
from rnngrad.data.datamodule import SimilarLengths
from rnngrad.data.demo import real_word_counts
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import CommentClassifier
from rnngrad.params import TrainParams

COMMENTS = 640  # of the question's lengths
BATCH = 32
PADDED_BATCHES = 2  # that pay for all their padding
VOCABULARY = 1000
LIMIT = 1e-4  # relative, of the loss and of each weight's gradient, from padding everything


def training(sizes: Sizes) -> list[Finding]:
    """A training step per comment, with and without paying for the padding.

    Denormal numbers are flushed, as in the study's training: gradients die on their way.

    Raises:
        RefusedError: the loss or a gradient differs from padding everything by more than 1e-4.
    """
    torch.set_flush_denormal(True)
    return [_trained(padding, sizes) for padding in ("pre", "none")]


class _Padded(NamedTuple):
    """inputs (B, T, D) with all their zeros, the step the state is read after, labels."""

    inputs: Tensor
    lengths: Tensor
    labels: Tensor


def _trained(padding: str, sizes: Sizes) -> Finding:
    data = _comments(padding, sizes)
    batches = [data[chosen] for chosen in SimilarLengths(data.lengths(), BATCH, seed=0)]
    padded = [_padded(batch, padding, sizes.steps) for batch in batches[:PADDED_BATCHES]]
    model = _model(sizes)
    contenders = {
        "ours": lambda: [_backward(model, model(b), b.labels) for b in batches],
        "padded": lambda: [_backward(model, _plain(model, b), b.labels) for b in padded],
    }
    seconds = interleaved(contenders, sizes.rounds)
    comments = [sum(len(b.labels) for b in part) for part in (batches, padded)]
    words = data.lengths().mean()
    what = f"training, padding {padding}, mean length {words:.0f}, against padding everything"
    difference = _difference(model, batches[0], padded[0])
    if not difference <= LIMIT:  # NaN is refused, too
        raise RefusedError(f"loss or gradients differ by {difference:.0e}; at most {LIMIT:.0e}")
    note = f"loss and gradients differ by {difference:.0e}"
    per_comment = comments[0] / comments[1]
    return ratio(what, seconds, "padded", "ours", "times faster", per_comment, note)


def _comments(padding: str, sizes: Sizes) -> CommentBatches:
    rng = np.random.default_rng(0)
    lengths = np.minimum(real_word_counts(COMMENTS), sizes.steps)
    sample = TokenizedSample(
        tokens=rng.integers(1, VOCABULARY + 1, lengths.sum(), dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=rng.integers(0, 2, COMMENTS).astype(np.int8),
        splits=np.full(COMMENTS, "train"),
        telling_distance=np.full(COMMENTS, np.nan, dtype=np.float32),
    )
    vectors = rng.standard_normal((VOCABULARY + 1, 100), dtype=np.float32)
    vectors[0] = 0
    everything = np.arange(COMMENTS)
    return CommentBatches(sample, vectors, everything, padding, sizes.steps)  # type: ignore[arg-type]


def _padded(batch: Batch, padding: str, T: int) -> _Padded:
    missing = batch.inputs.new_zeros(len(batch.labels), T - batch.inputs.shape[1], 100)
    both = (missing, batch.inputs) if padding == "pre" else (batch.inputs, missing)
    lengths = torch.full_like(batch.lengths, T) if padding == "pre" else batch.lengths
    return _Padded(torch.cat(both, dim=1), lengths, batch.labels)


def _plain(model: CommentClassifier, padded: _Padded) -> Tensor:
    """Logits as plain torch computes them: the module over all steps."""
    states, _ = model.recurrent(padded.inputs)
    last = states[torch.arange(len(padded.lengths)), padded.lengths - 1]
    return model.head(last).squeeze(-1)


def _model(sizes: Sizes) -> CommentClassifier:
    torch.manual_seed(0)
    params = TrainParams(
        seeds=[0],
        hidden=sizes.hidden,
        initializer="keras",
        forget_bias=1.0,
        epochs=1,
        batch_size=BATCH,
        learning_rate=0.001,
        clip_norm=None,
    )
    return CommentClassifier("lstm", 100, params)


def _backward(model: CommentClassifier, logits: Tensor, labels: Tensor) -> Tensor:
    model.zero_grad()
    loss = binary_cross_entropy_with_logits(logits, labels)
    loss.backward()
    return loss.detach()


def _difference(model: CommentClassifier, ours: Batch, padded: _Padded) -> float:
    """Largest relative difference of the loss and of each weight's gradient."""
    results = []
    for logits in (model(ours), _plain(model, padded)):
        loss = _backward(model, logits, ours.labels)
        results.append([loss, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    pairs = zip(*results, strict=True)
    return float(np.max([float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in pairs]))
