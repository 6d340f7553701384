"""Every verdict of the claims about paths, turned to each of its three words by made-up results."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rnngrad.study.claims.claim import Claim
from rnngrad.study.claims.paths import judge_one_path, judge_powers

SEEDS = (1, 2, 3)
Case = tuple[str, str]  # weights and input
LINEAR = [("init", "padding"), ("radius 0.9", "padding")]
SATURATED = [("init", "words"), ("radius 1.1", "padding"), ("trained", "padding")]
PATHS = [(w, i) for w in ("init", "trained") for i in ("padding", "words")]


def make_powers(off: Mapping[Case, float], *, slope: float = 1.0) -> pd.DataFrame:
    """``off``: measured minus predicted; ``slope``: that of tanh where it is linear."""
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        for weights, kind in LINEAR + SATURATED:
            radius = {"radius 0.9": 0.9, "radius 1.1": 1.1}.get(weights, 1.0)
            predicted = float(np.log10(radius))
            rows.append(
                {
                    "cell": "rnn",
                    "seed": seed,
                    "weights": weights,
                    "input": kind,
                    "spectral_radius": radius,
                    "largest_singular_value": radius,
                    "predicted": predicted,
                    "measured": predicted + off.get((weights, kind), 0.0) + 1e-5 * (seed - 2),
                    "tanh_slope": slope if (weights, kind) in LINEAR else 0.7,
                    "last_move": 0.25 * seed,
                }
            )
    return pd.DataFrame(rows)


def make_paths(below: Mapping[Case, float], hidden_path: float = -0.02) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "cell": "lstm",
                "seed": seed,
                "weights": weights,
                "input": kind,
                "cell_path": -0.136,
                "hidden_path": hidden_path,
                # one seed in which paths cancel is one too many
                "below_largest_path": below.get((weights, kind), 0.0) if seed == 2 else 0.0,
            }
            for seed in SEEDS
            for weights, kind in PATHS
        ]
    )


def judged(claim: Claim | None) -> Claim:
    assert claim is not None
    return claim


@pytest.mark.parametrize(
    ("off", "slope", "expected"),
    [
        ({}, 1.0, "holds"),
        ({("init", "words"): 0.004}, 1.0, "holds"),
        (dict.fromkeys(SATURATED, -0.1), 1.0, "holds only if …"),
        ({("radius 0.9", "padding"): -0.1}, 1.0, "does not hold"),
        (dict.fromkeys(SATURATED, -0.1), 0.9, "does not hold"),  # no linear case at all
    ],
)
def test_powers(off: dict[Case, float], slope: float, expected: str) -> None:
    assert judged(judge_powers(make_powers(off, slope=slope))).verdict == expected


def test_powers_allow_ten_percent_of_a_fast_decay() -> None:
    table = make_powers({}).assign(predicted=-0.3, measured=-0.33)
    assert judged(judge_powers(table)).verdict == "holds"
    assert judged(judge_powers(table.assign(measured=-0.34))).verdict == "does not hold"


def test_powers_state_prediction_and_measurement() -> None:
    claim = judged(judge_powers(make_powers({("radius 1.1", "padding"): -0.04})))
    assert "scaled to radius 1.1 (spectral radius 1.10" in claim.measured
    assert "+0.0414 predicted, measured +0.0014 on padding" in claim.measured
    assert "tanh' = 0.70, in the end a unit moves by up to 0.50 a step" in claim.measured
    assert claim.interval is not None
    assert claim.interval["mean"] == pytest.approx(-0.04)
    assert judge_powers(make_powers({}).assign(measured=np.nan)) is None


@pytest.mark.parametrize(
    ("cancelled", "expected"),
    [([], "holds"), ([("trained", "words")], "holds only if …"), (PATHS, "does not hold")],
)
def test_one_path(cancelled: list[Case], expected: str) -> None:
    paths = make_paths(dict.fromkeys(cancelled, 0.5), hidden_path=0.0)
    assert judged(judge_one_path(paths)).verdict == expected


def test_one_path_is_not_seen_to_be_enough_where_every_path_vanishes() -> None:
    assert judged(judge_one_path(make_paths({}, hidden_path=-0.02))).verdict == "holds only if …"


def test_one_path_says_whether_there_is_one() -> None:
    claim = judged(judge_one_path(make_paths({("init", "words"): 0.25})))
    assert "at most 0.250 decades below" in claim.measured
    assert "hidden paths" in claim.measured
    assert "-0.0200 decades per step, so every path vanishes here" in claim.measured
    explodes = judged(judge_one_path(make_paths({}, hidden_path=0.001)))
    assert "so that one does not vanish" in explodes.measured
    assert judge_one_path(make_paths({}).iloc[:0]) is None
    assert judge_one_path(make_paths({}).assign(cell_path=np.nan, hidden_path=np.nan)) is None
