"""The cell path and the hidden path of an LSTM against autograd."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import Case, Instance, autograd_jacobians, make, set_weights, weights
from torch import Tensor, nn

import rnngrad
from rnngrad.errors import InputError
from rnngrad.probe import blocks, tangents

pytestmark = pytest.mark.usefixtures("float32_from_64")


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


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("coupling", [1.0, 1e-4])
def test_against_autograd(quick: bool, coupling: float, monkeypatch: pytest.MonkeyPatch):
    """With one scale per example, with one per row; where they are comparable, and far apart."""
    instance = make(Case("lstm", hidden=5, batch=3))
    with torch.no_grad():
        weights(instance.module)["weight_hh_l0"] *= coupling
    if not quick:
        monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
        monkeypatch.setattr(tangents.Propagation, "_quick", lambda *args: None)
        monkeypatch.setattr(tangents, "SPREAD_BACK", -1)
    found = paths(instance.module, instance.inputs, instance.initial_state)
    cell, hidden = autograd_paths(instance)
    np.testing.assert_allclose(found.log10_cell_path, cell, rtol=0, atol=1e-12)
    # J_t itself is what is rounded, on both sides
    np.testing.assert_allclose(found.log10_hidden_path[:, 1:], hidden[:, 1:], rtol=0, atol=1e-9)


def test_no_hidden_path_at_the_first_step():
    instance = make(Case("lstm"))
    found = paths(instance.module, instance.inputs, instance.initial_state)
    assert (found.log10_hidden_path[:, 0] == -np.inf).all()
    assert np.isfinite(found.log10_hidden_path[:, 1:]).all()


def test_the_parts_are_within_the_triangle_inequality():
    instance = make(Case("lstm", hidden=64, steps=200), torch.float32)
    found = paths(instance.module, instance.inputs)
    log = {n: math.log(10) * getattr(found, f"log10_{n}") for n in ("cell_path", "hidden_path")}
    total = found.log10_frobenius
    assert (math.log(10) * total <= np.logaddexp(*log.values()) + 1e-5).all()
    assert total[0, -1] < -10


@pytest.mark.parametrize("forget_bias", [0.0, 5.0])
def test_float32_tangents(forget_bias: float):
    instance = make(Case("lstm", hidden=64, steps=300), torch.float32)
    with torch.no_grad():
        weights(instance.module)["bias_ih_l0"][64:128] += forget_bias
    double = nn.LSTM(3, 64, batch_first=True).double()
    double.load_state_dict(instance.module.state_dict())
    found = paths(instance.module, instance.inputs).log10_hidden_path[:, 1:]
    expected = paths(double, instance.inputs.double()).log10_hidden_path[:, 1:]
    assert (found != expected).any()
    assert np.abs(found - expected).max() * math.log(10) < 1e-5


def test_a_hidden_path_that_rounding_hides():
    """Without recurrent weights there is none; what is left of it is the cell path's last digit."""
    module = nn.LSTM(1, 4, batch_first=True).double()
    set_weights(module, bias_ih_l0=torch.linspace(-1, 2, 16), weight_ih_l0=0.5)
    x = torch.randn(2, 50, 1, generator=torch.Generator().manual_seed(0)).double()
    found = paths(module, x)
    assert (found.log10_hidden_path - found.log10_cell_path < -14).all()


def test_only_where_asked_for():
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
def test_only_of_a_cell_state(cell: str, state: str):
    instance = make(Case(cell))
    with pytest.raises(InputError, match=r'"hidden_path" is for an nn\.LSTM with state="c"'):
        rnngrad.jacobian_curves(
            instance.module, instance.inputs, state=state, statistics=("hidden_path",)
        )
