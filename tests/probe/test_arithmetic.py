"""Underflow, overflow, saturation and rows far apart are checked against closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from probe_problems import set_weights, weights
from torch import Tensor, nn

import rnngrad
from rnngrad.errors import InputError


def independent_product(W: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """log10 ||J_t||_F of an RNN, one matrix product and one norm per step."""
    J, log10, out = np.eye(len(W)), 0.0, []
    for slope in slopes:
        J = slope[:, None] * (W @ J)
        norm = np.linalg.norm(J)
        J, log10 = J / norm, log10 + math.log10(norm)
        out.append(log10)
    return np.array(out)


def test_20000_steps_neither_underflow_nor_overflow():
    module = nn.RNN(3, 8, batch_first=True)
    x = torch.randn(1, 20_000, 3)
    found = rnngrad.jacobian_curves(module, x, statistics=("frobenius", "column_sum"))
    with torch.no_grad():
        h = module.double()(x.double())[0][0]
    W = weights(module)["weight_hh_l0"].detach().numpy()
    expected = independent_product(W, 1 - h.numpy() ** 2)
    assert expected[-1] < -3000
    np.testing.assert_allclose(found.log10_frobenius, expected[None], rtol=1e-12, atol=1e-9)
    assert found.log10_column_sum is not None
    assert np.isfinite(found.log10_column_sum).all()


def test_growth_beyond_the_range_of_float64():
    module = nn.RNN(1, 6, bias=False).double()
    Q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    set_weights(module, weight_hh_l0=1.5 * Q)
    x = torch.zeros(20_000, 1, 1).double()
    curves = rnngrad.jacobian_curves(module, x, statistics=("frobenius", "spectral"))
    t = np.arange(1, 20_001)
    np.testing.assert_allclose(curves.log10_spectral[0], t * math.log10(1.5), rtol=1e-10)
    expected = t * math.log10(1.5) + 0.5 * math.log10(6)
    np.testing.assert_allclose(curves.log10_frobenius[0], expected, rtol=1e-10)


@pytest.mark.parametrize("reset", [1500, 2900])
def test_one_reset_brings_back_what_had_become_small(reset: int):
    """Unit 0 remembers everything until it is wiped; unit 1 had by then fallen by 2^-1500."""
    module = nn.LSTM(1, 2, batch_first=True)
    bias = torch.zeros(8)
    bias[2] = 40
    weight = torch.zeros(8, 1)
    weight[2] = -2000
    set_weights(module, bias_ih_l0=bias, weight_ih_l0=weight)
    x = torch.zeros(1, 3000, 1)
    x[0, reset] = 1
    values = rnngrad.jacobian_curves(module, x, state="c", statistics="frobenius").log10_frobenius
    np.testing.assert_allclose(values[0, 10:reset], 0, atol=1e-6)
    t = np.arange(reset + 1, 3001)
    np.testing.assert_allclose(values[0, reset:], t * math.log10(0.5), rtol=1e-12)


def test_huge_and_tiny_weights():
    """Two steps grow or shrink by more than float64 holds, and one unit by more than another."""
    module = nn.RNN(1, 70, batch_first=True)
    for sizes in ((1e30, 1e30), (1e-30, 1e-30), (1e-38, 1.0), (1e-38, 1e38)):
        factors = torch.tensor(sizes).repeat(35)
        set_weights(module, weight_hh_l0=torch.diag(factors))
        found = rnngrad.jacobian_curves(module, torch.zeros(1, 40, 1))
        t = np.arange(1, 41)
        same = sizes[0] == sizes[1]
        expected = t * math.log10(max(sizes))
        # a float32 module's 1e30 is another number
        np.testing.assert_allclose(found.log10_spectral[0], expected, rtol=1e-7, atol=1e-7)
        expected += 0.5 * math.log10(70 if same else 35)
        np.testing.assert_allclose(found.log10_frobenius[0], expected, rtol=1e-7, atol=1e-7)


def test_the_closed_gru_path_counts():
    """z = s(40): the candidate's path is exp(-40), and a weight of 1e20 makes it the larger one."""
    module = nn.GRU(1, 1, batch_first=True).double()
    bias, weight = torch.zeros(3), torch.zeros(3, 1).double()
    bias[1], weight[2] = 40, 1e20
    set_weights(module, weight_hh_l0=weight, bias_ih_l0=bias)
    found = rnngrad.jacobian_curves(module, torch.zeros(1, 1, 1).double()).log10_frobenius
    np.testing.assert_allclose(10 ** found[0, 0], 1 + 0.5e20 * math.exp(-40), rtol=1e-12)


def test_rows_that_die_for_good():
    """ReLU: two units were dead from the start, all of the second example die at step 41."""
    module = nn.RNN(1, 6, nonlinearity="relu", batch_first=True).double()
    drive = torch.ones(6, 1)
    drive[:2] = -1
    set_weights(module, weight_hh_l0=0.9 * torch.eye(6).double(), weight_ih_l0=drive)
    x = torch.full((2, 60, 1), 0.1).double()
    x[1, 40] = -50
    found = rnngrad.jacobian_curves(module, x)
    one = np.arange(1, 61) * math.log10(0.9)
    for values, alive in (
        (found.log10_frobenius, one + math.log10(4) / 2),
        (found.log10_spectral, one),
        (found.log10_column_sum, one + math.log10(4 / 6)),
    ):
        np.testing.assert_allclose(values[0], alive, rtol=0, atol=1e-12)
        np.testing.assert_allclose(values[1, :40], alive[:40], rtol=0, atol=1e-12)
        assert (values[1, 40:] == -np.inf).all()


def drops(size: float) -> tuple[nn.LSTM, Tensor]:
    """At step 41 one unit of four forgets, to exp(-size) of what it held; then the others."""
    module = nn.LSTM(2, 4, batch_first=True).double()
    weight, bias = torch.zeros(16, 2), torch.zeros(16)
    bias[4:8] = 3
    weight[4, 0], weight[5:8, 1] = -size, -2 * size
    set_weights(module, weight_ih_l0=weight, bias_ih_l0=bias)
    x = torch.zeros(1, 100, 2).double()
    x[0, 40, 0] = x[0, 60, 1] = 1
    return module, x


@pytest.mark.parametrize("size", [40.0, 300.0, 800.0])
def test_gates_that_close_one_after_the_other(size: float):
    """sigmoid(-800) is 0, and what it multiplies truly zero."""
    module, x = drops(size)
    found = rnngrad.jacobian_curves(module, x, state="c")
    t, gate = np.arange(1, 101), np.log(1 / (1 + np.exp(-3.0)))
    units = np.tile(t * gate, (4, 1))
    units[0, 40:] += -np.inf if size == 800 else 3 - size - gate
    units[1:, 60:] += -np.inf if 2 * size > 745 else 3 - 2 * size - gate
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.logaddexp.reduce(2 * units) / (2 * np.log(10))
    np.testing.assert_allclose(found.log10_frobenius[0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.log10_cell_path, found.log10_frobenius, rtol=0, atol=1e-11)


def test_an_entry_that_underflows_is_no_true_zero():
    """Unit 1 hears unit 0 through 1e-200, and unit 2 that through 1e-200: the product is 1e-400."""
    module = nn.RNN(1, 3, nonlinearity="relu", batch_first=True).double()
    weight = torch.zeros(3, 3).double()
    weight[1, 0] = weight[2, 1] = 1e-200
    set_weights(module, weight_hh_l0=weight, bias_ih_l0=1.0)
    found = rnngrad.jacobian_curves(module, torch.zeros(1, 3, 1).double()).log10_frobenius
    np.testing.assert_allclose(found[0, :2], [-200 + np.log10(2) / 2, -400], atol=1e-9)
    assert found[0, 2] == -np.inf


def test_units_whose_sum_overflows_do_not():
    """The quick look at a block's sum finds inf; every unit is finite."""
    module = nn.RNN(1, 2, nonlinearity="relu", batch_first=True).double()
    set_weights(module, weight_hh_l0=torch.eye(2))
    h = torch.full((1, 1, 2), 1.5e308, dtype=torch.float64)
    found = rnngrad.jacobian_curves(module, torch.zeros(1, 5, 1).double(), h).log10_spectral
    np.testing.assert_allclose(found, 0, atol=1e-12)


@pytest.mark.parametrize("factor", [1e-9, 1e-15, 1e25])
def test_column_sums_of_any_size(factor: float):
    """The sums of Q^t, whose signs cancel, times factor^t."""
    Q = nn.init.orthogonal_(torch.empty(8, 8).double())
    module = nn.RNN(3, 8, batch_first=True).double()
    set_weights(module, weight_hh_l0=factor * Q)
    found = rnngrad.jacobian_curves(module, torch.zeros(1, 100, 3).double()).log10_column_sum[0]
    powers = [torch.linalg.matrix_power(Q, t).sum(dim=0).abs().mean() for t in range(1, 101)]
    expected = np.log10(powers) + np.arange(1, 101) * math.log10(factor)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("closed", [-365.0, -400.0])
def test_a_state_far_below_the_other_is_not_zero(closed: float):
    """An output gate of exp(-400): h is proportional to it, c is of size 1."""
    module = nn.LSTM(1, 2, batch_first=True).double()
    found = []
    for bias in (-100.0, closed):
        with torch.no_grad():
            weights(module)["bias_ih_l0"][6:] = bias
        found.append(rnngrad.jacobian_curves(module, torch.ones(1, 3, 1).double()))
    for name in ("log10_frobenius", "log10_column_sum", "log10_spectral"):
        change = getattr(found[1], name) - getattr(found[0], name)
        np.testing.assert_allclose(change, (closed + 100) / math.log(10), rtol=0, atol=1e-9)


def test_a_counting_lstm_is_never_zero():
    """c_t = t, so d h_t / d h_0 falls as tanh'(t) = 4 exp(-2 t)."""
    module = nn.LSTM(1, 2, batch_first=True).double()
    with torch.no_grad():
        weights(module)["bias_ih_l0"][:6] = 40
    found = rnngrad.jacobian_curves(module, torch.ones(1, 350, 1).double()).log10_frobenius[0]
    np.testing.assert_allclose(np.diff(found[100:]), -2 / math.log(10), atol=1e-6)


def test_tanh_saturates_where_float64_ends():
    module = nn.RNN(1, 1, batch_first=True)
    for bias, zero in ((370.0, False), (380.0, True), (1e30, True)):
        set_weights(module, weight_hh_l0=1.0, bias_ih_l0=bias)
        found = rnngrad.jacobian_curves(module, torch.zeros(1, 1, 1)).log10_frobenius[0, 0]
        expected = -np.inf if zero else math.log10(4) - 2 * bias / math.log(10)
        np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("x", [20.0, 45.0, 300.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_derivatives_of_saturated_gates(x: float, sign: int):
    """d h_1 / d h_0 through the input gate alone: s (1 - s) has no digit left."""
    module = nn.LSTM(1, 1, batch_first=True).double()
    weight, bias = torch.zeros(4, 1), torch.zeros(4)
    weight[0], bias[0], bias[2] = 1, sign * x, 1
    set_weights(module, weight_hh_l0=weight, bias_ih_l0=bias)
    found = rnngrad.jacobian_curves(module, torch.zeros(1, 1, 1).double()).log10_frobenius
    g = math.tanh(1)
    c = g if sign > 0 else 0
    expected = math.log10(0.5 * (1 - math.tanh(c) ** 2) * g) - x / math.log(10)
    np.testing.assert_allclose(found[0, 0], expected, rtol=0, atol=1e-8)


def growing_relu() -> tuple[nn.RNN, torch.Tensor, torch.Tensor]:
    """h grows eightfold per step from 1 and 2**-600: beyond 2**1024 at steps 342 and 542."""
    module = nn.RNN(1, 2, nonlinearity="relu", batch_first=True).double()
    set_weights(module, weight_hh_l0=8 * torch.eye(2))
    h = torch.ones(1, 2, 2).double()
    h[0, 0] = 2.0**-600
    return module, torch.zeros(2, 400, 1).double(), h


PROBES: dict[str, Callable[..., object]] = {
    "jacobian_curves": rnngrad.jacobian_curves,
    "trajectory": rnngrad.trajectory,
    "lyapunov_exponents": rnngrad.lyapunov_exponents,
    "diagnose": rnngrad.diagnose,
    "loss_gradient_curves": lambda m, x, h: rnngrad.loss_gradient_curves(
        m, x, torch.ones(2, 400, 2).double(), h
    ),
    "weight_gradient_parts": lambda m, x, h: rnngrad.weight_gradient_parts(
        m, x, torch.ones(2, 400, 2).double(), h
    ),
}


@pytest.mark.parametrize("name", PROBES)
def test_an_overflow_of_the_forward_pass_is_named(name: str):
    with pytest.raises(InputError, match="overflows float64 in layer 0, example 1, step 342 "):
        PROBES[name](*growing_relu())


def test_an_overflow_beyond_the_length_does_no_harm():
    found = rnngrad.jacobian_curves(*growing_relu(), lengths=[400, 341]).log10_frobenius
    t = np.arange(1, 401)
    expected = np.tile(t * math.log10(8) + 0.5 * math.log10(2), (2, 1))
    expected[1, 341:] = np.nan
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_gates_of_infinite_argument():
    """They are open or closed for good; 0 times inf is no derivative."""
    module = nn.LSTM(2, 2, batch_first=True).double()
    weight = torch.zeros(8, 2).double()
    weight[2:4] = -1e200
    set_weights(module, weight_ih_l0=weight)
    x = torch.zeros(1, 5, 2).double()
    x[0, 3] = 1e200
    found = rnngrad.jacobian_curves(module, x, state="c").log10_frobenius[0]
    expected = np.arange(1, 4) * math.log10(0.5) + math.log10(2) / 2
    np.testing.assert_allclose(found[:3], expected, rtol=1e-12)
    assert (found[3:] == -np.inf).all()
    # the candidate's recurrent part is inf, and what it is multiplied with 0
    gru = nn.GRU(1, 3, batch_first=True).double()
    weight = torch.zeros(9, 3).double()
    weight[6:] = 1e308
    set_weights(gru, weight_hh_l0=weight)
    with pytest.raises(InputError, match="overflows float64 in layer 0, example 0, step 1 "):
        rnngrad.jacobian_curves(gru, x[..., :1], torch.ones(1, 1, 3).double())
