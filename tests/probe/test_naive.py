"""What autograd returns in a given dtype: one sweep for all steps, shared where it can be."""

import pytest
import torch
from torch import Tensor, nn

from rnngrad.probe import naive
from rnngrad.probe.naive import flushed, naive_column_sums
from rnngrad.probe.problem import problem_of
from rnngrad.probe.trajectory import Chunk, LayerRun, run_layer

B, T, H, D = 4, 90, 5, 3
PADDING = 70  # steps that all examples share, but for the first, which shares ten more
KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def padded(cell: str, forget_bias: float = 0.0) -> tuple[nn.RNNBase, Tensor, Tensor]:
    """A module, zeros in front of the inputs (B, T, D), and one initial state for all (1, B, H)."""
    torch.manual_seed(3)
    module = KINDS[cell](D, H, batch_first=True)
    if cell == "lstm":
        with torch.no_grad():
            dict(module.named_parameters())["bias_ih_l0"][H : 2 * H] = forget_bias
    x = torch.zeros(B, T, D)
    x[0, PADDING + 10 :] = torch.randn(T - PADDING - 10, D)
    x[1:, PADDING:] = torch.randn(B - 1, T - PADDING, D)
    return module, x, torch.rand(1, 1, H).expand(1, B, H).contiguous()


def ran(module: nn.RNNBase, x: Tensor, state: Tensor, dtype: torch.dtype) -> LayerRun:
    pair = (state, state) if isinstance(module, nn.LSTM) else state
    problem = problem_of(module, x, pair)
    return run_layer(problem, Chunk(torch.arange(len(x)), problem.lengths), 0, dtype)


def one_by_one(module: nn.RNNBase, x: Tensor, state: Tensor, name: str) -> Tensor:
    """(T, B): every example in a batch of its own, in float64."""
    runs = [ran(module, x[b : b + 1], state[:, b : b + 1], torch.float64) for b in range(len(x))]
    return torch.cat([naive_column_sums(run, name, flush=False) for run in runs], dim=1)


@pytest.mark.parametrize(("cell", "name"), [("rnn", "h"), ("gru", "h"), ("lstm", "full")])
def test_examples_that_begin_alike_are_swept_as_one(cell: str, name: str) -> None:
    module, x, state = padded(cell)
    run = ran(module, x, state, torch.float64)
    assert naive._steps_alike(run) == PADDING
    found, alone = naive_column_sums(run, name, flush=False), one_by_one(module, x, state, name)
    torch.testing.assert_close(found, alone, rtol=1e-12, atol=0)
    assert (found[:PADDING] == found[:PADDING, :1]).all()
    assert (found[PADDING + 1 :, 0] != found[PADDING + 1 :, 1]).all()
    for at in ([1, PADDING], [PADDING + 1, T], [7, PADDING, PADDING + 1]):
        some = naive_column_sums(run, name, flush=False, at=at)
        torch.testing.assert_close(some, alone[[t - 1 for t in at]], rtol=1e-12, atol=0)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_examples_with_states_of_their_own_are_not_alike(cell: str) -> None:
    module, x, state = padded(cell)
    state = state.clone()
    state[0, 2, 1] += 0.1
    run = ran(module, x, state, torch.float64)
    assert naive._steps_alike(run) == 0
    found = naive_column_sums(run, "h", flush=False)
    alone = one_by_one(module, x, state, "h")
    torch.testing.assert_close(found, alone, rtol=1e-12, atol=0)
    assert (found[:20, 2] != found[:20, 1]).all()


@pytest.mark.parametrize("flush", [False, True])
def test_the_shared_sweep_underflows_as_that_of_the_batch(
    flush: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs one example, and its products have as many rows as those of the batch."""
    module, x, state = padded("lstm", forget_bias=-5.0)
    run = ran(module, x, state, torch.float32)
    rows: list[int] = []
    push_back = naive._push_back

    def counted(run: LayerRun, one: object, losses: slice, h: Tensor, *rest: object) -> None:
        rows.append(len(h) * (losses.stop - losses.start))
        push_back(run, one, losses, h, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(naive, "_push_back", counted)
    shared = naive_column_sums(run, "c", flush=flush)
    least, cost = min(rows), sum(rows)
    rows.clear()
    monkeypatch.setattr(naive, "_steps_alike", lambda _: 0)
    whole = naive_column_sums(run, "c", flush=flush)
    assert least >= B
    assert cost < 0.8 * sum(rows)
    torch.testing.assert_close(shared, whole, rtol=1e-5, atol=2e-45)
    assert (whole[:PADDING] == 0).any()
    assert torch.equal(shared == 0, whole == 0)


def test_a_later_overflow_leaves_the_steps_before_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x, state = padded("rnn")
    x = x.double()
    x[:, 50] = 1e39  # inf in float32, and inf - inf in the pre-activations
    run = ran(module.double(), x, state.double(), torch.float32)
    shared = naive_column_sums(run, "h", flush=False)
    assert shared[:50].isfinite().all()
    assert shared[50:].isnan().all()
    monkeypatch.setattr(naive, "_steps_alike", lambda _: 0)
    whole = naive_column_sums(run, "h", flush=False)
    torch.testing.assert_close(shared, whole, rtol=1e-5, atol=0, equal_nan=True)


def test_steps_with_nothing_alive_between_them_change_nothing() -> None:
    module, x, state = padded("lstm", forget_bias=-9.0)
    run = ran(module, x, state, torch.float32)
    all_steps = naive_column_sums(run, "c", flush=True)
    dead = (all_steps == 0).all(dim=1).nonzero()
    assert 0 < int(dead[0]) < T - 45
    at = [2, int(dead[0]), int(dead[0]) + 1, T - 40, T]
    some = naive_column_sums(run, "c", flush=True, at=at)
    torch.testing.assert_close(some, all_steps[[t - 1 for t in at]], rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flushing_takes_subnormal_numbers_alone(dtype: torch.dtype) -> None:
    tiny = torch.tensor(torch.finfo(dtype).tiny, dtype=dtype)
    below = torch.nextafter(tiny, torch.zeros_like(tiny))
    inf, nan = torch.full_like(tiny, torch.inf), torch.full_like(tiny, torch.nan)
    x = torch.stack([tiny, -tiny, below, -below, tiny / 2, inf, nan, torch.ones_like(tiny)])
    assert (x[2:5] != 0).all()
    expected = x.clone()
    expected[2:5] = 0
    assert torch.equal(flushed(x)[:6], expected[:6])
    assert flushed(x)[6].isnan()
    assert flushed(x)[7] == 1
