"""Jacobian curves against autograd, closed forms and theorems."""

import math

import numpy as np
import pytest
import torch
from probe_problems import (
    CELLS,
    Case,
    autograd_jacobians,
    log10_statistics,
    make,
    set_weights,
    weights,
)
from torch import nn

import rnngrad
from rnngrad.probe import blocks, tangents
from rnngrad.probe.cells import STABLE

CASES = [
    Case(cell, layers, bias, batch_first, seed=layers)
    for cell in CELLS
    for layers, bias, batch_first in ((1, True, True), (2, False, False), (3, True, False))
] + [Case("lstm", steps=60, hidden=5), Case("gru", steps=60), Case("rnn_tanh", steps=60)]


pytestmark = pytest.mark.usefixtures("float32_from_64")


def assert_close(curves: rnngrad.JacobianCurves, J: torch.Tensor, decades: float) -> None:
    for name, expected in log10_statistics(J).items():
        found = getattr(curves, name)
        assert found.shape == tuple(expected.shape)
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=decades, err_msg=name)


def test_spectral_norm_at_no_step():
    instance = make(Case("gru", steps=4))
    found = rnngrad.jacobian_curves(instance.module, instance.inputs, spectral_steps=[])
    assert np.isnan(found.log10_spectral).all()
    assert np.isfinite(found.log10_frobenius).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_autograd(case: Case):
    instance = make(case)
    for state in ("h", "c", "full") if case.cell == "lstm" else ("h",):
        curves = rnngrad.jacobian_curves(
            instance.module, instance.inputs, instance.initial_state, state=state
        )
        assert_close(curves, autograd_jacobians(instance, state), 1e-9)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_any_layer(cell: str):
    instance = make(Case(cell, layers=3))
    curves = rnngrad.jacobian_curves(
        instance.module, instance.inputs, instance.initial_state, layer=1
    )
    assert curves.layer == 1
    assert_close(curves, autograd_jacobians(instance, "h", layer=1), 1e-9)


def test_unbatched_equals_a_batch_of_one():
    instance = make(Case("lstm", batch=1))
    h, c = instance.initial_state
    one = rnngrad.jacobian_curves(instance.module, instance.inputs[0], (h[:, 0], c[:, 0]))
    batch = rnngrad.jacobian_curves(instance.module, instance.inputs, (h, c))
    np.testing.assert_array_equal(one.log10_frobenius, batch.log10_frobenius)


@pytest.mark.parametrize("cell", CELLS)
def test_lengths_stop_the_curves(cell: str):
    instance = make(Case(cell, batch=3))
    lengths = [5, 24, 11]
    curves = rnngrad.jacobian_curves(
        instance.module, instance.inputs, instance.initial_state, lengths=lengths
    )
    full = rnngrad.jacobian_curves(instance.module, instance.inputs, instance.initial_state)
    for name in ("log10_frobenius", "log10_column_sum", "log10_spectral"):
        for b, length in enumerate(lengths):
            found = getattr(curves, name)[b]
            assert np.isnan(found[length:]).all()
            np.testing.assert_allclose(found[:length], getattr(full, name)[b, :length], atol=1e-12)
    frame = curves.to_frame()
    assert len(frame) == 3 * sum(lengths)
    assert frame.groupby("example")["step"].max().tolist() == lengths


def test_only_what_is_asked_for():
    instance = make(Case("lstm"))
    curves = rnngrad.jacobian_curves(
        instance.module, instance.inputs, statistics=("spectral",), spectral_steps=[1, 7]
    )
    assert curves.log10_frobenius is None
    assert curves.log10_column_sum is None
    assert curves.log10_cell_path is None
    assert curves.log10_spectral is not None
    assert np.flatnonzero(~np.isnan(curves.log10_spectral[0])).tolist() == [0, 6]


def float32_and_float64(cell: str, steps: int):
    """A float32 module of 100 units on padding and then noise, and the same in float64."""
    kind, options = CELLS[cell]
    torch.manual_seed(0)
    module = kind(8, 100, batch_first=True, **options)
    w = weights(module)
    with torch.no_grad():
        if cell == "rnn_relu":
            w["weight_hh_l0"].copy_(torch.eye(100) + 0.02 * torch.randn(100, 100))
        else:
            for block in w["weight_hh_l0"].split(100):
                nn.init.orthogonal_(block)
        if cell == "lstm":
            w["bias_ih_l0"][100:200] = 1
    x = torch.randn(2, steps, 8)
    x[0, : steps * 2 // 3] = 0
    double = kind(8, 100, batch_first=True, **options).double()
    double.load_state_dict(module.state_dict())
    h, c = torch.rand(1, 2, 100), torch.rand(1, 2, 100)
    state = (h, c) if cell == "lstm" else h
    state64 = (h.double(), c.double()) if cell == "lstm" else h.double()
    at = np.unique(np.linspace(1, steps, 25).astype(int))
    kwargs = {"state": "c" if cell == "lstm" else "h", "spectral_steps": at}
    return (
        rnngrad.jacobian_curves(module, x, state, **kwargs),
        rnngrad.jacobian_curves(double, x.double(), state64, **kwargs),
    )


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_float32_modules_over_1403_steps(cell: str):
    single, double = float32_and_float64(cell, 1403)
    limits = {"log10_frobenius": 1e-5, "log10_spectral": 1e-5, "log10_column_sum": 1e-4}
    for name, relative in limits.items():
        found, expected = getattr(single, name), getattr(double, name)
        known = ~np.isnan(expected)
        assert np.isfinite(expected[known]).all()
        error = np.abs(found - expected)[known] * math.log(10)
        assert error.max() < relative, f"{name}: {error.max():.1e}"


def test_float32_tangents_are_used():
    """Otherwise the test above compares float64 with itself."""
    single, double = float32_and_float64("lstm", 30)
    assert single.log10_frobenius is not None
    assert (single.log10_frobenius != double.log10_frobenius).any()


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
    torch.manual_seed(0)
    module = nn.RNN(3, 8, batch_first=True)
    x = torch.randn(1, 20_000, 3)
    found = rnngrad.jacobian_curves(module, x, statistics=("frobenius", "column_sum"))
    with torch.no_grad():
        h = module.double()(x.double())[0][0]
    W = weights(module)["weight_hh_l0"].detach().numpy()
    expected = independent_product(W, 1 - h.numpy() ** 2)
    assert expected[-1] < -3000
    np.testing.assert_allclose(found.log10_frobenius, expected[None], rtol=1e-9, atol=1e-9)
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


def test_orthogonal_linear_rnn_keeps_its_norm():
    """At the origin tanh is linear, so J_t = W^t."""
    torch.manual_seed(0)
    module = nn.RNN(2, 7, bias=False, batch_first=True).double()
    Q = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64)).Q
    set_weights(module, weight_hh_l0=Q)
    curves = rnngrad.jacobian_curves(module, torch.zeros(1, 50, 2).double())
    powers = torch.stack([torch.linalg.matrix_power(Q, t) for t in range(1, 51)])
    assert_close(curves, powers.unsqueeze(0), 1e-12)
    np.testing.assert_allclose(curves.log10_spectral, 0, atol=1e-12)


def test_lstm_without_recurrence_is_the_forget_product():
    torch.manual_seed(1)
    module = nn.LSTM(3, 5, batch_first=True).double()
    with torch.no_grad():
        weights(module)["weight_hh_l0"].zero_()
    x = torch.randn(2, 40, 3).double()
    curves = rnngrad.jacobian_curves(module, x, state="c")
    w = weights(module)
    a = x @ w["weight_ih_l0"].T + w["bias_ih_l0"] + w["bias_hh_l0"]
    product = torch.sigmoid(a[..., 5:10]).cumprod(dim=1).detach()
    assert_close(curves, torch.diag_embed(product), 1e-12)
    np.testing.assert_allclose(curves.log10_cell_path, curves.log10_frobenius, atol=1e-12)


def test_open_forget_gates_are_the_identity():
    module = nn.LSTM(3, 5, batch_first=True).double()
    bias = torch.zeros(20)
    bias[5:10] = 40
    set_weights(module, weight_ih_l0=torch.randn(20, 3) * 0.1, bias_ih_l0=bias)
    curves = rnngrad.jacobian_curves(module, torch.randn(1, 500, 3).double(), state="c")
    np.testing.assert_allclose(curves.log10_frobenius, 0.5 * math.log10(5), atol=1e-12)
    np.testing.assert_allclose(curves.log10_spectral, 0, atol=1e-12)
    np.testing.assert_allclose(curves.log10_column_sum, 0, atol=1e-12)


def test_gru_without_recurrence_is_the_update_product():
    torch.manual_seed(1)
    module = nn.GRU(3, 5, batch_first=True).double()
    with torch.no_grad():
        weights(module)["weight_hh_l0"].zero_()
    x = torch.randn(2, 40, 3).double()
    w = weights(module)
    a = x @ w["weight_ih_l0"].T + w["bias_ih_l0"] + w["bias_hh_l0"]
    product = torch.sigmoid(a[..., 5:10]).cumprod(dim=1).detach()
    assert_close(rnngrad.jacobian_curves(module, x), torch.diag_embed(product), 1e-12)


def test_dead_relu_is_exactly_zero():
    module = nn.RNN(1, 4, nonlinearity="relu", batch_first=True).double()
    set_weights(module, weight_hh_l0=0.5 * torch.eye(4), weight_ih_l0=1.0)
    x = torch.ones(1, 10, 1).double()
    x[0, 6] = -100
    curves = rnngrad.jacobian_curves(module, x)
    for name in ("log10_frobenius", "log10_column_sum", "log10_spectral"):
        values = getattr(curves, name)[0]
        assert np.isfinite(values[:6]).all()
        assert (values[6:] == -np.inf).all()


def test_forget_gate_zero_and_nearly_zero():
    """sigmoid(-800) is 0 in float64; sigmoid(-700) is 1e-304, and its square below float64."""
    for bias, zero in ((-800.0, True), (-700.0, False)):
        module = nn.LSTM(1, 3, batch_first=True)
        forget = torch.zeros(12)
        forget[3:6] = bias
        set_weights(module, bias_ih_l0=forget)
        values = rnngrad.jacobian_curves(module, torch.ones(1, 50, 1), state="c").log10_frobenius
        expected = -np.inf if zero else np.arange(1, 51) * -700 / math.log(10) + math.log10(3) / 2
        np.testing.assert_allclose(values, np.broadcast_to(expected, (1, 50)), rtol=1e-12)


def test_saturated_tanh_does_not_cancel():
    """1 - tanh(25)^2 is 0 even in float64; the derivative is 4 exp(-50)."""
    module = nn.RNN(1, 1, batch_first=True)
    set_weights(module, weight_hh_l0=1.0, bias_ih_l0=24.0)
    values = rnngrad.jacobian_curves(module, torch.ones(1, 20, 1), torch.ones(1, 1, 1))
    expected = math.log10(4) - 50 / math.log(10)
    np.testing.assert_allclose(values.log10_frobenius, [expected * np.arange(1, 21)], rtol=1e-9)


def test_one_reset_brings_back_what_had_become_small():
    """Unit 0 remembers everything until it is wiped; unit 1 had by then fallen by 451 decades."""
    module = nn.LSTM(1, 2, batch_first=True)
    bias = torch.zeros(8)
    bias[2] = 40
    weight = torch.zeros(8, 1)
    weight[2] = -2000
    set_weights(module, bias_ih_l0=bias, weight_ih_l0=weight)
    x = torch.zeros(1, 3000, 1)
    x[0, 1500] = 1
    values = rnngrad.jacobian_curves(module, x, state="c").log10_frobenius
    assert values is not None
    np.testing.assert_allclose(values[0, 10:1500], 0, atol=1e-6)
    t = np.arange(1501, 3001)
    np.testing.assert_allclose(values[0, 1500:], t * math.log10(0.5), rtol=1e-12)


def test_a_row_that_underflows_in_one_step_is_not_zero():
    """Half of the units close to exp(-150), below float32; then the other half to exactly 0."""
    module = nn.LSTM(2, 70, batch_first=True)
    weight, bias = torch.zeros(280, 2), torch.zeros(280)
    weight[70:105, 0], weight[105:140, 1] = -190, -1040
    bias[70:140] = 40
    set_weights(module, weight_ih_l0=weight, bias_ih_l0=bias)
    x = torch.zeros(1, 20, 2)
    x[0, 5, 0] = x[0, 6, 1] = 1
    values = rnngrad.jacobian_curves(module, x, state="c").log10_frobenius[0]
    root = 0.5 * math.log10(35)
    np.testing.assert_allclose(values[5], root, atol=1e-6)
    np.testing.assert_allclose(values[6:], root - 150 / math.log(10), atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_the_two_ways_to_take_a_step_agree(cell: str, monkeypatch: pytest.MonkeyPatch):
    """One scale per example, and one scale per row at every step."""
    instance = make(Case(cell, steps=200, hidden=6))
    args = instance.module, instance.inputs, instance.initial_state
    quick = rnngrad.jacobian_curves(*args)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
    monkeypatch.setattr(tangents.Propagation, "_quick", lambda *args: None)
    slow = rnngrad.jacobian_curves(*args)
    for name in ("log10_frobenius", "log10_column_sum", "log10_spectral"):
        np.testing.assert_allclose(getattr(quick, name), getattr(slow, name), rtol=0, atol=1e-9)


def test_huge_and_tiny_weights_in_float32():
    """One step grows or shrinks by more than float32 holds, and one unit by more than another."""
    module = nn.RNN(1, 70, batch_first=True)
    for sizes in ((1e30, 1e30), (1e-30, 1e-30), (1e-30, 1.0), (1e-30, 1e30)):
        factors = torch.tensor(sizes).repeat(35)
        set_weights(module, weight_hh_l0=torch.diag(factors))
        values = rnngrad.jacobian_curves(module, torch.zeros(1, 40, 1)).log10_frobenius
        t = np.arange(1, 41)
        same = sizes[0] == sizes[1]
        expected = t * math.log10(max(sizes)) + 0.5 * math.log10(70 if same else 35)
        np.testing.assert_allclose(values[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dead", [0, 3])
def test_true_zeros_stay_on_the_quick_way(dead: int, monkeypatch: pytest.MonkeyPatch):
    """The identity with relu: a unit that was dead once has a zero row for good."""
    module = nn.RNN(1, 70, nonlinearity="relu", batch_first=True)
    drive = torch.ones(70, 1)
    drive[:dead] = -1
    set_weights(module, weight_hh_l0=torch.eye(70), weight_ih_l0=drive)
    x = torch.full((2, 40, 1), 0.1)
    x[0, 20] = -50
    monkeypatch.delattr(tangents.Propagation, "_scaled")
    values = rnngrad.jacobian_curves(module, x).log10_frobenius
    np.testing.assert_allclose(values[1], 0.5 * math.log10(70 - dead), atol=1e-6)
    np.testing.assert_allclose(values[0, :20], values[1, :20], atol=1e-6)
    if dead:
        assert (values[0, 20:] == -np.inf).all()


@pytest.mark.parametrize("seed", range(3))
def test_pascanu_bound_holds_with_the_singular_value(seed: int):
    """||J_t||_2 <= sigma_max^t for tanh; with the spectral radius in its place it does not."""
    torch.manual_seed(seed)
    W = torch.randn(30, 30, dtype=torch.float64) / 30**0.5
    W = W / torch.linalg.svdvals(W)[0] * 0.95
    module = nn.RNN(2, 30, batch_first=True).double()
    set_weights(module, weight_hh_l0=W, weight_ih_l0=0.3 * torch.randn(30, 2))
    values = rnngrad.jacobian_curves(module, torch.randn(3, 60, 2).double()).log10_spectral
    assert (values <= np.arange(1, 61) * math.log10(0.95) + 1e-12).all()
    radius = torch.linalg.eigvals(W).abs().max().item()
    calm = rnngrad.jacobian_curves(module, torch.zeros(1, 60, 2).double()).log10_spectral
    assert (calm > np.arange(1, 61) * math.log10(radius) + 1e-3).any()


def test_spectral_radius_zero_can_explode():
    """A nilpotent W: every eigenvalue is 0, W^t grows until it is exactly 0 at t = H."""
    H = 12
    W = torch.diag(torch.full((H - 1,), 10.0), 1).double()
    module = nn.RNN(1, H, batch_first=True).double()
    set_weights(module, weight_hh_l0=W)
    values = rnngrad.jacobian_curves(module, torch.zeros(1, 20, 1).double()).log10_spectral
    assert values is not None
    np.testing.assert_allclose(values[0, : H - 1], np.arange(1, H), atol=1e-12)
    assert (values[0, H - 1 :] == -np.inf).all()


def test_chunks_of_one_example_change_nothing(monkeypatch: pytest.MonkeyPatch):
    from rnngrad.probe import trajectory

    instance = make(Case("lstm", batch=5, layers=2))
    lengths = [24, 3, 9, 24, 1]
    args = instance.module, instance.inputs, instance.initial_state
    together = rnngrad.jacobian_curves(*args, state="c", lengths=lengths)
    monkeypatch.setattr(trajectory, "TRAJECTORY_BYTES", 1)
    apart = rnngrad.jacobian_curves(*args, state="c", lengths=lengths)
    for name in ("log10_frobenius", "log10_column_sum", "log10_spectral", "log10_cell_path"):
        np.testing.assert_allclose(getattr(together, name), getattr(apart, name), atol=1e-12)


def test_the_module_is_left_as_it_is():
    instance = make(Case("lstm"), torch.float32)
    before = {k: v.clone() for k, v in instance.module.state_dict().items()}
    rnngrad.jacobian_curves(instance.module, instance.inputs)
    assert all(torch.equal(v, before[k]) for k, v in instance.module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in instance.module.parameters())


def test_published_start_of_the_question():
    """The question's LSTM curve, 20 steps, Keras initialisation, h_0, c_0 ~ U(0, 1), zero padding.

    Published values are half the true mean (its accumulator starts with as many rows of zeros).
    One seed spreads: 25 % at step 10, 40 % at step 20; the median of five is held to that.
    """
    curves = []
    for seed in range(5):
        torch.manual_seed(seed)
        module = nn.LSTM(100, 200, batch_first=True)
        forget = torch.zeros(800)
        forget[200:400] = 1
        kernel = nn.init.orthogonal_(torch.empty(800, 200))
        set_weights(module, weight_hh_l0=kernel, bias_ih_l0=forget)
        state = (torch.rand(1, 2, 200), torch.rand(1, 2, 200))
        found = rnngrad.jacobian_curves(
            module, torch.zeros(2, 20, 100), state, state="c", statistics="column_sum"
        )
        assert found.log10_column_sum is not None
        curves.append(10**found.log10_column_sum / 2)
    median = np.median(np.concatenate(curves), axis=0)
    np.testing.assert_allclose(median[0], 0.36652, rtol=0.02)
    np.testing.assert_allclose(median[9], 0.03606, rtol=0.25)
    np.testing.assert_allclose(median[19], 0.00671, rtol=0.40)


def test_plan_uses_float64_for_small_modules():
    instance = make(Case("lstm"), torch.float32)
    double = make(Case("lstm"))
    single = rnngrad.jacobian_curves(instance.module, instance.inputs)
    with torch.no_grad():
        for p, q in zip(double.module.parameters(), instance.module.parameters(), strict=True):
            p.copy_(q)
    exact = rnngrad.jacobian_curves(double.module, instance.inputs.double())
    np.testing.assert_allclose(single.log10_frobenius, exact.log10_frobenius, atol=1e-12)


def test_derivatives_of_saturated_gates():
    """Against exp, where s (1 - s) and 1 - tanh^2 have no digit left."""
    for x in (20.0, 45.0, 300.0, 360.0):
        a = torch.tensor([x, -x], dtype=torch.float64)
        small = torch.full((2,), math.exp(-x), dtype=torch.float64)
        sigmoid = STABLE.sigmoid(a)
        torch.testing.assert_close(sigmoid.derivative, small, rtol=1e-8, atol=0)
        torch.testing.assert_close(sigmoid.complement[0], small[0], rtol=1e-8, atol=0)
        torch.testing.assert_close(STABLE.tanh(a).derivative, 4 * small**2, rtol=1e-8, atol=0)


def test_the_closed_gru_path_counts():
    """z = s(40): the candidate's path is exp(-40), and a weight of 1e20 makes it the larger one."""
    module = nn.GRU(1, 1, batch_first=True).double()
    bias, weight = torch.zeros(3), torch.zeros(3, 1).double()
    bias[1], weight[2] = 40, 1e20
    set_weights(module, weight_hh_l0=weight, bias_ih_l0=bias)
    found = rnngrad.jacobian_curves(module, torch.zeros(1, 1, 1).double()).log10_frobenius
    np.testing.assert_allclose(10 ** found[0, 0], 1 + 0.5e20 * math.exp(-40), rtol=1e-12)
