"""Column sums whose signs cancel are taken again from earlier tangents, by float64 cotangents."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import CELLS, Case, Instance, make, set_weights
from torch import nn

import rnngrad
from rnngrad.models.initializers import initialize_like_keras
from rnngrad.probe import column_sums, forward, tangents
from rnngrad.probe import curves as curves_module

pytestmark = pytest.mark.usefixtures("float32_from_64")


def largest_error(instance: Instance, **kwargs: Any) -> float:
    """Of the column sums, relative, beside those of float64."""
    problem = instance.module, instance.inputs, instance.initial_state
    found = rnngrad.jacobian_curves(*problem, statistics="column_sum", **kwargs)
    problem = copy.deepcopy(instance.module).double(), *(_double(v) for v in problem[1:])
    expected = rnngrad.jacobian_curves(*problem, statistics="column_sum", **kwargs)
    error = np.abs(found.log10_column_sum - expected.log10_column_sum)
    return float(np.nanmax(error)) * np.log(10)


def _double(x: Any) -> Any:
    return tuple(v.double() for v in x) if isinstance(x, tuple) else x.double()


@pytest.fixture
def dtypes(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Of the tangents of every run of examples."""
    used = []

    def recorded(plan: Any, schedule: Any, dtype: torch.dtype) -> forward.Curves:
        used.append(dtype)
        return forward.curves_of(plan, schedule, dtype)

    monkeypatch.setattr(curves_module, "curves_of", recorded)
    return used


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("cell", "state"), [*((cell, "h") for cell in CELLS), ("lstm", "c"), ("lstm", "full")]
)
def test_all_sums_from_the_tangents_of_earlier_steps(
    cell: str, state: str, layers: int, monkeypatch: pytest.MonkeyPatch
):
    """With a short memory, so that float32 tangents on the way are met, not only the identity."""
    monkeypatch.setattr(column_sums, "DOUBTFUL", np.inf)
    monkeypatch.setattr(column_sums, "REMEMBERED_STEPS", 64)
    instance = make(Case(cell, layers, hidden=64, steps=120), torch.float32)
    for lengths in (None, [120, 75]):
        assert largest_error(instance, state=state, lengths=lengths) < 1e-5


def test_sums_that_are_exact(monkeypatch: pytest.MonkeyPatch):
    """Pushed back to the identity they are those of float64, whatever the tangents are."""
    for limit in ("DOUBTFUL", "LOST"):
        monkeypatch.setattr(column_sums, limit, np.inf)
    instance = make(Case("gru", hidden=64, steps=100), torch.float32)
    assert largest_error(instance) < 1e-12


def test_a_sum_that_passes_through_zero(dtypes: list[torch.dtype]):
    """d h_t / d h_0 has rank one, and the sum of its left vector passes through zero."""
    torch.manual_seed(0)
    module = nn.RNN(100, 64, batch_first=True)
    tokens = 5.7 * nn.functional.normalize(torch.randn(3, 1403, 100), dim=2)
    zero = torch.zeros(1, 3, 64)
    assert largest_error(Instance(module, tokens, zero, zero), lengths=[3, 1403, 1300]) < 5e-5
    assert dtypes == [torch.float32, torch.float64]  # the second is what it is held against
    only = rnngrad.jacobian_curves(module, tokens[:, :50], statistics="column_sum")
    assert only.log10_frobenius is None


def test_sums_that_cannot_be_told_are_taken_in_float64(
    dtypes: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(column_sums, "LOST", np.inf)
    monkeypatch.setattr(column_sums, "REMEMBERED_STEPS", 64)
    instance = make(Case("lstm", hidden=64, steps=100), torch.float32)
    assert largest_error(instance) == 0
    assert dtypes == [torch.float32, torch.float64, torch.float64]


def test_cotangents_beyond_float64(monkeypatch: pytest.MonkeyPatch, dtypes: list[torch.dtype]):
    """Steps that shrink by 12 decades: a cotangent underflows before it meets any tangents."""
    monkeypatch.setattr(column_sums, "DOUBTFUL", np.inf)
    module = nn.RNN(3, 64, batch_first=True)
    set_weights(module, weight_hh_l0=1e-12 * nn.init.orthogonal_(torch.empty(64, 64)))
    zero = torch.zeros(1, 1, 64)
    assert largest_error(Instance(module, torch.zeros(1, 100, 3), zero, zero)) < 1e-4
    assert dtypes == [torch.float32, torch.float64]


@pytest.mark.parametrize(("limit", "value"), [("BYTES", 0), ("BYTES", 2**18), ("STEPS", 64)])
def test_what_is_remembered(limit: str, value: int, monkeypatch: pytest.MonkeyPatch):
    """Within the limits, but for the last tangents, without which no sum could be settled."""
    kept = []
    remember = column_sums.CancelledSums._remember

    def recorded(sums: column_sums.CancelledSums, one: Any) -> None:
        remember(sums, one)
        kept.append(list(sums.passages))

    monkeypatch.setattr(column_sums.CancelledSums, "_remember", recorded)
    monkeypatch.setattr(column_sums, f"REMEMBERED_{limit}", value)
    monkeypatch.setattr(tangents, "COMPRESS_EVERY", 1000)
    instance = make(Case("lstm", hidden=64, steps=300), torch.float32)
    rnngrad.jacobian_curves(instance.module, instance.inputs, statistics="column_sum")
    assert len(kept) == 10
    for passages in kept:
        assert passages[0].before is not None
        if len(passages) > 1:
            assert limit == "BYTES" or sum(len(p.one.mix) for p in passages) <= value
            assert limit == "STEPS" or sum(p.size() for p in passages) <= value


def test_rounding_that_gathers_where_no_direction_dies():
    """An orthogonal network keeps them all: over 1,403 steps a sum is lost the more easily."""
    torch.manual_seed(7)
    module = nn.RNN(100, 100, batch_first=True)
    initialize_like_keras(module)
    tokens = 5.7 * nn.functional.normalize(torch.randn(2, 1403, 100), dim=2)
    state = torch.rand(1, 2, 100)
    assert largest_error(Instance(module, tokens, state, state)) < 1e-4
