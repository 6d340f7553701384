"""Products of a few rows, whichever way they are taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnngrad.probe import products
from rnngrad.probe.products import multiply_rows


@given(
    rows=st.integers(1, 80),
    inner=st.integers(1, 30),
    columns=st.integers(1, 30),
    dtype=st.sampled_from([np.float32, np.float64]),
    small=st.sampled_from([1, 500, 10**6]),
    mkl=st.booleans(),
)
def test_equals_the_plain_product(
    rows: int, inner: int, columns: int, dtype: type, small: int, mkl: bool
):
    rng = np.random.default_rng(rows)
    # rows that stand apart, as parts of a wider array do
    left = rng.standard_normal((rows, inner + 3)).astype(dtype)[:, :inner]
    W = rng.standard_normal((inner, columns)).astype(dtype)
    out = np.full((rows, columns), np.nan, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "SMALL_KERNELS", True)
        patch.setattr(products, "MKL_IS_QUICKER", mkl)
        patch.setattr(products, "SMALL_PRODUCT", small)
        multiply_rows(left, W, out)
    exact = left.astype(np.float64) @ W.astype(np.float64)
    np.testing.assert_allclose(out, exact, rtol=0, atol=100 * np.finfo(dtype).eps)
