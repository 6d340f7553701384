"""Shared prefixes are run once, and nobody can tell from the numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probe_problems import (
    CELLS,
    FEATURES,
    Case,
    make,
    states_of,
)
from torch import Tensor, nn

import rnngrad
from rnngrad.errors import InputError

STATISTICS = ("frobenius", "column_sum", "spectral")


def padded(steps: int, tokens: list[int]) -> Tensor:
    """Zero vectors, then as many random ones as `tokens` says, per example."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(len(tokens), steps, FEATURES, dtype=torch.float64)
    for example, count in zip(x, tokens, strict=True):
        example[steps - count :] = torch.randn(count, FEATURES, generator=generator).double()
    return x


def each(function: Any, state: Any) -> Any:
    return tuple(function(s) for s in state) if isinstance(state, tuple) else function(state)


def repeated(state: Any, batch: int) -> Any:
    """The first example's initial state for all of them."""
    return each(lambda s: s[:, :1].expand(-1, batch, -1), state)


def assert_as_alone(
    module: nn.Module, x: Tensor, initial: Any, *, lengths: list[int] | None = None, **kwargs: Any
) -> rnngrad.JacobianCurves:
    """The curves of all, which equal those of every example in a batch of its own."""
    statistics = (*STATISTICS, "hidden_path") if kwargs.get("state") == "c" else STATISTICS
    together = rnngrad.jacobian_curves(
        module, x, initial, lengths=lengths, statistics=statistics, **kwargs
    )
    for e in range(len(x)):
        length = None if lengths is None else lengths[e : e + 1]
        own = each(lambda s, e=e: s[:, e : e + 1], initial)
        alone = rnngrad.jacobian_curves(
            module, x[e : e + 1], own, lengths=length, statistics=statistics, **kwargs
        )
        for name in (*statistics, "cell_path"):
            found, expected = (getattr(c, f"log10_{name}") for c in (together, alone))
            assert (found is None) == (expected is None)
            if found is not None:
                np.testing.assert_allclose(found[e], expected[0], rtol=0, atol=1e-12, err_msg=name)
    return together


@pytest.mark.parametrize("hidden", [5, 64])
@pytest.mark.parametrize("cell", CELLS)
def test_padded_comments(cell: str, hidden: int):
    instance = make(Case(cell, layers=2, hidden=hidden, batch=5))
    initial = repeated(instance.initial_state, 5)
    x = padded(60, [3, 20, 0, 20, 59])
    for state in states_of(instance.module)[: 3 if hidden == 5 else 2]:
        assert_as_alone(instance.module, x, initial, state=state)


@pytest.mark.parametrize("differ", ["h", "c", "lower layer"])
def test_another_initial_state_is_another_problem(differ: str):
    """By 1e-7 in one unit; the curves move less, and by what they move alone."""
    instance = make(Case("lstm", layers=2, batch=2))
    h, c = (s.clone() for s in repeated(instance.initial_state, 2))
    (c if differ == "c" else h)[0 if differ == "lower layer" else 1, 1, 0] += 1e-7
    found = assert_as_alone(instance.module, padded(20, [3, 3]), (h, c)).log10_frobenius
    assert (found[0, :17] != found[1, :17]).all()


@pytest.mark.parametrize("closed", [-300.0, -800.0])
def test_rows_far_apart_from_the_prefix_on(closed: float):
    """In the prefix one unit forgets 130 decades, or all; two examples then open their gates."""
    module = nn.LSTM(FEATURES, 3, batch_first=True).double()
    with torch.no_grad():
        module.get_parameter("weight_ih_l0")[3, 0] = closed
        module.get_parameter("weight_ih_l0")[5, 0] = 30
        module.get_parameter("weight_hh_l0").mul_(0.01)
    x = padded(70, [40, 30, 22])
    x[:, 10:20, 0] = 1
    for state in ("h", "c", "full"):
        assert_as_alone(module, x, repeated((torch.zeros(1, 1, 3),) * 2, 3), state=state)


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
    steps, batch = draw(st.sampled_from([3, 14, 40])), draw(st.integers(1, 7))
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


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    tree=prefix_trees(),
    cell=st.sampled_from(list(CELLS)),
    layers=st.integers(1, 2),
    state=st.sampled_from(["h", "c", "full"]),
)
def test_random_prefixes(
    tree: tuple[Tensor, list[int], list[int]], cell: str, layers: int, state: str
):
    x, lengths, states = tree
    instance = make(Case(cell, layers=layers, hidden=3))
    initial = each(lambda s: s[:, states], instance.initial_state)
    state = state if cell == "lstm" else "h"
    assert_as_alone(instance.module, x, initial, state=state, lengths=lengths)
