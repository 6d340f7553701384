"""Directions that nothing depends on any more are dropped, and nobody can tell."""

from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import CELLS, FEATURES, Case, make, set_weights
from torch import nn

import rnngrad
from rnngrad.probe import column_sums, tangents
from rnngrad.probe.directions import DROPPED, FEW_TILE, significant_directions
from rnngrad.probe.statistics import HIDDEN_PATH, STATISTICS

LIMIT = DROPPED[torch.float32]

pytestmark = pytest.mark.usefixtures("float32_from_64")


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, torch.dtype]]:
    """How many directions the tangents had after each compression, and in which dtype."""
    found = []
    compress = tangents.Propagation.compress

    def recorded(run: tangents.Propagation, *args: Any) -> None:
        compress(run, *args)
        found.append((run.J.shape[-1], run.dtype))

    monkeypatch.setattr(tangents.Propagation, "compress", recorded)
    return found


def product(singular: list[float], rows: int, seed: int = 0) -> torch.Tensor:
    """A matrix (rows, k) with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    k = len(singular)
    U, V = (
        torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64))[0]
        for n in (rows, k)
    )
    return U * torch.tensor(singular, dtype=torch.float64) @ V.T


def test_what_is_dropped_is_below_the_limit_in_every_row():
    J = torch.stack([product([10.0 ** -(i / 2) for i in range(60)], 80, seed) for seed in range(2)])
    J[0] *= torch.logspace(0, -12, 80, dtype=torch.float64).unsqueeze(1)
    V = significant_directions(J, LIMIT)
    assert V is not None
    assert V.shape == (2, 60, 16)
    eye = torch.eye(16, dtype=torch.float64).expand(2, -1, -1)
    torch.testing.assert_close(V.mT @ V, eye, rtol=0, atol=1e-13)
    lost = torch.linalg.vector_norm(J - J @ V @ V.mT, dim=-1) / torch.linalg.vector_norm(J, dim=-1)
    assert lost.max() < LIMIT * 80**0.5


def test_the_example_that_needs_most_decides():
    J = torch.stack([product([1.0] * 6 + [1e-12] * 54, 80), product([1.0] * 20 + [1e-12] * 40, 80)])
    V = significant_directions(J, LIMIT)
    assert V is not None
    assert V.shape[-1] == 20


@pytest.mark.parametrize("singular", [[1.0] * 60, [1.0] * 50 + [1e-12] * 10, [1.0, 1e-12]])
def test_nothing_is_dropped_where_that_saves_little(singular: list[float]):
    assert significant_directions(product(singular, 80)[None], LIMIT) is None


def test_zero_tangents():
    V = significant_directions(torch.zeros(1, 80, 60, dtype=torch.float64), LIMIT)
    assert V is not None
    assert V.shape[-1] == FEW_TILE


@pytest.mark.parametrize(
    ("cell", "state"), [*((cell, "h") for cell in CELLS), ("lstm", "c"), ("lstm", "full")]
)
def test_curves_are_those_of_all_directions(
    cell: str, state: str, columns: list[tuple[int, torch.dtype]], monkeypatch: pytest.MonkeyPatch
):
    """Rows read, lengths, a shared prefix and column sums that are pushed back."""
    instance = make(Case(cell, hidden=64, batch=3, steps=400), torch.float32)
    x = torch.cat((torch.zeros(3, 150, FEATURES), instance.inputs[:, 150:]), dim=1)
    x[1, 150:200] = 0
    initial = instance.initial_state
    initial = (
        tuple(s[:, :1].expand(-1, 3, -1) for s in initial)
        if isinstance(initial, tuple)
        else initial[:, :1].expand(-1, 3, -1)
    )
    kwargs: dict[str, Any] = {"state": state, "lengths": [400, 390, 230]}
    kwargs["statistics"] = (*STATISTICS, HIDDEN_PATH) if state == "c" else STATISTICS
    monkeypatch.setattr(column_sums, "DOUBTFUL", 0.5)
    found = rnngrad.jacobian_curves(instance.module, x, initial, **kwargs)
    assert columns[-1][0] <= 36
    assert columns[-1][1] == torch.float64
    monkeypatch.setattr(tangents, "COMPRESS_EVERY", 1000)
    expected = rnngrad.jacobian_curves(instance.module, x, initial, **kwargs)
    assert columns[-1] == (128 if state == "full" else 64, torch.float32)
    for name in kwargs["statistics"]:
        here, there = (getattr(curves, f"log10_{name}") for curves in (found, expected))
        atol = 2e-5 if name == "column_sum" else 4e-6
        np.testing.assert_allclose(here, there, rtol=0, atol=atol, err_msg=name)


def test_an_orthogonal_map_keeps_all_directions(columns: list[tuple[int, torch.dtype]]):
    torch.manual_seed(0)
    module = nn.RNN(FEATURES, 64, batch_first=True)
    zero = torch.zeros(64)
    W = nn.init.orthogonal_(torch.empty(64, 64))
    set_weights(module, weight_hh_l0=W, bias_ih_l0=zero, bias_hh_l0=zero)
    curves = rnngrad.jacobian_curves(module, torch.zeros(1, 200, FEATURES))
    assert set(columns) == {(64, torch.float32)}
    np.testing.assert_allclose(curves.log10_spectral, 0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_float64_modules_and_sketches_keep_all(
    dtype: torch.dtype, columns: list[tuple[int, torch.dtype]]
):
    instance = make(Case("gru", hidden=64, steps=200), dtype)
    method = "exact" if dtype == torch.float64 else "sketch"
    kwargs: dict[str, Any] = {"method": method, "statistics": ["frobenius"], "directions": 20}
    rnngrad.jacobian_curves(instance.module, instance.inputs, **kwargs)
    assert {size for size, _ in columns} == {64 if method == "exact" else 20}


@pytest.mark.parametrize(
    ("cell", "state"), [*((cell, "h") for cell in CELLS), ("lstm", "c"), ("lstm", "full")]
)
def test_float64_tangents_of_a_small_float32_module(
    cell: str, state: str, columns: list[tuple[int, torch.dtype]]
):
    """They drop what is below their own rounding errors; column sums do not see it."""
    module = make(Case(cell, hidden=20, batch=2, steps=400), torch.float32)
    kwargs: dict[str, Any] = {"state": state, "statistics": STATISTICS}
    found = rnngrad.jacobian_curves(module.module, module.inputs, module.initial_state, **kwargs)
    assert columns[-1][0] <= 8
    assert columns[-1][1] == torch.float64
    exact = rnngrad.jacobian_curves(
        module.module.double(), module.inputs.double(), in_float64(module.initial_state), **kwargs
    )
    for name in STATISTICS:
        here, there = (getattr(curves, f"log10_{name}") for curves in (found, exact))
        atol = 1e-8 if name == "column_sum" else 1e-11
        np.testing.assert_allclose(here, there, rtol=0, atol=atol, err_msg=name)


def test_small_singular_values_are_told_apart():
    """To 1e-14, where a Gram matrix knows no more than 1e-8."""
    J = product([10.0 ** -(0.75 * i) for i in range(60)], 80)[None]
    V = significant_directions(J, 1e-14)
    assert V is not None
    assert V.shape[-1] == 20
    assert torch.linalg.matrix_norm(J - J @ V @ V.mT, ord=2).item() < 1e-14


def in_float64(state: Any) -> Any:
    return tuple(s.double() for s in state) if isinstance(state, tuple) else state.double()
