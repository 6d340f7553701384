"""Rows with a power of two of their own multiply like numbers without limits."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngrad.probe._scaled import ScaledRows


def fractions(rows: ScaledRows) -> list[list[Fraction]]:
    """Exactly; a row of zeros has an exponent that means nothing."""
    return [
        [Fraction(m) * Fraction(2) ** int(e) if m else Fraction(0) for m in row]
        for row, e in zip(rows.mantissa.tolist(), rows.exponent, strict=True)
    ]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    exponents=st.lists(st.integers(-3000, 3000), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
    zero=st.sampled_from([None, 0, 2]),
)
def test_products_and_sums_in_rational_arithmetic(
    exponents: list[int], seed: int, zero: int | None
):
    rng = np.random.default_rng(seed)
    m, w, mix = rng.standard_normal((3, 2)), rng.standard_normal((1, 3, 3)), rng.random((1, 3))
    mix *= 10.0 ** rng.integers(-300, 1, (1, 3))
    if zero is not None:
        m[zero] = w[0, :, (zero + 1) % 3] = 0
    rows = ScaledRows.of(m, np.array(exponents))
    found = fractions(rows.mixed_by(mix, w) + rows.times(mix[0]))
    J = fractions(rows)
    for i in range(3):
        V = [Fraction(mix[0, i]) * Fraction(v) for v in w[0, i]]
        for k in range(2):
            terms = [V[j] * J[j][k] for j in range(3)] + [Fraction(mix[0, i]) * J[i][k]]
            error = abs(found[i][k] - sum(terms))
            assert error <= Fraction(1, 10**13) * largest(V, J, mix[0, i], i)


def largest(V: list[Fraction], J: list[list[Fraction]], factor: float, row: int) -> Fraction:
    """The largest of all terms of a row, in any column: signs may cancel in the sum."""
    terms = [v * J[j][k] for j, v in enumerate(V) for k in range(2)]
    return max(map(abs, [*terms, *(Fraction(factor) * v for v in J[row])]))
