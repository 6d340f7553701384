"""The sketch: unbiased, corrected, and honest about its error."""

import numpy as np
import pytest
import torch
from probe_problems import CELLS, Case, make
from rnngrad.probe.sketch import random_directions
from torch import nn

import rnngrad
from rnngrad.probe import directions

COPIES = 400


def sketches(directions: int, hidden: int = 12, steps: int = 60):
    """Many sketches of one curve: the same example COPIES times, with directions of its own."""
    torch.manual_seed(0)
    module = nn.LSTM(3, hidden, batch_first=True)
    x = torch.randn(1, steps, 3)
    exact = rnngrad.jacobian_curves(module, x, state="c", statistics="frobenius").log10_frobenius
    found = rnngrad.jacobian_curves(
        module, x.expand(COPIES, -1, -1), state="c", method="sketch", directions=directions
    )
    assert found.log10_frobenius is not None
    assert found.log10_frobenius_error is not None
    assert found.log10_spectral is None
    assert found.log10_column_sum is None
    return exact, found.log10_frobenius, found.log10_frobenius_error


def test_squared_norm_is_unbiased():
    J = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    Y = random_directions(J, batch=10 * COPIES, count=4, seed=0)
    ratio = Y.square().sum(dim=1).mean(dim=1) / J.square().sum()
    error = ratio.std() / (10 * COPIES) ** 0.5
    assert abs(ratio.mean() - 1) < 4 * error


@pytest.mark.parametrize("directions", [4, 8, 16])
def test_log_is_corrected(directions: int):
    """Uncorrected, the bias is -0.06, -0.03, -0.014 decades once J_t has rank one."""
    exact, found, _ = sketches(directions)
    assert np.abs((found - exact).mean(axis=0)).max() < {4: 0.035, 8: 0.02, 16: 0.013}[directions]
    assert abs((found - exact).mean()) < 0.01


@pytest.mark.parametrize("directions", [4, 8, 16])
def test_intervals_cover(directions: int):
    exact, found, error = sketches(directions)
    covered = (np.abs(found - exact) <= 1.96 * error).mean(axis=0)
    assert covered.min() > 0.88
    assert covered.mean() > 0.92
    # and they are no wider than they must be
    assert (error.mean(axis=0) < 1.5 * found.std(axis=0)).all()


def test_examples_have_directions_of_their_own():
    _, found, _ = sketches(4)
    assert len(np.unique(found[:, 5])) == COPIES


def test_reproducible_and_checked():
    module, x = nn.GRU(2, 4), torch.randn(9, 3, 2)
    one, two, three = (
        rnngrad.jacobian_curves(module, x, method="sketch", seed=s).log10_frobenius
        for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()
    with pytest.raises(ValueError, match='estimates "frobenius" only'):
        rnngrad.jacobian_curves(module, x, method="sketch", statistics="spectral")
    for few in (0, 3):
        with pytest.raises(ValueError, match=f"directions={few}: use at least 4"):
            rnngrad.jacobian_curves(module, x, method="sketch", directions=few)
    with pytest.raises(TypeError, match="directions must be an int, got bool"):
        rnngrad.jacobian_curves(module, x, method="sketch", directions=True)
    with pytest.raises(ValueError, match="method='exakt'"):
        rnngrad.jacobian_curves(module, x, method="exakt")


@pytest.mark.usefixtures("float32_from_64")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", CELLS)
def test_gate_by_gate_or_in_one_matrix(
    cell: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """Two ways to take a step; few directions go the first."""
    instance = make(Case(cell, layers=2, hidden=64, steps=40, batch=5), dtype)
    problem = instance.module, instance.inputs, instance.initial_state
    kwargs = {"method": "sketch", "directions": 5, "lengths": [40, 3, 17, 39, 40]}
    found = [rnngrad.jacobian_curves(*problem, **kwargs)]
    monkeypatch.setattr(directions, "BY_GATE", 0)
    found.append(rnngrad.jacobian_curves(*problem, **kwargs))
    few, one = (curves.log10_frobenius for curves in found)
    np.testing.assert_allclose(few, one, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-6)
