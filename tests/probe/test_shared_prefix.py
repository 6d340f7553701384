"""Shared prefixes are run once, and nobody can tell from the numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probe_problems import CELLS, FEATURES, Case, autograd_jacobians, make
from rnngrad.probe.column_sums import CancelledSums
from rnngrad.probe.forward import Curves
from rnngrad.probe.problem import problem_of
from rnngrad.probe.sharing import Schedule, schedules
from rnngrad.probe.statistics import HIDDEN_PATH, STATISTICS
from torch import Tensor, nn

import rnngrad
from rnngrad.errors import InputError
from rnngrad.probe import blocks, column_sums, forward, sharing, tangents
from rnngrad.probe import curves as curves_module

pytestmark = pytest.mark.usefixtures("float32_from_64")
NAMES = [f"log10_{name}" for name in (*STATISTICS, "cell_path", HIDDEN_PATH)]


def padded(steps: int, tokens: list[int], features: int, dtype: torch.dtype) -> Tensor:
    """Zero vectors, then as many random ones as `tokens` says, per example."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(len(tokens), steps, features, dtype=torch.float64)
    for example, count in zip(x, tokens, strict=True):
        example[steps - count :] = torch.randn(count, features, generator=generator).double()
    return x.to(dtype)


def repeated(state: Any, batch: int) -> Any:
    """The first example's initial state for all of them."""
    if isinstance(state, tuple):
        return tuple(repeated(s, batch) for s in state)
    return state[:, :1].expand(-1, batch, -1)


def both_ways(
    module: nn.Module, x: Tensor, initial: Any, **kwargs: Any
) -> tuple[rnngrad.JacobianCurves, rnngrad.JacobianCurves]:
    """With and without sharing."""
    if kwargs.get("state") == "c":
        kwargs["statistics"] = (*STATISTICS, HIDDEN_PATH)
    shared = rnngrad.jacobian_curves(module, x, initial, **kwargs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "_groups", lambda problem, rows: [])
        return shared, rnngrad.jacobian_curves(module, x, initial, **kwargs)


def assert_equal(
    shared: rnngrad.JacobianCurves, apart: rnngrad.JacobianCurves, decades: float
) -> None:
    for name in NAMES:
        found, expected = getattr(shared, name), getattr(apart, name)
        assert (found is None) == (expected is None)
        if found is not None:
            np.testing.assert_allclose(found, expected, rtol=0, atol=decades, err_msg=name)


@pytest.fixture
def example_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples every step of the tangents was taken for."""
    taken: list[int] = []
    advance = blocks.advance

    def counted(run: Any, one: Any, running: list[int]) -> Iterator[tuple[slice, Any]]:
        for steps, now in advance(run, one, running):
            count = steps.stop - steps.start
            assert len(now.J) == count * running[steps.start]
            taken.extend(count * [running[steps.start]])
            yield steps, now

    monkeypatch.setattr(forward, "advance", counted)
    return taken


@pytest.mark.parametrize("hidden", [5, 64])
@pytest.mark.parametrize("cell", CELLS)
def test_padded_comments(cell: str, hidden: int):
    """64 units: float32 tangents."""
    dtype, decades = (torch.float32, 2e-6) if hidden == 64 else (torch.float64, 1e-12)
    instance = make(Case(cell, layers=2, hidden=hidden, batch=5), dtype)
    state = repeated(instance.initial_state, 5)
    x = padded(60, [3, 20, 0, 20, 59], FEATURES, dtype)
    for rows in ("h", "c", "full") if cell == "lstm" else ("h",):
        assert_equal(*both_ways(instance.module, x, state, state=rows), decades)


@pytest.mark.parametrize("cell", CELLS)
def test_against_autograd(cell: str):
    instance = make(Case(cell, batch=3, layers=2))
    x = padded(24, [3, 9, 6], FEATURES, torch.float64)
    state = repeated(instance.initial_state, 3)
    h, c = state if cell == "lstm" else (state, state)
    same = type(instance)(instance.module, x, h, c)
    curves = rnngrad.jacobian_curves(instance.module, x, state)
    expected = torch.linalg.matrix_norm(autograd_jacobians(same, "h")).log10()
    np.testing.assert_allclose(curves.log10_frobenius, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("every", "expected"),
    [(1, 40 * [1] + 6 * [2] + 4 * [3]), (8, 40 * [1] + 10 * [3]), (64, 50 * [3])],
)
def test_a_shared_step_is_taken_once(
    every: int, expected: list[int], example_steps: list[int], monkeypatch: pytest.MonkeyPatch
):
    """But for the few before an example branches off."""
    monkeypatch.setattr(sharing, "BRANCH_EVERY", every)
    instance = make(Case("lstm", batch=3))
    x = padded(50, [10, 4, 2], FEATURES, torch.float64)
    rnngrad.jacobian_curves(instance.module, x)
    assert example_steps == expected


def test_identical_examples_run_once(example_steps: list[int]):
    instance = make(Case("gru", batch=1, steps=20))
    curves = rnngrad.jacobian_curves(instance.module, instance.inputs.expand(4, -1, -1))
    assert example_steps == 20 * [1]
    assert curves.log10_frobenius is not None
    np.testing.assert_array_equal(curves.log10_frobenius, curves.log10_frobenius[:1].repeat(4, 0))


@pytest.mark.parametrize("differ", ["h", "c", "lower layer"])
def test_another_initial_state_shares_nothing(differ: str, example_steps: list[int]):
    instance = make(Case("lstm", layers=2, batch=2))
    h, c = (s.clone() for s in repeated(instance.initial_state, 2))
    (c if differ == "c" else h)[0 if differ == "lower layer" else 1, 1, 0] += 1e-15
    rnngrad.jacobian_curves(instance.module, padded(20, [3, 3], FEATURES, h.dtype), (h, c))
    assert example_steps == 20 * [2]


def test_a_start_token_is_not_worth_it(example_steps: list[int]):
    """The examples keep their order, longest first."""
    instance = make(Case("rnn_tanh", batch=3, steps=30))
    instance.inputs[:, 0] = 1
    rnngrad.jacobian_curves(instance.module, instance.inputs, lengths=[10, 30, 20])
    assert example_steps == 10 * [3] + 10 * [2] + 10 * [1]


@pytest.mark.parametrize("per_chunk", [1, 2, 3])
def test_parts_that_fit_the_memory(per_chunk: int, monkeypatch: pytest.MonkeyPatch):
    """A part has a leader of its own, and those that share are not torn apart."""
    instance = make(Case("lstm", batch=6))
    x = padded(40, [5, 40, 9, 40, 2, 7], FEATURES, torch.float64)
    state = repeated(instance.initial_state, 6)
    monkeypatch.setattr(sharing, "SHARED_BYTES", per_chunk)
    parts = list(schedules(problem_of(instance.module, x, state), 1, 1, share=True))
    assert [len(part.rows) for part in parts] == 6 // per_chunk * [per_chunk]
    assert sorted(torch.cat([part.rows for part in parts]).tolist()) == list(range(6))
    if per_chunk == 2:
        assert [part.rows.tolist() for part in parts] == [[4, 2], [0, 5], [1, 3]]
    monkeypatch.setattr(forward.Plan, "bytes_per_example", lambda plan, dtype: (1, 1))
    assert_equal(*both_ways(instance.module, x, state, state="c"), 1e-12)


def test_column_sums_that_nothing_settles(monkeypatch: pytest.MonkeyPatch):
    """Whole examples in float64, as with every example for itself: of all that share, and apart."""
    instance = make(Case("lstm", hidden=64, batch=4), torch.float32)
    x = padded(50, [5, 30, 12, 48], FEATURES, torch.float32)
    state = repeated(instance.initial_state, 4)
    dtypes = []
    curves_of = forward.curves_of

    def recorded(plan: Any, schedule: Schedule, dtype: torch.dtype) -> Curves:
        dtypes.append((dtype, sorted(schedule.rows.tolist())))
        return curves_of(plan, schedule, dtype)

    monkeypatch.setattr(curves_module, "curves_of", recorded)
    monkeypatch.setattr(column_sums, "GATHERING_STEPS", np.inf)
    monkeypatch.setattr(column_sums, "LOST", 0.3)
    monkeypatch.setattr(CancelledSums, "_take_again", lambda *args: None)
    nothing = torch.tensor(torch.nan, dtype=torch.float64)
    monkeypatch.setattr(forward, "log10_sums_from_start", lambda *a: nothing.expand(len(a[-1])))
    shared, apart = both_ways(instance.module, x, state, state="c")
    assert dtypes == 2 * [(torch.float32, [0, 1, 2, 3]), (torch.float64, [1, 2])]
    assert_equal(shared, apart, 1e-6)


def test_column_sums_that_are_settled(monkeypatch: pytest.MonkeyPatch):
    """Pushed back through steps that an example shares, into those of its leader."""
    instance = make(Case("lstm", hidden=64, batch=4), torch.float32)
    x = padded(150, [5, 60, 12, 140], FEATURES, torch.float32)
    state = repeated(instance.initial_state, 4)
    monkeypatch.setattr(column_sums, "DOUBTFUL", np.inf)
    shared, apart = both_ways(instance.module, x, state, state="c")
    assert_equal(shared, apart, 1e-6)


def test_one_scale_per_row_from_the_prefix_on(monkeypatch: pytest.MonkeyPatch):
    """The examples branch off while the tangents are held row by row."""
    instance = make(Case("lstm", batch=3))
    x = padded(50, [10, 4, 30], FEATURES, torch.float64)
    state = repeated(instance.initial_state, 3)
    quick = rnngrad.jacobian_curves(instance.module, x, state, state="full")
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
    monkeypatch.setattr(tangents.Propagation, "_quick", lambda *args: None)
    monkeypatch.setattr(tangents, "SPREAD_BACK", -1)
    shared, apart = both_ways(instance.module, x, state, state="full")
    assert_equal(shared, apart, 1e-12)
    assert_equal(shared, quick, 1e-10)


def test_a_sketch_has_directions_of_its_own(example_steps: list[int]):
    instance = make(Case("gru", batch=3))
    x = padded(50, [10, 4, 2], FEATURES, torch.float64)
    curves = rnngrad.jacobian_curves(instance.module, x, method="sketch")
    assert example_steps == 50 * [3]
    assert curves.log10_frobenius is not None
    assert (curves.log10_frobenius[0, :40] != curves.log10_frobenius[1, :40]).all()


def test_overflow_is_reported_where_it_happens():
    module = nn.RNN(1, 2, nonlinearity="relu", batch_first=True).double()
    with torch.no_grad():
        for weight in module.parameters():
            weight.fill_(1.0)
    x = torch.zeros(3, 60, 1).double()
    x[1, 50:] = 1e308
    with pytest.raises(InputError, match=r"layer 0, example 1, step 52 \(steps from 1\)"):
        rnngrad.jacobian_curves(module, x)


@st.composite
def prefix_trees(draw: st.DrawFn) -> tuple[Tensor, list[int], list[int]]:
    """Inputs that branch off each other anywhere, lengths and numbers of initial states."""
    steps, batch = draw(st.integers(1, 14)), draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(batch, steps, FEATURES, generator=generator).double()
    x[0] = 0 if draw(st.booleans()) else x[0]
    for example in range(1, batch):
        other = draw(st.integers(0, example - 1))
        common = draw(st.integers(0, steps))
        x[example, :common] = x[other, :common]
    numbers = st.integers(1, steps)
    lengths = draw(st.lists(numbers, min_size=batch, max_size=batch))
    states = draw(st.lists(st.integers(0, 1), min_size=batch, max_size=batch))
    return x, lengths, states


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    tree=prefix_trees(),
    cell=st.sampled_from(list(CELLS)),
    layers=st.integers(1, 2),
    hidden=st.sampled_from([3, 64]),
    rows=st.sampled_from(["h", "c", "full"]),
    every=st.sampled_from([1, 4]),
)
def test_random_prefixes(
    tree: tuple[Tensor, list[int], list[int]],
    cell: str,
    layers: int,
    hidden: int,
    rows: str,
    every: int,
):
    x, lengths, states = tree
    dtype, decades = (torch.float32, 2e-6) if hidden == 64 else (torch.float64, 1e-12)
    instance = make(Case(cell, layers=layers, hidden=hidden), dtype)
    state = instance.initial_state
    state = tuple(s[:, states] for s in state) if cell == "lstm" else state[:, states]
    rows = rows if cell == "lstm" else "h"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "BRANCH_EVERY", every)
        found = both_ways(instance.module, x.to(dtype), state, state=rows, lengths=lengths)
    assert_equal(*found, decades)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tree=prefix_trees(), every=st.sampled_from([1, 4]))
def test_schedules(tree: tuple[Tensor, list[int], list[int]], every: int):
    """Every step of every example is served once, by itself or by an equal; slots are kept."""
    x, lengths, states = tree
    state = torch.tensor(states).double().reshape(1, -1, 1)
    problem = problem_of(nn.RNN(FEATURES, 1, batch_first=True).double(), x, state, lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "BRANCH_EVERY", every)
        schedule = Schedule.of(problem, torch.arange(len(x)), share=True)
    rows = schedule.rows.tolist()
    served = torch.zeros(problem.batch, problem.steps, dtype=torch.int64)
    before = list(range(len(rows)))
    for segment in schedule.segments():
        for slot, source in enumerate(segment.source):
            old, new = rows[before[source]], rows[segment.examples[slot]]
            assert states[old] == states[new]
            assert x[old, : segment.start].equal(x[new, : segment.start])
        for e, slot in zip(segment.served, segment.served_by, strict=True):
            own, by = rows[e], rows[segment.examples[slot]]
            assert states[own] == states[by]
            assert x[own, : segment.stop].equal(x[by, : segment.stop])
            has_step = torch.tensor(segment.running) > slot
            served[own, segment.start : segment.stop] += has_step.long()
        before = segment.examples
    assert served.sum(dim=1).tolist() == lengths
    assert all((row[:length] == 1).all() for row, length in zip(served, lengths, strict=True))
