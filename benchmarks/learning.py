"""Weight gradients by step, and training, beside what plain torch takes for the same."""

from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import rnngrad
from benchmarks.cases import Case, make_problem
from benchmarks.competitors.probe import lstm_of, state_of
from benchmarks.extrapolation import from_some_steps
from benchmarks.findings import Finding, Sizes, interleaved, ratio
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
RESOLVED = 1e-6  # a part below this share of its row's largest is not compared


def triangle(sizes: Sizes) -> list[Finding]:
    """The norms of dL_T/dW_hh by step, for all T, against T backward passes; one example."""
    T = sizes.steps
    problem = make_problem(Case(T, sizes.hidden, 1))
    lstm, state, inputs = lstm_of(problem), state_of(problem), torch.from_numpy(problem.inputs)
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(1, T, sizes.hidden, generator=generator)
    ratios, parts = [], np.zeros((T, T))
    passes = _BackwardPasses(lstm, inputs[0], state, gradients[0])
    for _ in range(max(1, sizes.rounds - 1)):
        start = perf_counter()
        parts = rnngrad.weight_gradient_parts(lstm, inputs, gradients, state)["weight_hh_l0"][0]
        seconds = perf_counter() - start
        ratios.append(passes.seconds_of_all() / seconds)
    errors = _errors_of_last_row(lstm, inputs[0], state, gradients[0], parts[-1], passes)
    note = "worst relative error: {:.0e}, backward passes {:.0e}".format(*errors)
    what = f"weight-gradient triangle, T = {T:,}, against T backward passes (extrapolated)"
    median = float(np.median(ratios))
    return [Finding(what, median, min(ratios), max(ratios), "times faster", note)]


class _BackwardPasses:
    """The forward pass of one example that keeps its pre-activations, and a loss at every step."""

    def __init__(self, lstm: nn.LSTM, x: Tensor, state: tuple[Tensor, Tensor], g: Tensor) -> None:
        W_ih, W_hh, b_ih, b_hh = (p.detach() for p in lstm.parameters())
        a_x = (x @ W_ih.T + b_ih + b_hh).requires_grad_()
        h, c = (s[0, 0] for s in state)
        self.a, self.h, self.losses = [], [h], []
        for t in range(len(x)):
            self.a.append(a_x[t] + W_hh @ h)
            i, f, z, o = self.a[-1].chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * z.tanh()
            h = o.sigmoid() * c.tanh()
            self.h.append(h)
            self.losses.append(h @ g[t])

    def parts(self, t: int) -> Tensor:
        """||delta_s h_(s-1)^T|| of the loss at step t for s = 1 .. t."""
        delta = torch.autograd.grad(self.losses[t - 1], self.a[:t], retain_graph=True)
        norms = [torch.linalg.vector_norm(torch.stack(v), dim=1) for v in (delta, self.h[:t])]
        return (norms[0] * norms[1]).detach()

    def seconds_of_all(self) -> float:
        T, seconds = len(self.losses), {}
        for t in (1, max(1, T // 4), max(1, T // 2), T):
            start = perf_counter()
            self.parts(t)
            seconds[t] = perf_counter() - start
        return from_some_steps(seconds, T)


def _errors_of_last_row(
    lstm: nn.LSTM,
    x: Tensor,
    state: tuple[Tensor, Tensor],
    gradients: Tensor,
    found: np.ndarray,
    passes: _BackwardPasses,
) -> tuple[float, float]:
    """Of rnngrad and of float32's backward pass against autograd in float64."""
    doubles = [v.double() for v in (x, *state, gradients)]
    exact = nn.LSTM(x.shape[1], gradients.shape[1], batch_first=True).double()
    exact.load_state_dict({k: v.double() for k, v in lstm.state_dict().items()})
    reference = _BackwardPasses(exact, doubles[0], (doubles[1], doubles[2]), doubles[3])
    true = reference.parts(len(x)).numpy()
    kept = true > RESOLVED * true.max()
    values = (found, passes.parts(len(x)).double().numpy())
    errors = [float(np.abs(v[kept] / true[kept] - 1).max()) for v in values]
    return errors[0], errors[1]


def training(sizes: Sizes) -> list[Finding]:
    """A training step per comment, with and without paying for the padding.

    Denormal numbers are flushed, as in the study's training: gradients die on their way.
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
    note = f"loss and gradients differ by {_difference(model, batches[0], padded[0]):.0e}"
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
    return max(float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in pairs)
