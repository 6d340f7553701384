"""Gradients of a loss to the states, against autograd and closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import (
    GRADIENT_CASES,
    Case,
    make,
    output_gradients,
    scaled_log10,
    set_weights,
    states_with_gradients,
    times_scaled,
    weights,
)
from torch import nn

import rnngrad


@pytest.mark.parametrize("case", GRADIENT_CASES, ids=str)
def test_loss_gradients_agree_with_autograd(case: Case):
    instance = make(case)
    G = output_gradients(instance)
    states = states_with_gradients(instance, G)
    for layer in range(case.layers):
        found = rnngrad.loss_gradient_curves(
            instance.module, instance.inputs, G, instance.initial_state, layer=layer
        )
        for k, values in enumerate((found.log10_h, found.log10_c)):
            if values is None:
                assert case.cell != "lstm"
                continue
            norms = torch.stack([s[k].grad.norm(dim=1) for s in states[layer]], dim=1)  # pyright: ignore[reportOptionalMemberAccess]
            np.testing.assert_allclose(10**values, norms.numpy(), rtol=1e-9, atol=1e-300)


def test_loss_at_the_end_only():
    module = nn.LSTM(3, 5, batch_first=True)
    x, G = torch.randn(2, 1500, 3), torch.zeros(2, 1500, 5)
    G[:, -1] = 1
    curves = rnngrad.loss_gradient_curves(module, x, G)
    assert curves.log10_c is not None
    for values in (curves.log10_h, curves.log10_c):
        assert np.isfinite(values[:, :-1]).all()
        assert (values[:, 0] < -250).all()
    np.testing.assert_allclose(curves.log10_h[:, -1], 0.5 * math.log10(5), atol=1e-12)
    assert len(curves.to_frame()) == 2 * 2 * 1500


def test_loss_gradient_of_units_that_do_not_talk():
    """Without recurrence dL/dc_t is a product per unit: one at 1, one at 2^-t, one reset."""
    module = nn.LSTM(1, 2, batch_first=True)
    bias, weight = torch.zeros(8), torch.zeros(8, 1)
    bias[2], weight[2] = 40, -2000
    set_weights(module, bias_ih_l0=bias, weight_ih_l0=weight)
    T, reset = 2500, 1000
    x, G = torch.zeros(1, T, 1), torch.zeros(1, T, 2)
    x[0, reset] = 1
    G[0, -1] = 1
    values = rnngrad.loss_gradient_curves(module, x, G).log10_c
    assert values is not None
    # dL/dc_T = o (1 - tanh(0)^2) = 1/2 for both units
    half = math.log10(0.5)
    np.testing.assert_allclose(values[0, reset + 10 : -20], half, atol=1e-5)
    steps_left = T - 1 - np.arange(reset)
    np.testing.assert_allclose(values[0, :reset], half * (1 + steps_left), rtol=1e-12)


def test_a_small_gradient_survives_a_huge_one_that_ends():
    """Unit 0 grows tenfold per step back and is dead at step 41; unit 1 keeps its gradient of 1."""
    rnn = nn.RNN(2, 2, nonlinearity="relu", bias=False, batch_first=True)
    diagonal = torch.diag(torch.tensor([10.0, 1.0]))
    set_weights(rnn, weight_hh_l0=diagonal, weight_ih_l0=torch.eye(2))
    rnn, x, G = rnn.double(), torch.zeros(1, 500, 2).double(), torch.zeros(1, 500, 2)
    x[..., 1], x[0, 40, 0], x[0, 41, 0] = 1e-3, -9, 1e-300
    G[0, -1, 0] = G[0, 60, 1] = 1
    found = rnngrad.loss_gradient_curves(rnn, x, G).log10_h[0]
    np.testing.assert_array_equal(found[:40], 0)
    np.testing.assert_allclose(found[[41, 61, 499]], [458, 438, 0], rtol=1e-12)


@pytest.mark.parametrize(("size", "exact"), [(1e150, 150), (1e-150, -150)])
def test_layers_may_be_as_far_apart_as_their_weights_make_them(size: float, exact: int):
    """Without input every slope is 1: a gradient is a sum of products of weights along paths."""
    rnn = nn.RNN(1, 1, num_layers=4, batch_first=True).double()
    set_weights(rnn, **{n: (size if "weight" in n else 0) + 0 * w for n, w in weights(rnn).items()})
    G = torch.zeros(1, 3, 1)
    G[0, -1] = 1
    # from the last step to the first through four layers: ten ways of five weights
    at_first = 5 * exact + 1
    curves = rnngrad.loss_gradient_curves(rnn, torch.zeros(1, 3, 1), G, layer=0)
    np.testing.assert_allclose(curves.log10_h[0, [0, 2]], [at_first, 3 * exact], rtol=1e-12)
    parts = rnngrad.weight_gradient_parts(rnn, torch.zeros(1, 3, 1), G, reduce="curve")
    np.testing.assert_allclose(parts["bias_hh_l0"][0, [0, 2]], [at_first, 3 * exact], rtol=1e-12)


def scaled_loss_gradients(path: rnngrad.Trajectory, G: np.ndarray) -> list[np.ndarray]:
    """log10 of dL/dh_t, of an LSTM dL/dc_t, by transposed one-step matrices: a scale per unit."""
    H, jacobians = G.shape[1], list(path.jacobians(0))
    S = len(jacobians[0])
    grad, exponent, found = np.zeros((S, 1)), np.zeros(S, dtype=int), []
    for t in reversed(range(len(G))):
        # what arrives at h is one more row, which the first H rows are added to
        arriving, own = np.frexp(G[t])
        stacked = np.vstack((grad, arriving[:, None])), np.concatenate((exponent, own))
        grad, exponent = times_scaled(np.eye(S, S + H) + np.eye(S, S + H, S), *stacked)
        total = grad, exponent
        if S > H:
            through = path.factors.maps().through[0, t]
            total = times_scaled(np.eye(S) + np.diag(through, -H), grad, exponent)
        parts = [(m[rows], e[rows]) for m, e in [total] for rows in (slice(0, H), slice(H, S))]
        found.append([norm_of(*part) for part in parts[: S // H]])
        grad, exponent = times_scaled(jacobians[t].T, grad, exponent)
    return list(np.transpose(found[::-1]))


def norm_of(mantissa: np.ndarray, exponent: np.ndarray) -> float:
    top = exponent.max()
    whole = np.ldexp(mantissa[:, 0], (exponent - top).clip(-5000))
    return float(scaled_log10(np.linalg.norm(whole), top))


def far_apart() -> dict[str, nn.RNNBase]:
    """Units that close for good or a while, saturate, grow or shrink by themselves."""
    torch.manual_seed(0)
    modules = {
        "saturated": nn.RNN(2, 6),
        "sizes": nn.RNN(2, 6, nonlinearity="relu"),
        "closing": nn.LSTM(2, 6),
        "kept": nn.GRU(2, 6),
    }
    with torch.no_grad():
        for name, module in modules.items():
            module.double().batch_first = True
            w = weights(module)
            w["weight_ih_l0"][:, 0] = 0
            if name == "saturated":
                w["bias_ih_l0"][:3] = 150
            elif name == "sizes":
                w["weight_hh_l0"].copy_(torch.diag(10.0 ** torch.linspace(-9, 6, 6)))
                w["weight_hh_l0"][5, :5] = 1e-3
                w["bias_ih_l0"].fill_(1e-300)
                w["weight_ih_l0"].zero_()
            elif name == "closing":
                w["weight_hh_l0"].mul_(1e-3)
                w["weight_ih_l0"][6:9, 0] = -600
                w["bias_ih_l0"][9:11] = 5
            else:
                w["weight_ih_l0"][6:9, 0] = 400
                w["bias_ih_l0"][9:11] = -30
    return modules


@pytest.mark.parametrize("kind", far_apart())
def test_loss_gradients_of_units_far_apart(kind: str):
    module = far_apart()[kind]
    generator = torch.Generator().manual_seed(1)
    x, G = (torch.randn(1, 90, n, generator=generator).double() for n in (2, 6))
    x[..., 0] = 0
    x[0, 10::20, 0] = 1
    G[:, 30:60] = 0
    G[:, 60:] *= 1e-250
    G[:, :20] *= 1e200
    if kind == "sizes":
        x, G = x[:, :30], G[:, :30]
    found = rnngrad.loss_gradient_curves(module, x, G)
    expected = scaled_loss_gradients(rnngrad.trajectory(module, x), G[0].numpy())
    assert np.isfinite(expected[0]).all()
    for values, wanted in zip((found.log10_h, found.log10_c), expected, strict=False):
        np.testing.assert_allclose(values[0], wanted, rtol=0, atol=1e-9)
    # what arrives at the last state may come by itself
    last = G[:, -1].clone()[None]
    G[:, -1] = 0
    final: Any = (last, 0 * last) if kind == "closing" else last
    again = rnngrad.loss_gradient_curves(module, x, G, final_state_gradient=final)
    np.testing.assert_allclose(again.log10_h, found.log10_h, rtol=0, atol=1e-9)


def test_a_small_gradient_survives_a_small_weight():
    """Unit 1 has 1e-140 and hears unit 2 through 1e-200; unit 0 of order 1 dies at step 3."""
    module = nn.RNN(1, 3, nonlinearity="relu", batch_first=True).double()
    weight = torch.diag(torch.tensor([1.0, 0.0, 1.0])).double()
    weight[1, 2] = 1e-200
    into = torch.tensor([[-100.0], [0.0], [0.0]])
    set_weights(module, weight_hh_l0=weight, weight_ih_l0=into, bias_ih_l0=1.0)
    x, G = torch.zeros(1, 6, 1).double(), torch.zeros(1, 6, 3).double()
    x[0, 2], G[0, -1, 0], G[0, -1, 1] = 1, 1, 1e-140
    found = rnngrad.loss_gradient_curves(module, x, G).log10_h[0]
    np.testing.assert_allclose(found, [-340, -340, 0, 0, 0, 0], rtol=1e-12, atol=1e-12)


def test_final_state_gradients_that_do_not_fit():
    lstm, x = nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
    state = torch.zeros(1, 2, 4)
    for final, message in (
        ((state, state[:, :1]), r"dL/dc_n has shape \(1, 1, 4\), expected \(1, 2, 4\)"),
        ((state, state / 0), "contains nan"),
    ):
        with pytest.raises(ValueError, match=message):
            rnngrad.loss_gradient_curves(lstm, x, torch.zeros(2, 5, 4), final_state_gradient=final)  # pyright: ignore[reportArgumentType]
    unfit: Any = (state, state.numpy(), 3, (state, None), (state, state * 1j))
    pair = r"^final_state_gradient of a LSTM is a pair \(dL/dh_n, dL/dc_n\)"
    for final in unfit:
        with pytest.raises(TypeError, match=rf"{pair}|^dL/dc_n must be"):
            rnngrad.loss_gradient_curves(lstm, x, torch.zeros(2, 5, 4), final_state_gradient=final)


@pytest.mark.parametrize("decades", [-300, -181, -170, -165, -161, -160, -155, -140])
def test_h_far_below_c_is_not_zero(decades: int) -> None:
    """The squares of these numbers leave float64."""
    lstm, x = nn.LSTM(1, 1, batch_first=True).double(), torch.ones(1, 5, 1).double()
    one, nothing = torch.ones(1, 1, 1).double(), torch.zeros(1, 5, 1).double()
    final = (one * 10.0**decades, one)
    found = rnngrad.loss_gradient_curves(lstm, x, nothing, final_state_gradient=final)
    assert found.log10_h[0, -1] == pytest.approx(decades, abs=1e-9)
    nn.init.constant_(
        lstm.weight_hh_l0, 10.0**decades
    )  # so much comes back through h at every step
    last = nothing.clone()
    last[:, -1] = 1
    found = rnngrad.loss_gradient_curves(lstm, x, last)
    expected = scaled_loss_gradients(rnngrad.trajectory(lstm, x), last[0].numpy())
    for values, wanted in zip((found.log10_h, found.log10_c), expected, strict=False):
        np.testing.assert_allclose(values[0], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("candidate", [0.0, 1.0])
def test_a_gate_near_the_end_of_float64_hides_nothing(candidate: float):
    """One gate is 1e-300 at a step: the gradient before it is small, and not zero."""
    lstm: Any = nn.LSTM(1, 1, batch_first=True).double()
    gates = torch.tensor([0.0, -690.0, -66.8, 30.0]).double()
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.zero_()
        lstm.weight_ih_l0[1, 0] = 1.0  # f_t = sigmoid(x_t)
        lstm.bias_ih_l0[2] = candidate
    x, zeros = gates[None, :, None], torch.zeros(1, 4, 1).double()
    final = {"final_state_gradient": (zeros[:, 0][None], torch.ones(1, 1, 1).double())}
    log10_f = torch.nn.functional.logsigmoid(gates).numpy() / np.log(10)
    expected = np.append(np.cumsum(log10_f[:0:-1])[::-1], 0.0)  # of what comes after each step
    found = rnngrad.loss_gradient_curves(lstm, x, zeros, **final).log10_c[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    parts = rnngrad.weight_gradient_parts(lstm, x, zeros, reduce="curve", **final)["bias_hh_l0"][0]
    delta = (np.log10(0.5) if candidate == 0 else parts[-1]) + expected
    np.testing.assert_allclose(parts, delta, rtol=1e-12, atol=1e-12)
