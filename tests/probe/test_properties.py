"""Invariances and random resets, with Hypothesis."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probe_problems import CELLS, Case, make, set_weights
from rnngrad.probe.scaled import ScaledRows
from torch import nn

import rnngrad
from rnngrad.probe import blocks, tangents

QUICK = settings(max_examples=15, deadline=None, derandomize=True)
NAMES = ("log10_frobenius", "log10_column_sum", "log10_spectral")


pytestmark = pytest.mark.usefixtures("float32_from_64")

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


@QUICK
@given(
    exponents=st.lists(st.integers(-5000, 5000), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
)
def test_scaled_rows_multiply_like_numbers_without_limits(exponents: list[int], seed: int):
    """Rows at 2^-5000 .. 2^5000, against the same sum taken row by row at its own scale."""
    generator = torch.Generator().manual_seed(seed)
    m = torch.randn(1, 3, 2, dtype=torch.float64, generator=generator)
    w = torch.randn(1, 3, 3, dtype=torch.float64, generator=generator)
    mix = torch.rand(1, 1, 3, dtype=torch.float64, generator=generator)
    rows = ScaledRows.of(m, torch.tensor([exponents]))
    found = rows.mixed_by(mix, w) + rows.times(mix[:, 0])
    top = max(exponents)
    scale = torch.tensor([[2.0 ** max(e - top, -1000) for e in exponents]], dtype=torch.float64)
    for i in range(3):
        # everything relative to the largest row, which enters every sum
        plain = mix[0, 0, i] * ((w[0, i] * scale[0]) @ m[0] + scale[0, i] * m[0, i])
        shift = torch.exp2((found.exponent[0, i] - top).double())
        torch.testing.assert_close(found.mantissa[0, i] * shift, plain, rtol=1e-10, atol=1e-14)


def reset_network(strength: float, coupling: float, dtype: torch.dtype) -> nn.LSTM:
    """32 units with long memory that feature 0 closes, and 32 that forget steadily."""
    torch.manual_seed(0)
    H = 64
    module = nn.LSTM(2, H, batch_first=True).double()
    W = 0.1 * torch.randn(4 * H, H) / H**0.5
    blocks = W.unflatten(0, (4, H))
    blocks[:, :, :32] *= coupling
    blocks[:, :32, 32:] *= coupling
    forget = torch.zeros(4 * H)
    forget[H : H + 32], forget[H + 32 : 2 * H] = 6.0, 1.0
    weight = torch.zeros(4 * H, 2)
    weight[:, 1] = 0.3 * torch.randn(4 * H)
    weight[H : H + 32, 0] = -strength
    set_weights(module, weight_hh_l0=W, weight_ih_l0=weight, bias_ih_l0=forget)
    return module.to(dtype)


def compare_with_full_computation(
    module: nn.LSTM, x: torch.Tensor, decades: float = 1e-4
) -> np.ndarray:
    """The way that is taken against float64 with one scale per row at every step."""
    found = rnngrad.jacobian_curves(module, x, state="c", statistics=("frobenius", "column_sum"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 0)
        patch.setattr(tangents.Propagation, "_quick", lambda *args: None)
        double = nn.LSTM(2, 64, batch_first=True).double()
        double.load_state_dict(module.state_dict())
        full = rnngrad.jacobian_curves(
            double, x.double(), state="c", statistics=("frobenius", "column_sum")
        )
    np.testing.assert_allclose(found.log10_frobenius, full.log10_frobenius, rtol=0, atol=decades)
    assert full.log10_frobenius is not None
    return full.log10_frobenius


@pytest.mark.slow
@pytest.mark.parametrize("coupling", [0.0, 1e-12, 1.0])
def test_a_reset_at_step_400(coupling: float):
    x = torch.randn(1, 500, 2)
    x[..., 0] = 0
    x[0, 400, 0] = 1
    curve = compare_with_full_computation(reset_network(1000, coupling, torch.float32), x)
    assert curve[0, 399] > -5
    # what had been dropped, had it been dropped, is all that is left now
    assert curve[0, 400] < {0.0: -40, 1e-12: -10, 1.0: -0.5}[coupling]


@pytest.mark.slow
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    resets=st.lists(st.tuples(st.integers(0, 159), st.floats(0.1, 1.5)), max_size=4),
    strength=st.sampled_from([8.0, 60.0, 300.0, 1000.0]),
    coupling=st.sampled_from([0.0, 1e-9, 1e-2, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_random_resets(
    resets: list[tuple[int, float]], strength: float, coupling: float, dtype: torch.dtype
):
    x = torch.randn(1, 160, 2, dtype=dtype, generator=torch.Generator().manual_seed(1))
    x[..., 0] = 0
    for step, size in resets:
        x[0, step, 0] = size
    compare_with_full_computation(reset_network(strength, coupling, dtype), x)
