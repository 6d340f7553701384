"""Lyapunov exponents: exact identity, closed forms, mean-field theory."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import Case, make, set_weights
from torch import nn

import rnngrad


def mean_log_det(instance, warmup: int) -> np.ndarray:
    """mean_t log|det M_t|, with the one-step maps by autograd."""
    module, lstm = instance.module, isinstance(instance.module, nn.LSTM)
    H, out = module.hidden_size, np.zeros(len(instance.h[0]))
    for b in range(len(out)):
        h, c = instance.h[:, b], instance.c[:, b]
        for t, x in enumerate(instance.time_first[:, b]):

            def step(s, x=x):
                if lstm:
                    new = module(x[None], (s[None, :H], s[None, H:]))[1]
                    return torch.cat((new[0][0], new[1][0]))
                return module(x[None], s[None])[1][0]

            s = torch.cat((h[0], c[0])) if lstm else h[0]
            M = torch.autograd.functional.jacobian(step, s)
            if t >= warmup:
                out[b] += torch.linalg.slogdet(M).logabsdet.item()
            s = step(s).detach()
            h, c = s[None, :H], s[None, H:]
    return out / (len(instance.time_first) - warmup)


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
@pytest.mark.parametrize("warmup", [0, 5])
def test_sum_is_the_mean_log_determinant(cell: str, warmup: int):
    instance = make(Case(cell, steps=25))
    found = rnngrad.lyapunov_exponents(
        instance.module, instance.inputs, instance.initial_state, warmup=warmup
    )
    assert found.shape == (2, 8 if cell == "lstm" else 4)
    assert (np.diff(found, axis=1) <= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), mean_log_det(instance, warmup), rtol=1e-10)


def test_exponents_of_a_constant_linear_map():
    """At the origin M_t = W: the exponents are the logarithms of the moduli of its eigenvalues."""
    V = torch.randn(4, 4, dtype=torch.float64)
    moduli = torch.tensor([1.3, 0.9, 0.4, 0.1], dtype=torch.float64)
    module = nn.RNN(1, 4, batch_first=True).double()
    set_weights(module, weight_hh_l0=V @ torch.diag(moduli) @ torch.linalg.inv(V))
    x = torch.zeros(1, 400, 1).double()
    found = rnngrad.lyapunov_exponents(module, x, warmup=100)
    np.testing.assert_allclose(found[0], moduli.log().numpy(), atol=1e-9)
    two = rnngrad.lyapunov_exponents(module, x, warmup=100, count=2)
    np.testing.assert_allclose(two[0], moduli.log().numpy()[:2], atol=1e-9)


def test_singular_map_is_minus_infinity():
    module = nn.RNN(1, 2, nonlinearity="relu", batch_first=True).double()
    set_weights(module, weight_hh_l0=0.5 * torch.eye(2), bias_ih_l0=torch.tensor([1.0, -1.0]))
    found = rnngrad.lyapunov_exponents(module, torch.zeros(1, 20, 1).double(), warmup=5)
    np.testing.assert_allclose(found, [[math.log(0.5), -np.inf]], atol=1e-12)


@pytest.mark.parametrize("drive", [10.0, 18.0, 20.0, 25.0, 300.0])
def test_sum_with_units_that_are_driven(drive: float):
    module = nn.RNN(6, 6, batch_first=True, bias=False).double()
    with torch.no_grad():
        module.get_parameter("weight_ih_l0").copy_(torch.eye(6))
        nn.init.orthogonal_(module.get_parameter("weight_hh_l0"))
        x = torch.zeros(1, 40, 6).double()
        x[:, :, :3] = drive
        states = module(x)[0]
        before = torch.cat((states[:, :1] * 0, states[:, :-1]), dim=1)
        a = x + before @ module.get_parameter("weight_hh_l0").T
    expected = -2 * torch.log(torch.cosh(a)).sum(dim=-1).mean()
    found = rnngrad.lyapunov_exponents(module, x)
    # from about 180 on, 1 / cosh(a)^2 loses digits, and at 373 it is 0
    rtol = 1e-12 if drive < 100 else 1e-8
    np.testing.assert_allclose(found.sum(), expected.item(), rtol=rtol)


@pytest.mark.parametrize("others", [[4], [3, 4], [0, 1, 2, 3]])
def test_what_float64_cannot_tell_is_nan(others: list[int]):
    """Dependent rows of W_hh: the last exponent is -inf, and any finite number is round-off."""
    module = nn.RNN(1, 6, batch_first=True).double()
    with torch.no_grad():
        weight = module.get_parameter("weight_hh_l0")
        weight[5] = weight[others].sum(dim=0)
    found = rnngrad.lyapunov_exponents(module, torch.randn(2, 4, 1).double())
    assert np.isnan(found[:, -1]).all()
    assert np.isfinite(found[:, :-1]).all()
    assert (np.diff(found[:, :-1], axis=1) <= 0).all()


def test_unit_that_nobody_reads_is_minus_infinity():
    module = nn.RNN(1, 4, batch_first=True).double()
    with torch.no_grad():
        module.get_parameter("weight_hh_l0")[:, 2] = 0
    found = rnngrad.lyapunov_exponents(module, torch.randn(1, 50, 1).double())
    assert np.isfinite(found[:, :-1]).all()
    assert found[0, -1] == -np.inf


def random_network(g: float, N: int, seed: int) -> nn.RNN:
    """x' = W tanh(x), W ~ N(0, g^2 / N), is torch's RNN seen half a step later."""
    torch.manual_seed(seed)
    W = g * torch.randn(N, N, dtype=torch.float64) / N**0.5
    module = nn.RNN(1, N, bias=False, batch_first=True).double()
    set_weights(module, weight_hh_l0=W)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(("g", "largest"), [(1.5, 0.065217), (3.0, 0.310249)])
def test_largest_exponent_of_random_networks(g: float, largest: float):
    """Mean-field theory at N = 256, over 8 networks: single ones scatter by 0.01."""
    x = torch.zeros(1, 1500, 1).double()
    found = []
    for seed in range(8):
        module = random_network(g, 256, seed)
        h0 = torch.randn(1, 1, 256).double()
        found.append(rnngrad.lyapunov_exponents(module, x, h0, count=1, warmup=300))
    assert abs(np.mean(found) - largest) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("g", "mean"), [(1.5, -0.714346), (3.0, -2.272805)])
def test_mean_exponent_of_random_networks(g: float, mean: float):
    """Mean-field theory at N = 512; at 256 the networks themselves are 0.05 off at g = 1.5.

    The mean needs no alignment of the tangents: single steps from 16 states of one trajectory do.
    """
    module = random_network(g, 512, seed=0)
    with torch.no_grad():
        path = module(torch.zeros(1, 600, 1).double(), torch.randn(1, 1, 512).double())[0]
    h0 = path[:, 200::25]
    found = rnngrad.lyapunov_exponents(module, torch.zeros(16, 1, 1).double(), h0)
    assert abs(found.mean() - mean) < 0.04


@pytest.mark.parametrize(("count", "warmup"), [(0, 0), (5, 0), (None, 24), (None, -1)])
def test_refuses_what_is_out_of_range(count: int | None, warmup: int):
    instance = make(Case("gru"))
    with pytest.raises(ValueError, match=r"use 1\.\.4|must lie in 0\.\.23"):
        rnngrad.lyapunov_exponents(instance.module, instance.inputs, count=count, warmup=warmup)


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_lengths_and_counts(cell: str):
    """Each example over its own length; the largest exponents are the same however many."""
    instance = make(Case(cell, layers=2, steps=90, batch=3))
    args = instance.module, instance.inputs, instance.initial_state
    lengths = [90, 33, 7]
    kwargs: dict[str, Any] = {"warmup": 6, "layer": 0}
    found = rnngrad.lyapunov_exponents(*args, lengths=lengths, **kwargs)
    two = rnngrad.lyapunov_exponents(*args, lengths=lengths, count=2, **kwargs)
    alone = rnngrad.lyapunov_exponents(
        instance.module, instance.time_first[:33].transpose(0, 1), instance.initial_state, **kwargs
    )
    np.testing.assert_allclose(found[1], alone[1], rtol=0, atol=1e-12)
    assert (np.abs(found[0] - alone[0]) > 1e-6).any()
    # a finite time orders the exponents as the first directions found them
    np.testing.assert_allclose(two[0], found[0, :2], rtol=0, atol=0.05)
    with pytest.raises(ValueError, match=r"warmup=7: must lie in 0\.\.6"):
        rnngrad.lyapunov_exponents(*args, lengths=lengths, warmup=7)


def plain_exponents(jacobians: list[np.ndarray], count: int, warmup: int) -> np.ndarray:
    """One QR at every step, from other directions."""
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((len(jacobians[0]), count)))[0]
    total = np.zeros(count)
    for t, M in enumerate(jacobians):
        Q, R = np.linalg.qr(M @ Q)
        total += np.log(np.abs(R.diagonal())) * (t >= warmup)
    return np.sort(total / (len(jacobians) - warmup))[::-1]


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_one_orthonormalisation_per_step(cell: str):
    """After a warm-up the directions that it began with are forgotten."""
    instance = make(Case(cell, seed=5, steps=500, hidden=4, batch=1))
    path = rnngrad.trajectory(instance.module, instance.inputs)
    for count in (1, 3, 8 if cell == "lstm" else 4):
        found = rnngrad.lyapunov_exponents(
            instance.module, instance.inputs, count=count, warmup=300
        )
        expected = plain_exponents(list(path.jacobians(0)), count, warmup=300)
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-9)
