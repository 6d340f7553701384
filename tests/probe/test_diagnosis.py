"""Verdicts, and what naive autograd really returns, against torch.autograd itself."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import nan
from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import Case, make, set_weights, weights
from torch import Tensor, nn

import rnngrad

TINY = torch.finfo(torch.float32).tiny


@contextmanager
def flushing() -> Iterator[None]:
    """Subnormal float32 results become zero; checked, and switched back."""
    assert torch.set_flush_denormal(True), "this processor cannot flush subnormal numbers"
    try:
        assert (torch.full((4,), TINY) * 0.5 == 0).all(), "flush-to-zero did not take effect"
        yield
    finally:
        torch.set_flush_denormal(False)
    assert (torch.full((4,), TINY) * 0.5 != 0).all()


def by_torch(module: nn.RNNBase, x: Tensor, state: str, steps: list[int]) -> np.ndarray:
    """grad(s_t.sum(), s_0).abs().mean() of the module itself, step by step: (batch, len(steps))."""
    shape = (1, len(x), module.hidden_size)
    h = torch.zeros(shape, dtype=x.dtype, requires_grad=state == "h")
    c = torch.zeros(shape, dtype=x.dtype, requires_grad=state == "c")
    start, found = h if state == "h" else c, []
    now: tuple[Tensor, Tensor] | tuple[Tensor] = (h, c)
    for t in range(max(steps)):
        xt = x[:, t : t + 1]
        now = module(xt, now)[1] if isinstance(module, nn.LSTM) else (module(xt, now[0])[1],)
        if t + 1 in steps:
            end = now[0] if state == "h" else now[-1]
            (gradient,) = torch.autograd.grad(end.sum(), start, retain_graph=True)
            found.append(gradient[0].double().abs().mean(dim=1))
    return torch.stack(found, dim=1).numpy()


def fading(cell: str) -> tuple[nn.RNNBase, Tensor, str]:
    """Falls below float32 within 200 steps."""
    torch.manual_seed(0)
    kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell]
    module = kind(4, 12, batch_first=True)
    if cell == "lstm":
        with torch.no_grad():
            weights(module)["bias_ih_l0"][12:24] = 0.3
    return module, torch.randn(2, 500, 4), "c" if cell == "lstm" else "h"


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_naive_autograd_returns_what_the_diagnosis_says(cell: str):
    module, x, state = fading(cell)
    found = rnngrad.diagnose(module, x, state=state)
    assert {"alive", "decayed", "underflow"} <= set(found.verdict.flat)
    first = int(np.nanmin(found.first_steps("underflow")))
    steps = sorted({1, 10, 40, first - 10, *range(first - 4, first + 12), first + 60, 500})
    columns = np.array(steps) - 1
    gradual = by_torch(module, x, state, steps)
    with flushing():
        flushed = by_torch(module, x, state, steps)
        again = rnngrad.diagnose(module, x, state=state)
    np.testing.assert_array_equal(again.naive, found.naive)  # whatever the process has set
    normal = flushed > 100 * TINY
    assert normal.any()
    assert (~normal).any()
    for actual, said in ((gradual, found.naive), (flushed, found.naive_flushed)):
        np.testing.assert_allclose(said[:, columns][normal], actual[normal], rtol=1e-3)
    # subnormal numbers lose digits; what is said of them is their size
    assert ((gradual == 0) == (found.naive[:, columns] == 0)).mean() > 0.95
    assert ((flushed == 0) == (found.naive_flushed[:, columns] == 0)).mean() > 0.9
    assert (flushed[found.verdict[:, columns] == "underflow"] <= TINY).all()
    true = found.log10_column_sum[:, columns]
    assert (true[:, -1] < -45).all()


def single_factor(factor: float, steps: int) -> tuple[nn.LSTM, Tensor]:
    """A cell path that multiplies by the same forget gate at every step."""
    module = nn.LSTM(1, 3, batch_first=True)
    bias = torch.zeros(12)
    bias[3:6] = math.log(factor / (1 - factor))
    set_weights(module, bias_ih_l0=bias)
    return module, torch.zeros(1, steps, 1)


@pytest.mark.parametrize(("factor", "step"), [(0.5, 127), (0.7311, 279), (0.9, 829), (0.95, 1703)])
def test_first_step_below_the_smallest_normal_number(factor: float, step: int):
    module, x = single_factor(factor, step + 3)
    found = rnngrad.diagnose(module, x, state="c")
    # a column sum is a mean over columns that hold one factor each: the product itself
    assert found.first_steps("underflow").tolist() == [step]
    np.testing.assert_allclose(found.decades_per_step, math.log10(factor), rtol=1e-6)
    assert found.horizon[0] == math.ceil(math.log(0.1) / math.log(factor))


def test_false_plateau_under_gradual_underflow():
    """0.9 times the smallest subnormal number rounds to itself: float32 never reaches zero."""
    module, x = single_factor(0.9, 1200)
    found = rnngrad.diagnose(module, x, state="c")
    assert found.naive[0, -1] == found.naive[0, -100] > 0
    assert found.naive[0, -1] < 1e-43
    assert found.naive_flushed[0, -1] == 0
    actual = by_torch(module, x, "c", [1100, 1200])
    np.testing.assert_array_equal(actual[0], found.naive[0, [1099, 1199]])
    assert "0 from step 829" in str(found)
    assert f"{found.naive[0, -1]:.2g} at the end" in str(found)


def far_below() -> dict[str, tuple[nn.RNNBase, Tensor, str]]:
    """Norms more than 10 decades below float32, on a plateau, at zero, and one example of each."""
    plateau, x = single_factor(0.9, 1300)
    faster = torch.cat([x, x - 1])
    with torch.no_grad():
        weights(plateau)["weight_ih_l0"][3:6] = 4.0
    return {"zero": fading("lstm"), "plateau": (plateau, x, "c"), "both": (plateau, faster, "c")}


@pytest.mark.parametrize("name", ["zero", "plateau", "both"])
def test_far_below_every_number_it_is_still_autograds(name: str):
    """Where the norm is far below the smallest number a few steps stand for those between."""
    module, x, state = far_below()[name]
    found = rnngrad.diagnose(module, x, state=state)
    assert (found.log10_frobenius[:, -1] < -57).all()
    for flush, said in ((False, found.naive), (True, found.naive_flushed)):
        actual = rnngrad.autograd_column_sums(module, x, state=state, flush=flush)
        # products of other shapes add up in another order
        np.testing.assert_allclose(said, actual, rtol=1e-4, atol=3e-45)
    assert (found.naive[0, -100:] > 0).all() == (name != "zero")


def test_structural_zero():
    module = nn.RNN(1, 4, nonlinearity="relu", batch_first=True)
    set_weights(module, weight_hh_l0=0.9 * torch.eye(4), weight_ih_l0=1.0)
    x = torch.ones(2, 30, 1)
    x[1, 20] = -100
    found = rnngrad.diagnose(module, x)
    assert (found.verdict[0] == "alive").all()
    assert found.verdict[1].tolist() == ["alive"] * 20 + ["structural"] * 10
    assert (found.log10_frobenius[1, 20:] == -np.inf).all()
    assert np.isnan(found.first_steps("structural")[0])


@pytest.mark.parametrize(
    ("dtype", "drive", "expected"),
    [
        (torch.float32, 12.0, "saturated"),
        (torch.float64, 12.0, "decayed"),
        (torch.float64, 24.0, "saturated"),
        (torch.float32, 0.0, "alive"),
    ],
)
def test_saturated(dtype: torch.dtype, drive: float, expected: str):
    """1 - tanh(x)^2 is 0 from x ~ 10 in float32, ~ 20 in float64; 1 / cosh(x)^2 is not."""
    module = nn.RNN(1, 3, batch_first=True)
    set_weights(module, weight_hh_l0=torch.eye(3), bias_ih_l0=drive)
    x = torch.zeros(1, 6, 1)
    found = rnngrad.diagnose(module, x, dtype=dtype)
    assert found.verdict[0, -1] == expected
    assert np.isfinite(found.log10_frobenius).all()
    actual = by_torch(module.to(dtype), x.to(dtype), "h", [6])
    assert (actual == 0).all() == (expected == "saturated")


def test_underflow_where_signs_cancel():
    """Columns of W_hh that sum to zero: the norm says when the product has left float32."""
    W = torch.randn(16, 16)
    W -= W.mean(dim=0, keepdim=True)
    module = nn.RNN(2, 16, batch_first=True, bias=False)
    set_weights(module, weight_hh_l0=W * 0.5 / torch.linalg.matrix_norm(W, 2))
    found = rnngrad.diagnose(module, torch.zeros(1, 300, 2))
    assert found.verdict[0, -1] == "underflow"
    assert found.log10_frobenius[0, -1] < -150
    below = found.log10_frobenius[0] < math.log10(TINY)
    assert (found.verdict[0, below] == "underflow").all()
    # and before that the product is still there, whatever its column sums are
    between = (found.naive_flushed[0] == 0) & ~below
    assert between.any()
    assert (found.verdict[0, between] == "decayed").all()


@pytest.mark.parametrize("steps", [20, 400])
def test_exploding(steps: int):
    """Growth, and growth beyond float32, where autograd returns inf or NaN."""
    module = nn.RNN(1, 4, nonlinearity="relu", batch_first=True)
    set_weights(module, weight_hh_l0=3.0 * torch.eye(4), bias_ih_l0=0.0)
    x = torch.zeros(1, steps, 1)
    h0 = torch.full((1, 1, 4), 1e-20 if steps == 20 else 1e-37)
    found = rnngrad.diagnose(module, x, h0)
    t = np.arange(1, steps + 1)
    expected = np.where(t * math.log10(3) > 7, "exploding", "alive")
    assert found.verdict[0].tolist() == expected.tolist()
    np.testing.assert_allclose(found.log10_frobenius[0], t * math.log10(3) + math.log10(2))
    assert np.isfinite(found.naive[0, -1]) == (steps == 20)
    assert ("NaN at the end" in str(found)) == (steps == 400)


def test_table_and_lengths():
    module, x, state = fading("lstm")
    found = rnngrad.diagnose(module, x, state=state, lengths=[500, 5])
    assert (found.verdict[1, 5:] == "").all()
    text = str(found)
    lines = text.splitlines()
    assert lines[0] == (
        "d c_t / d c_0 of LSTM(12), 2 example(s), 500 steps, judged for torch.float32"
    )
    order = [line.split()[0] for line in lines[4:7]]
    assert order == ["alive", "decayed", "underflow"]
    assert f"{found.first_steps('underflow')[0]:.0f}" in lines[6]
    assert "decades per step" in text
    frame = found.to_frame()
    assert len(frame) == 505
    assert frame.query("example == 1").step.tolist() == [1, 2, 3, 4, 5]
    assert (frame.log10_frobenius.to_numpy() == found.log10_frobenius[found.verdict != ""]).all()
    assert "memory horizon" in text
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 12


def test_zero_for_good_is_not_the_first_zero():
    lengths = [5, 5, 3, 3, 5]
    found = rnngrad.diagnose(nn.GRU(3, 4), torch.zeros(5, 5, 3), lengths=lengths)
    flushed = [[1, 0, 1, 0, 0], [1, 1, 0, 1, 1], [1, 0, 0, nan, nan], [1] * 5, [0] * 5]
    found = replace(found, naive_flushed=np.array(flushed))
    np.testing.assert_array_equal(found.zero_from, [4, nan, 2, nan, 1])
    assert "0 from step 1 .. 4 (2 of 5: never 0)" in str(found)


def test_another_layer_and_dtype():
    instance = make(Case("gru", layers=2))
    found = rnngrad.diagnose(instance.module, instance.inputs, dtype=torch.float64, layer=0)
    assert set(found.verdict.flat) <= {"alive", "decayed"}


@pytest.mark.slow
def test_why_the_question_saw_zeros():
    """Keras initialisation, zero padding, h_0, c_0 ~ U(0, 1), 1,403 steps, 200 units.

    By weight seed the true log10 column sum at step 1,383 lies between -89 and -99, and float32
    with flush-to-zero is all zero from step 510 to 560.
    """
    torch.manual_seed(3)
    module = nn.LSTM(100, 200, batch_first=True)
    forget = torch.zeros(800)
    forget[200:400] = 1
    kernel = nn.init.orthogonal_(torch.empty(800, 200))
    set_weights(module, weight_hh_l0=kernel, bias_ih_l0=forget)
    state = (torch.rand(1, 1, 200), torch.rand(1, 1, 200))
    x = torch.zeros(1, 1403, 100)
    sums = rnngrad.jacobian_curves(module, x, state, state="c", statistics="column_sum")
    assert -99 < sums.log10_column_sum[0, 1382] < -89
    found = rnngrad.diagnose(module, x[:, :600], state, state="c")
    assert 510 <= found.first_steps("underflow")[0] <= 560
    assert found.verdict[0, -1] == "underflow"


KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def padded(cell: str, forget_bias: float = 0.0) -> tuple[nn.RNNBase, Tensor, Any]:
    """Zeros in front of the inputs (4, 90, 3), and one initial state for all."""
    torch.manual_seed(3)
    module = KINDS[cell](3, 5, batch_first=True)
    h = torch.rand(1, 1, 5).expand(1, 4, 5)
    if cell == "lstm":
        with torch.no_grad():
            weights(module)["bias_ih_l0"][5:10] = forget_bias
    x = torch.zeros(4, 90, 3)
    x[0, 80:], x[1:, 70:] = torch.randn(10, 3), torch.randn(3, 20, 3)
    return module, x, (h, h) if cell == "lstm" else h


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize(("cell", "state"), [("rnn", "h"), ("gru", "h"), ("lstm", "full")])
def test_some_steps_and_shared_beginnings(cell: str, state: str, flush: bool, dtype: torch.dtype):
    """The same for some steps as for all, and for many examples as for each alone."""
    module, x, initial = padded(cell, forget_bias=-5)
    kwargs: dict[str, Any] = {"state": state, "flush": flush, "dtype": dtype}
    found = rnngrad.autograd_column_sums(module, x, initial, lengths=[90, 90, 75, 60], **kwargs)
    assert np.isnan(found[2, 75:]).all()
    assert np.isnan(found[3, 60:]).all()
    digits: dict[str, Any] = {"rtol": 1e-5 if dtype == torch.float32 else 1e-12, "atol": 2e-45}
    for at in ([1, 70], [71, 90], [7, 70, 71]):
        some = rnngrad.autograd_column_sums(module, x[:2], each(initial, 0, 2), steps=at, **kwargs)
        columns = np.array(at) - 1
        np.testing.assert_allclose(some[:, columns], found[:2, columns], **digits)
        assert np.isnan(np.delete(some, columns, axis=1)).all()
    for e, length in enumerate([90, 90, 75, 60]):
        own = x[e : e + 1, :length], each(initial, e, e + 1)
        alone = rnngrad.autograd_column_sums(module, *own, **kwargs)
        np.testing.assert_allclose(found[e, :length], alone[0], **digits)


def each(state: Any, start: int, stop: int) -> Any:
    if isinstance(state, tuple):
        return tuple(each(s, start, stop) for s in state)
    return state[:, start:stop]


def test_where_nothing_is_alive_between_steps():
    """The loss of step 90 is dead before that of step 3 begins."""
    module, x, initial = padded("lstm", forget_bias=-9)
    kwargs: dict[str, Any] = {"state": "c", "flush": True}
    found = rnngrad.autograd_column_sums(module, x, initial, **kwargs)
    dead = int((found == 0).all(axis=0).argmax()) + 1
    assert 0 < dead < 45
    at = [2, dead, dead + 1, 50, 90]
    some = rnngrad.autograd_column_sums(module, x, initial, steps=at, **kwargs)
    np.testing.assert_allclose(some[:, np.array(at) - 1], found[:, np.array(at) - 1], rtol=1e-5)
    assert (found[:, :2] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flushing_takes_subnormal_numbers_alone(dtype: torch.dtype):
    """d h_1 / d h_0 of a ReLU is W itself."""
    tiny = torch.tensor(torch.finfo(dtype).tiny, dtype=dtype)
    below = torch.nextafter(tiny, torch.zeros_like(tiny))
    for weight, left in ((tiny, True), (-tiny, True), (below, False), (tiny / 2, False)):
        module = nn.RNN(1, 1, nonlinearity="relu", batch_first=True).to(dtype)
        set_weights(module, weight_hh_l0=weight, bias_ih_l0=1.0)
        x = torch.zeros(1, 1, 1, dtype=dtype)
        flushed, gradual = (
            rnngrad.autograd_column_sums(module, x, dtype=dtype, flush=flush)[0, 0]
            for flush in (True, False)
        )
        assert gradual == abs(weight.item())
        assert flushed == (gradual if left else 0)


def test_steps_and_dtypes_that_are_none():
    module, x, _ = padded("gru")
    for steps in ([0], [91]):
        with pytest.raises(rnngrad.InputError, match=r"steps must lie in 1\.\.90"):
            rnngrad.autograd_column_sums(module, x, steps=steps)
    with pytest.raises(rnngrad.InputError, match=r"use torch\.float32 or torch\.float64"):
        rnngrad.autograd_column_sums(module, x, dtype=torch.bfloat16)
    assert np.isnan(rnngrad.autograd_column_sums(module, x, steps=[])).all()
