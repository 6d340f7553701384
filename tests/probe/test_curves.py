"""Jacobian curves against autograd, closed forms and theorems."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import (
    CELLS,
    Case,
    Instance,
    autograd_jacobians,
    log10_statistics,
    make,
    set_weights,
    weights,
)
from torch import Tensor, nn

import rnngrad
from rnngrad.errors import InputError

CASES = [
    Case(cell, layers, bias, batch_first, seed=layers)
    for cell in CELLS
    for layers, bias, batch_first in ((1, True, True), (2, False, False), (3, True, False))
] + [Case("lstm", steps=60, hidden=5), Case("gru", steps=60), Case("rnn_tanh", steps=60)]


def assert_close(curves: rnngrad.JacobianCurves, J: torch.Tensor, decades: float) -> None:
    for name, expected in log10_statistics(J).items():
        found = getattr(curves, name)
        assert found.shape == tuple(expected.shape)
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=decades, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_autograd(case: Case):
    instance = make(case)
    for state in ("h", "c", "full") if case.cell == "lstm" else ("h",):
        curves = rnngrad.jacobian_curves(
            instance.module, instance.inputs, instance.initial_state, state=state
        )
        assert_close(curves, autograd_jacobians(instance, state), 1e-9)


def test_any_layer():
    instance = make(Case("lstm", layers=3))
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


def test_a_frame_has_the_steps_of_every_example():
    instance = make(Case("lstm", batch=3))
    lengths = [5, 24, 11]
    frame = rnngrad.jacobian_curves(instance.module, instance.inputs, lengths=lengths).to_frame()
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


def test_orthogonal_linear_rnn_keeps_its_norm():
    """At the origin tanh is linear, so J_t = W^t."""
    module = nn.RNN(2, 7, bias=False, batch_first=True).double()
    Q = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64)).Q
    set_weights(module, weight_hh_l0=Q)
    curves = rnngrad.jacobian_curves(module, torch.zeros(1, 50, 2).double())
    powers = torch.stack([torch.linalg.matrix_power(Q, t) for t in range(1, 51)])
    assert_close(curves, powers.unsqueeze(0), 1e-12)
    np.testing.assert_allclose(curves.log10_spectral, 0, atol=1e-12)


@pytest.mark.parametrize(("kind", "state"), [(nn.LSTM, "c"), (nn.GRU, "h")])
def test_without_recurrence_it_is_the_product_of_the_gates(kind: Any, state: str):
    torch.manual_seed(1)
    module = kind(3, 5, batch_first=True).double()
    w = weights(module)
    with torch.no_grad():
        w["weight_hh_l0"].zero_()
    x = torch.randn(2, 40, 3).double()
    curves = rnngrad.jacobian_curves(module, x, state=state)
    a = x @ w["weight_ih_l0"].T + w["bias_ih_l0"] + w["bias_hh_l0"]
    product = torch.sigmoid(a[..., 5:10]).cumprod(dim=1).detach()  # of f, or of z
    assert_close(curves, torch.diag_embed(product), 1e-12)
    if kind is nn.LSTM:
        np.testing.assert_allclose(curves.log10_cell_path, curves.log10_frobenius, atol=1e-12)


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


def test_the_module_is_left_as_it_is():
    instance = make(Case("lstm"), torch.float32)
    before = {k: v.clone() for k, v in instance.module.state_dict().items()}
    rnngrad.jacobian_curves(instance.module, instance.inputs)
    assert all(torch.equal(v, before[k]) for k, v in instance.module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in instance.module.parameters())


def paths(module: nn.RNNBase, inputs: Tensor, state: Any = None) -> rnngrad.JacobianCurves:
    return rnngrad.jacobian_curves(
        module, inputs, state, state="c", statistics=("frobenius", "hidden_path")
    )


def autograd_paths(instance: Instance) -> tuple[np.ndarray, np.ndarray]:
    """log10 norms of diag(prod f) and of the rest of autograd's d c_t / d c_0."""
    h, c = instance.h, instance.c
    gates = []
    for t in range(len(instance.time_first)):
        x = instance.time_first[t : t + 1]
        w = weights(instance.module)
        H = instance.module.hidden_size
        below = x[0]
        a = below @ w["weight_ih_l0"].T + h[0] @ w["weight_hh_l0"].T
        gates.append(torch.sigmoid((a + w["bias_ih_l0"] + w["bias_hh_l0"])[:, H : 2 * H]))
        x = x.transpose(0, 1) if instance.module.batch_first else x
        h, c = instance.module(x, (h, c))[1]
    cell = torch.stack(gates, dim=1).cumprod(dim=1).detach()
    hidden = autograd_jacobians(instance, "c") - torch.diag_embed(cell)
    norms = torch.linalg.vector_norm(cell, dim=-1), torch.linalg.matrix_norm(hidden)
    return norms[0].log10().numpy(), norms[1].log10().numpy()


@pytest.mark.parametrize("coupling", [1.0, 1e-4, 1e-9])
def test_cell_path_and_hidden_path(coupling: float):
    """They are comparable in some cases, and far apart in others."""
    instance = make(Case("lstm", hidden=5, batch=3, steps=40))
    with torch.no_grad():
        weights(instance.module)["weight_hh_l0"] *= coupling
    found = paths(instance.module, instance.inputs, instance.initial_state)
    cell, hidden = autograd_paths(instance)
    np.testing.assert_allclose(found.log10_cell_path, cell, rtol=0, atol=1e-12)
    assert (found.log10_hidden_path[:, 0] == -np.inf).all()
    # autograd's J_t is rounded, and so is what is left of it
    decades = 1e-9 if coupling == 1 else 1e-15 / coupling**2
    np.testing.assert_allclose(
        found.log10_hidden_path[:, 1:], hidden[:, 1:], rtol=0, atol=max(decades, 1e-9)
    )


def test_a_hidden_path_that_rounding_hides():
    """Without recurrent weights there is none; what is left of it is the cell path's last digit."""
    module = nn.LSTM(1, 4, batch_first=True).double()
    set_weights(module, bias_ih_l0=torch.linspace(-1, 2, 16), weight_ih_l0=0.5)
    x = torch.randn(2, 50, 1, generator=torch.Generator().manual_seed(0)).double()
    found = paths(module, x)
    assert (found.log10_hidden_path - found.log10_cell_path < -14).all()


def test_a_hidden_path_only_where_asked_for():
    instance = make(Case("lstm"))
    assert rnngrad.jacobian_curves(instance.module, instance.inputs).log10_hidden_path is None
    frame = paths(instance.module, instance.inputs).to_frame()
    counts = frame["statistic"].value_counts().to_dict()
    assert counts == {"frobenius": 48, "cell_path": 48, "hidden_path": 48}
    alone = rnngrad.jacobian_curves(
        instance.module, instance.inputs, state="c", statistics="hidden_path"
    )
    assert alone.log10_frobenius is None
    assert np.isfinite(alone.log10_hidden_path[:, 1:]).all()


@pytest.mark.parametrize(("cell", "state"), [("lstm", "h"), ("lstm", "full"), ("gru", "h")])
def test_a_hidden_path_only_of_a_cell_state(cell: str, state: str):
    instance = make(Case(cell))
    with pytest.raises(InputError, match=r"use some of frobenius, column_sum, spectral$"):
        rnngrad.jacobian_curves(
            instance.module, instance.inputs, state=state, statistics=("hidden_path",)
        )
