"""Every verdict of the claims about decay, turned to each of its three words by made-up results."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from rnngrad.study.claims.claim import Claim
from rnngrad.study.claims.decay import judge_rnn_is_better, judge_sharp_fall

SEEDS = (1, 2, 3)
SPREAD = {1: -0.5, 2: 0.0, 3: 0.5}


def lstm_at(at_20: float, at_end: float, flushed_at_end: float) -> pd.DataFrame:
    rows = [
        {
            "condition": condition,
            "factor": "some",
            "cell": "lstm",
            "seed": seed,
            "log10_at_20": at_20,
            "log10_at_end": end,
            "float32_zero_from": 551.0 if np.isinf(flushed_at_end) else np.nan,
        }
        for condition, end in (("question", at_end), ("float32_flushed", flushed_at_end))
        for seed in SEEDS
    ]
    return pd.DataFrame(rows)


def both_cells(ends: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """``ends``: log10 at the last step of RNN and LSTM by condition."""
    rows = [
        {
            "condition": condition,
            "factor": f"factor of {condition}",
            "cell": cell,
            "seed": seed,
            "log10_at_end": end + (SPREAD[seed] if cell == "rnn" else 0.0),
        }
        for condition, each in ends.items()
        for cell, end in zip(("rnn", "lstm"), each, strict=True)
        for seed in SEEDS
    ]
    return pd.DataFrame(rows)


def judged(claim: Claim | None) -> Claim:
    assert claim is not None
    return claim


@pytest.mark.parametrize(
    ("at_20", "at_end", "flushed", "expected"),
    [
        (-1.9, -np.inf, -np.inf, "holds"),
        (-1.9, -95.0, -np.inf, "holds only if …"),
        (-0.9, -95.0, -np.inf, "does not hold"),  # no sharp fall
        (-1.9, -95.0, -44.9, "does not hold"),  # nowhere a zero
        (-1.9, -30.0, -np.inf, "does not hold"),  # a zero, but float32 could hold the true value
    ],
)
def test_sharp_fall(at_20: float, at_end: float, flushed: float, expected: str) -> None:
    assert judged(judge_sharp_fall(lstm_at(at_20, at_end, flushed))).verdict == expected


def test_sharp_fall_says_where_float32_ends() -> None:
    claim = judged(judge_sharp_fall(lstm_at(-1.9, -95.0, -np.inf)))
    assert claim.id == 1
    assert "-1.90 decades" in claim.measured
    assert "10^-95.0 (mean over seeds), not zero" in claim.measured
    assert "exactly zero from step 551" in claim.measured
    assert claim.interval == {"mean": -95.0, "low": -95.0, "high": -95.0}
    assert judged(judge_sharp_fall(lstm_at(-1.9, -np.inf, -np.inf))).interval is None


def test_some_exact_zeros_are_not_all() -> None:
    table = lstm_at(-1.9, -95.0, -np.inf)
    table.loc[(table["condition"] == "question") & (table["seed"] == 1), "log10_at_end"] = -np.inf
    claim = judged(judge_sharp_fall(table))
    assert claim.verdict == "holds only if …"
    assert "10^-95.0 (mean over seeds), but for 1 exact zeros" in claim.measured


def test_sharp_fall_is_not_judged_without_its_conditions() -> None:
    table = lstm_at(-1.9, -95.0, -np.inf)
    for condition in ("question", "float32_flushed"):
        assert judge_sharp_fall(table[table["condition"] != condition]) is None
    assert judge_sharp_fall(table.assign(cell="rnn")) is None
    assert judge_sharp_fall(table.assign(log10_at_20=np.nan)) is None


ALL_BETTER = {
    "question": (-3.0, -96.0),
    "no_padding": (-50.0, -101.0),
    "torch_initializer": (-200.0, -270.0),
    "trained": (-10.0, -36.0),
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "holds"),
        ({"no_padding": (-150.0, -101.0)}, "holds only if …"),
        ({"trained": (-36.2, -36.0)}, "holds only if …"),  # no interval above zero
        ({"question": (-96.2, -96.0)}, "does not hold"),
        ({"question": (-100.0, -96.0), "trained": (-50.0, -36.0)}, "does not hold"),
    ],
)
def test_rnn_is_better(changes: dict[str, tuple[float, float]], expected: str) -> None:
    assert judged(judge_rnn_is_better(both_cells(ALL_BETTER | changes))).verdict == expected


def test_rnn_is_better_names_the_factors_that_turn_it() -> None:
    turned = {"no_padding": (-150.0, -101.0), "torch_initializer": (-312.0, -271.0)}
    claim = judged(judge_rnn_is_better(both_cells(ALL_BETTER | turned)))
    assert claim.measured.endswith(
        "gone once one of these is changed: factor of no_padding, factor of torch_initializer."
    )
    assert "-49.0 decades" in claim.measured
    assert claim.interval is not None
    assert claim.interval["mean"] == pytest.approx(93.0)


def test_an_exact_zero_is_compared_with_nothing() -> None:
    claim = judged(judge_rnn_is_better(both_cells(ALL_BETTER | {"trained": (-10.0, -np.inf)})))
    assert "trained" not in claim.measured
    assert "inf" not in claim.measured
    assert judge_rnn_is_better(both_cells(ALL_BETTER | {"question": (-3.0, -np.inf)})) is None


def test_rnn_is_better_by_what_was_measured() -> None:
    some = {name: ALL_BETTER[name] for name in ("question", "trained")}
    assert judged(judge_rnn_is_better(both_cells(some))).verdict == "holds"
    assert judge_rnn_is_better(both_cells({"trained": ALL_BETTER["trained"]})) is None
    table = both_cells(ALL_BETTER)
    assert judge_rnn_is_better(table[table["seed"] == 1]) is None
    assert judge_rnn_is_better(table[table["cell"] == "lstm"]) is None
