"""Every verdict of the claims about gates, turned to each of its three words by made-up results."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rnngrad.study.claims.claim import Claim
from rnngrad.study.claims.gates import judge_forget_bias, judge_gate_rate, judge_varying_gates

SEEDS = (1, 2, 3)
Case = tuple[str, str]  # weights and input
CASES: list[Case] = [(w, i) for w in ("init", "trained") for i in ("padding", "words")]
BASE = {
    "total": -0.136,
    "cell_path": -0.136,
    "hidden_path": -0.2,
    "below_largest_path": 0.0,
    "gate_std": 0.05,
    "tanh_factors": 0.0,
    "log10_tanh_factor": -0.3,
    "zero_state_rate": -0.0677,
    "settled_rate": -0.0677,
}


def make_paths(changes: Mapping[Case, Mapping[str, float]]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        for weights, kind in CASES:
            own = BASE | dict(changes.get((weights, kind), {}))
            if kind == "words":
                own |= {"zero_state_rate": np.nan, "settled_rate": np.nan}
            names = {"cell": "lstm", "seed": seed, "weights": weights, "input": kind}
            rows.append(names | own)
    return pd.DataFrame(rows)


def judged(claim: Claim | None) -> Claim:
    assert claim is not None
    return claim


@pytest.mark.parametrize(
    ("slower", "expected"),
    [
        ([], "holds"),
        ([("trained", "words")], "holds only if …"),
        (CASES[1:], "holds only if …"),
        (CASES, "does not hold"),
    ],
)
def test_gate_rate(slower: list[Case], expected: str) -> None:
    claim = judged(judge_gate_rate(make_paths({case: {"total": -0.0677} for case in slower})))
    assert claim.verdict == expected


@pytest.mark.parametrize(("total", "expected"), [(-0.1225, "holds"), (-0.1223, "does not hold")])
def test_gate_rate_within_ten_percent(total: float, expected: str) -> None:
    paths = make_paths({case: {"total": total} for case in CASES})
    assert judged(judge_gate_rate(paths)).verdict == expected


def test_gate_rate_says_what_a_linearised_step_predicts() -> None:
    paths = make_paths({("init", "padding"): {"total": -0.0678}})
    paths.loc[(paths["seed"] == 1) & (paths["weights"] == "trained"), "settled_rate"] = np.nan
    claim = judged(judge_gate_rate(paths))
    assert "predicts -0.0677 at the zero state and at rest -0.0677" in claim.measured
    assert "(where 2 of 3 models come to rest) trained" in claim.measured
    assert "within 10%: untrained on words, trained on padding, trained on words" in claim.measured
    assert claim.interval is not None
    assert claim.interval["mean"] == pytest.approx(0.0682)
    words = judged(judge_gate_rate(paths[paths["input"] == "words"]))
    assert "predicts" not in words.measured
    assert judge_gate_rate(paths.assign(total=np.nan)) is None


BIASES = {"forget_bias_0": -287.0, "question": -96.0, "forget_bias_3": -20.0, "chrono": -0.8}


def with_biases(ends: Mapping[str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"condition": name, "cell": "lstm", "seed": seed, "log10_at_end": end + 0.1 * seed}
            for name, end in ends.items()
            for seed in SEEDS
        ]
    )


def histogram() -> pd.DataFrame:
    """Before training all gates at 0.73, after it a fifth of them is open."""
    rows = [
        {
            "input": "words",
            "activation": activation,
            "share": share,
            "mean": 0.73,
            "cell": "lstm",
            "seed": seed,
            "weights": weights,
        }
        for seed in SEEDS
        for weights, shares in (("init", (1.0, 0.0)), ("trained", (0.8, 0.2)))
        for activation, share in zip((0.73, 0.99), shares, strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "holds"),
        ({"forget_bias_3": 4.3}, "holds only if …"),
        ({"chrono": 0.0}, "holds only if …"),
        ({"forget_bias_3": -96.1}, "does not hold"),
        ({"forget_bias_0": -90.0}, "does not hold"),
        ({"forget_bias_0": -90.0, "forget_bias_3": 4.3}, "does not hold"),
    ],
)
def test_forget_bias(changes: dict[str, float], expected: str) -> None:
    claim = judged(judge_forget_bias(with_biases(BIASES | changes), histogram()))
    assert claim.verdict == expected


def test_forget_bias_says_how_open_the_gates_are() -> None:
    claim = judged(judge_forget_bias(with_biases(BIASES), histogram()))
    assert "0.73 on words untrained (0.0% above 0.98)" in claim.measured
    assert "0.73 on words trained (20.0% above 0.98)" in claim.measured
    assert claim.interval is not None
    assert claim.interval["mean"] == pytest.approx(-0.6)  # that of the slowest decay
    no_histogram = histogram().iloc[:0]
    assert "average" not in judged(judge_forget_bias(with_biases(BIASES), no_histogram)).measured


def test_forget_bias_needs_its_three_conditions() -> None:
    table = with_biases(BIASES)
    for name in ("forget_bias_0", "question", "forget_bias_3"):
        assert judge_forget_bias(table[table["condition"] != name], histogram()) is None
    without_chrono = table[table["condition"] != "chrono"]
    assert judged(judge_forget_bias(without_chrono, histogram())).verdict == "holds"


STILL = {"gate_std": 1e-9}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "holds"),
        ({("init", "padding"): STILL}, "holds only if …"),
        ({("trained", "padding"): {"tanh_factors": 0.14}}, "holds only if …"),
        ({("trained", "padding"): {"tanh_factors": -0.14}}, "holds only if …"),
        ({("trained", "words"): STILL}, "does not hold"),
    ],
)
def test_varying_gates(changes: dict[Case, dict[str, float]], expected: str) -> None:
    assert judged(judge_varying_gates(make_paths(changes))).verdict == expected


def test_varying_gates_counts_the_tanhs() -> None:
    changes = {("init", "padding"): STILL | {"tanh_factors": 0.14}}
    paths = make_paths(changes)
    claim = judged(judge_varying_gates(paths))
    assert "the gradient's paths pass 0.14 tanh per step" in claim.measured
    assert claim.interval is not None
    assert claim.interval["mean"] == pytest.approx(0.05)
    assert judge_varying_gates(paths[paths["input"] == "padding"]) is None
