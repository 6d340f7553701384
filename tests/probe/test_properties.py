"""Invariances, with Hypothesis."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_problems import CELLS, Case, autograd_jacobians, log10_statistics, make, states_of

import rnngrad

QUICK = settings(max_examples=15)
NAMES = ("log10_frobenius", "log10_column_sum", "log10_spectral")

cases = st.builds(
    Case,
    cell=st.sampled_from(list(CELLS)),
    layers=st.integers(1, 2),
    bias=st.booleans(),
    batch_first=st.booleans(),
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 12),
    hidden=st.integers(1, 6),
    batch=st.integers(1, 4),
)


@QUICK
@given(case=cases, data=st.data())
def test_autograd(case: Case, data: st.DataObject):
    instance = make(case)
    state = data.draw(st.sampled_from(states_of(instance.module)))
    layer = data.draw(st.integers(0, case.layers - 1))
    found = rnngrad.jacobian_curves(
        instance.module, instance.inputs, instance.initial_state, state=state, layer=layer
    )
    # a ReLU's column sum of one unit may be exactly zero
    for name, expected in log10_statistics(autograd_jacobians(instance, state, layer)).items():
        np.testing.assert_allclose(getattr(found, name), expected.numpy(), rtol=0, atol=1e-8)


@QUICK
@given(case=cases, data=st.data())
def test_shapes_order_and_lengths(case: Case, data: st.DataObject):
    """(batch, time) arrays; examples do not see each other; a length only cuts."""
    instance = make(case)
    order = data.draw(st.permutations(range(case.batch)))
    length = st.integers(1, case.steps)
    lengths = data.draw(st.lists(length, min_size=case.batch, max_size=case.batch))
    curves = rnngrad.jacobian_curves(instance.module, instance.inputs)
    axis = 0 if case.batch_first else 1
    moved = rnngrad.jacobian_curves(
        instance.module,
        instance.inputs.index_select(axis, torch.tensor(order)),
        lengths=np.array(lengths)[order],
    )
    for name in NAMES:
        values = getattr(curves, name)
        assert values.shape == (case.batch, case.steps)
        assert values.dtype == np.float64
        expected = np.where(np.arange(case.steps) < np.array(lengths)[:, None], values, np.nan)
        np.testing.assert_allclose(getattr(moved, name), expected[order], rtol=0, atol=1e-9)


@QUICK
@given(case=cases)
def test_norms_are_ordered(case: Case):
    """||J||_2 <= ||J||_F <= sqrt(H) ||J||_2, and the column sum is at most sqrt(H) ||J||_2."""
    instance = make(case)
    curves = rnngrad.jacobian_curves(instance.module, instance.inputs)
    F, S, C = (getattr(curves, f"log10_{n}") for n in ("frobenius", "spectral", "column_sum"))
    root = 0.5 * math.log10(case.hidden)
    assert (S <= F + 1e-9).all()
    assert (S + root + 1e-9 >= F).all()
    assert (S + root + 1e-9 >= C).all()
