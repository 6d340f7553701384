"""Each verdict on gates and paths, turned to each of its three words by made-up results."""

import numpy as np
import pandas as pd
import pytest

from rnngrad.study.claims.blocking import judge_blocking, judge_output_gate_path

SEEDS = (1, 2, 3)


def make_influences(backward: float, untrained: float, trained: float) -> pd.DataFrame:
    """An LSTM whose forget gates alone are off by as much at 20 steps, and by more at 100."""
    rows = []
    for weights, gates in (("init", untrained), ("trained", trained)):
        for seed in SEEDS:
            for perturbation in (0.001, 1.0):
                for lag in (1, 20, 100):
                    off = gates + 0.01 * seed if lag == 20 else 9.0
                    names = ("lstm", seed, weights, perturbation, lag)
                    rows.append((*names, backward * perturbation, off, 0.9))
    columns = ["cell", "seed", "weights", "perturbation", "lag"]
    measured = ["backward_difference", "gates_difference", "gates_correlation"]
    return pd.DataFrame(rows, columns=[*columns, *measured])


@pytest.mark.parametrize(
    ("backward", "untrained", "trained", "word"),
    [
        (1, 0.1, 0.3, "holds"),
        (1, 0.7, 0.3, "holds only if …"),
        (1, 0.1, 0.7, "holds only if …"),
        (50, 0.1, 0.3, "does not hold"),
    ],
)
def test_blocking(backward: float, untrained: float, trained: float, word: str) -> None:
    claim = judge_blocking(make_influences(backward, untrained, trained))
    assert claim is not None
    assert claim.id == 7
    assert claim.verdict == word
    assert claim.interval is not None
    assert claim.interval["mean"] == pytest.approx(max(untrained, trained) + 0.02)
    assert f"{trained + 0.02:.2f} decades trained" in claim.measured


def test_blocking_is_judged_where_a_move_was_left() -> None:
    influences = make_influences(1, 0.1, 0.3)
    measured = ["backward_difference", "gates_difference", "gates_correlation"]
    influences.loc[influences["lag"] == 100, measured] = np.nan
    claim = judge_blocking(influences)
    assert claim is not None
    assert claim.verdict == "holds"
    assert claim.measured.startswith("1 to 20 steps later")
    influences[measured] = np.nan
    assert judge_blocking(influences) is None
    assert judge_blocking(make_influences(1, 0.1, 0.3).assign(cell="gru")) is None


def make_output_gates(
    as_it_is: float, scaled_path: float, scaled_total: float, **changes: float
) -> pd.DataFrame:
    """Paths whose rate differs a little between seeds; trained ones shrink whatever the factor."""
    rows = []
    for weights in ("init", "trained"):
        for seed in SEEDS:
            untrained = weights == "init"
            for factor, path, total in (
                (1, as_it_is if untrained else -1.0, -0.1),
                (2, -0.2, np.nan),
                (64, scaled_path if untrained else -0.2, scaled_total),
            ):
                rows.append(
                    {
                        "cell": "lstm",
                        "seed": seed,
                        "weights": weights,
                        "factor": factor,
                        "path_rate": path + 0.001 * seed,
                        "bound_rate": 0.3,
                        "ceiling_rate": 0.4,
                        "total_rate": total,
                        "gradient_norm": 5.0,
                        "clipped_norm": np.nan if np.isnan(total) else 0.9999999,
                        "cosine": 1.0,
                        "log10_early_to_late": -2.0,
                    }
                    | changes
                )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("rates", "changes", "word"),
    [
        ((0.1, 0.1, 0.1), {}, "holds"),
        ((-0.5, 0.1, 0.1), {}, "holds only if …"),
        ((-0.5, -0.1, 0.1), {}, "does not hold"),
        ((-0.5, 0.1, -0.1), {}, "does not hold"),
        ((0.1, 0.1, 0.1), {"clipped_norm": 1.5}, "does not hold"),
        ((-0.5, 0.1, 0.1), {"cosine": 0.5}, "does not hold"),
    ],
)
def test_output_gate_path(
    rates: tuple[float, float, float], changes: dict[str, float], word: str
) -> None:
    claim = judge_output_gate_path(make_output_gates(*rates, **changes))
    assert claim is not None
    assert claim.id == 8
    assert claim.verdict == word
    assert claim.interval is not None
    assert claim.interval["mean"] == pytest.approx(rates[0] + 0.002)


def test_one_seed_that_does_not_grow_is_enough_against_the_condition() -> None:
    table = make_output_gates(-0.5, 0.1, 0.1)
    table.loc[(table["seed"] == 2) & (table["factor"] == 64), "path_rate"] = -0.01
    claim = judge_output_gate_path(table)
    assert claim is not None
    assert claim.verdict == "does not hold"
    assert "With W_o times up to 64 it does not grow for every seed." in claim.measured


def test_the_condition_is_named_with_its_numbers() -> None:
    claim = judge_output_gate_path(make_output_gates(-0.5, 0.1, 0.2))
    assert claim is not None
    assert "Untrained with W_o times 64 the path grows by 0.10 and the whole Jacobian by 0.20" in (
        claim.measured
    )
    assert judge_output_gate_path(make_output_gates(0.1, 0.1, 0.1).assign(cell="rnn")) is None


def test_seeds_may_grow_at_different_factors() -> None:
    table = make_output_gates(-0.5, 0.1, 0.2)
    table.loc[(table["seed"] == 2) & (table["factor"] == 64), "factor"] = 32
    claim = judge_output_gate_path(table)
    assert claim is not None
    assert "Untrained with W_o times 32 to 64, by seed, the path grows" in claim.measured
