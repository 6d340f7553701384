"""Where arithmetic ends: rounding errors that add up, subnormal factors, overflow, cancellation."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from probe_problems import set_weights, weights
from torch import nn

import rnngrad
from rnngrad.errors import InputError

pytestmark = pytest.mark.usefixtures("float32_from_64")


@pytest.mark.slow
def test_rounded_factors_do_not_add_up():
    """A gate that is the same for all units and steps: its rounding error, 1,403 times over."""
    biases = torch.linspace(0.5, 3, 200, dtype=torch.float64).float()
    f = torch.sigmoid(biases.double())
    worst = biases[(f.float() / f - 1).abs().argmax()]
    torch.manual_seed(0)
    forget = torch.zeros(280)
    forget[70:140] = worst
    module = nn.LSTM(1, 70, batch_first=True)
    set_weights(module, weight_hh_l0=0.05 * torch.randn(280, 70) / 70**0.5, bias_ih_l0=forget)
    double = nn.LSTM(1, 70, batch_first=True).double()
    double.load_state_dict(module.state_dict())
    x = torch.zeros(1, 1403, 1)
    single, exact = (
        rnngrad.jacobian_curves(m, x.to(dtype), state="c", statistics="frobenius").log10_frobenius
        for m, dtype in ((module, torch.float32), (double, torch.float64))
    )
    assert (single != exact).any()
    assert np.abs(single - exact).max() * math.log(10) < 2e-6


def largest_error(module: nn.RNNBase, x: torch.Tensor, name: str, **kwargs) -> float:
    """Relative, of a float32 module against the same in float64."""
    single = getattr(rnngrad.jacobian_curves(module, x, **kwargs), name)
    double = copy.deepcopy(module).double()
    exact = getattr(rnngrad.jacobian_curves(double, x.double(), **kwargs), name)
    known = ~np.isnan(exact)
    assert np.isfinite(exact[known]).all()
    assert (np.isnan(single) == ~known).all()
    return np.abs(10 ** (single - exact) - 1)[known].max()


@pytest.mark.parametrize("state", ["h", "c"])
@pytest.mark.parametrize("closed", [-100.0, -103.0])
def test_a_subnormal_gate_leaves_no_remainder(closed: float, state: str):
    """exp(-103) has one bit in float32; what is missing must not open the next gate by 50 %."""
    torch.manual_seed(0)
    module = nn.LSTM(1, 64, batch_first=True)
    forget, weight, W = torch.zeros(256), torch.zeros(256, 1), 0.1 * torch.randn(256, 64)
    forget[64:128], weight[64:128], W[64:128] = 3, closed - 3, 0
    set_weights(module, bias_ih_l0=forget, weight_ih_l0=weight, weight_hh_l0=W)
    x = torch.zeros(1, 60, 1)
    x[0, 20::5] = 1
    for name in ("log10_frobenius", "log10_column_sum", "log10_spectral"):
        assert largest_error(module, x, name, state=state) < 1e-6


@pytest.mark.parametrize("drive", [23.0, 24.0, 25.0])
def test_a_step_that_shrinks_all_rows(drive: float):
    """By 4 exp(-50) = 2**-70: the squares in a float32 norm are subnormal then."""
    torch.manual_seed(0)
    module = nn.RNN(1, 64, batch_first=True)
    set_weights(module, weight_hh_l0=torch.randn(64, 64) / 8, weight_ih_l0=drive)
    x = torch.zeros(1, 5, 1)
    x[0, 2] = 1
    assert largest_error(module, x, "log10_frobenius") < 1e-6


def test_a_state_far_below_the_other_is_not_zero():
    """An output gate of exp(-400): h is proportional to it, c is of size 1."""
    torch.manual_seed(0)
    module = nn.LSTM(1, 2, batch_first=True).double()
    found = []
    for bias in (-100.0, -400.0):
        with torch.no_grad():
            weights(module)["bias_ih_l0"][6:] = bias
        found.append(rnngrad.jacobian_curves(module, torch.ones(1, 3, 1).double()))
    for name in ("log10_frobenius", "log10_column_sum", "log10_spectral"):
        change = getattr(found[1], name) - getattr(found[0], name)
        np.testing.assert_allclose(change, -300 / math.log(10), atol=1e-9)


def test_a_counting_lstm_is_never_zero():
    """c_t = t, so d h_t / d h_0 falls as tanh'(t) = 4 exp(-2 t)."""
    torch.manual_seed(0)
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


def growing_relu() -> tuple[nn.RNN, torch.Tensor, torch.Tensor]:
    """h grows eightfold per step from 1 and 2**-600: beyond 2**1024 at steps 342 and 542."""
    module = nn.RNN(1, 2, nonlinearity="relu", batch_first=True).double()
    set_weights(module, weight_hh_l0=8 * torch.eye(2))
    h = torch.ones(1, 2, 2).double()
    h[0, 0] = 2.0**-600
    return module, torch.zeros(2, 400, 1).double(), h


PROBES: dict[str, Callable[..., object]] = {
    "jacobian_curves": rnngrad.jacobian_curves,
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


def test_an_overflow_in_a_gate_is_named():
    module = nn.LSTM(1, 2, batch_first=True).double()
    set_weights(module, weight_ih_l0=1e200)
    x = torch.zeros(1, 5, 1).double()
    x[0, 3] = 1e200
    with pytest.raises(InputError, match="example 0, step 4 "):
        rnngrad.jacobian_curves(module, x)


def real_tokens(batch: int, steps: int) -> torch.Tensor:
    return 5.7 * nn.functional.normalize(torch.randn(batch, steps, 100), dim=2)


@pytest.mark.slow
def test_rounded_matrices_do_not_add_up():
    """Constant inputs: V = diag(phi') W, and so its rounding, is the same at every step."""
    torch.manual_seed(11)
    module = nn.RNN(50, 100, 2, batch_first=True)
    x = torch.zeros(1, 1403, 50)
    assert 0 < largest_error(module, x, "log10_frobenius", statistics="frobenius") < 3e-6
