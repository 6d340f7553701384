"""Each verdict on what is learned, turned to each of its three words by made-up results."""

from typing import Any

import pandas as pd
import pytest

from rnngrad.study.claims.learning import (
    gradient_predicts_memory,
    judge_late_steps,
    judge_the_task,
    scores_on_test,
)
from rnngrad.study.claims.seeds import (
    above_zero,
    below_zero,
    in_words,
    over_seeds,
    paired_difference,
    points_in_words,
)

NOTHING = pd.DataFrame(columns=["cell", "seeds", "mean", "low", "high"])


def make_scores(accuracy: list[float], loss: list[float], epochs: int = 10) -> pd.DataFrame:
    """An RNN of accuracy 0.5 and loss 0.7 in every seed, and an LSTM."""

    def card(values: dict[str, list[float]]) -> dict[str, Any]:
        settings = {"seeds": list(range(1, len(accuracy) + 1)), "epochs": epochs}
        return {"settings": settings, "test": {"per_seed": values}}

    n = len(accuracy)
    rnn = {"accuracy": [0.5] * n, "loss": [0.7] * n}
    return scores_on_test({"rnn": card(rnn), "lstm": card({"accuracy": accuracy, "loss": loss})})


@pytest.mark.parametrize(
    ("accuracy", "loss", "word"),
    [
        ([0.9, 0.92, 0.91], [0.3, 0.25, 0.28], "holds"),
        ([0.9, 0.92, 0.91], [0.3, 0.9, 0.7], "holds only if …"),
        ([0.4, 0.6, 0.5], [0.3, 0.25, 0.28], "holds only if …"),
        ([0.4, 0.6, 0.5], [0.3, 0.9, 0.7], "does not hold"),
        ([0.3, 0.32, 0.31], [0.9, 0.92, 0.91], "does not hold"),
    ],
)
def test_the_task(accuracy: list[float], loss: list[float], word: str) -> None:
    claim = judge_the_task(make_scores(accuracy, loss, epochs=7), NOTHING)
    assert claim is not None
    assert claim.id == 3
    assert claim.verdict == word
    assert claim.interval is not None
    assert claim.interval["mean"] == pytest.approx(sum(accuracy) / 3 - 0.5)
    assert "after 7 epochs" in claim.measured


def test_the_task_needs_both_cells_and_two_seeds() -> None:
    scores = make_scores([0.9, 0.8], [0.3, 0.2])
    assert judge_the_task(scores[scores["cell"] == "lstm"], NOTHING) is None
    assert judge_the_task(make_scores([0.9], [0.3]), NOTHING) is None


def make_telling(cell: str, seed: int, gradient: list[float], auroc: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"cell": cell, "seed": seed, "log10_gradient": gradient, "auroc": auroc})


def test_memory_follows_the_gradient_by_rank() -> None:
    telling = pd.concat(
        [
            make_telling("rnn", 1, [-1, -3, -9], [0.9, 0.6, 0.5]),
            make_telling("rnn", 2, [-1, -3, -9], [0.5, 0.6, 0.9]),
            make_telling("lstm", 1, [0, -1, -2], [0.9, 0.8, 0.7]),
            make_telling("lstm", 2, [0, -1, -2], [0.9, 0.8, 0.7]),
            # no ranks where all is the same, and two bins are no curve
            make_telling("lstm", 3, [0, -1, -2], [1.0, 1.0, 1.0]),
            make_telling("gru", 1, [0, -1], [0.9, 0.8]),
        ]
    )
    found = gradient_predicts_memory(telling).set_index("cell")
    assert found["mean"].to_dict() == {"rnn": 0.0, "lstm": 1.0}
    assert found["seeds"].to_dict() == {"rnn": 2, "lstm": 2}
    claim = judge_the_task(make_scores([0.9, 0.8], [0.3, 0.2]), found.reset_index())
    assert claim is not None
    assert "RNN +0.00, LSTM +1.00" in claim.measured
    assert gradient_predicts_memory(telling.iloc[:0]).empty


def make_shares(untrained: list[float], trained: list[float]) -> pd.DataFrame:
    """An LSTM whose late share is a half, and an RNN; two comments each, which average out."""
    rows = []
    for weights, shares in (("init", untrained), ("trained", trained)):
        for seed, share in enumerate(shares):
            for comment, off in enumerate((-0.05, 0.05)):
                for cell, late in (("rnn", share + off), ("lstm", 0.5 - off)):
                    rows.append((cell, seed, weights, comment, 100, late, 20))
    columns = ["cell", "seed", "weights", "comment", "steps", "late_share", "steps_of_most"]
    return pd.DataFrame(rows, columns=columns)


MUCH, LITTLE, UNSURE, LESS = [0.7, 0.72, 0.71], [0.53, 0.54, 0.55], [0.4, 0.9, 0.9], [0.3, 0.2, 0.3]


@pytest.mark.parametrize(
    ("untrained", "trained", "word"),
    [
        (MUCH, MUCH, "holds"),
        (MUCH, LITTLE, "holds only if …"),
        (UNSURE, MUCH, "holds only if …"),
        (LITTLE, LITTLE, "does not hold"),
        (UNSURE, LESS, "does not hold"),
    ],
)
def test_late_steps(untrained: list[float], trained: list[float], word: str) -> None:
    claim = judge_late_steps(make_shares(untrained, trained))
    assert claim is not None
    assert claim.id == 5
    assert claim.verdict == word
    assert claim.interval is not None
    assert claim.interval["mean"] == pytest.approx(sum(trained) / 3 - 0.5, abs=1e-6)


def test_late_steps_need_both_cells_and_two_seeds() -> None:
    shares = make_shares(MUCH, MUCH)
    assert judge_late_steps(shares[shares["cell"] == "rnn"]) is None
    assert judge_late_steps(make_shares([0.9], [0.9])) is None


def test_differences_are_paired_by_seed() -> None:
    frame = pd.DataFrame(
        {
            "cell": ["rnn", "rnn", "rnn", "lstm", "lstm"],
            "seed": [1, 2, 3, 2, 1],
            "x": [1.0, 2.0, 9.0, 4.0, 3.0],
        }
    )
    assert paired_difference(frame, "x", "lstm", "rnn") == {"mean": 2.0, "low": 2.0, "high": 2.0}
    assert paired_difference(frame, "x", "lstm", "gru") is None


def test_intervals_in_words() -> None:
    interval = over_seeds(pd.Series([0.19, 0.2, 0.21]))
    assert above_zero(interval)
    assert not below_zero(interval)
    assert in_words(interval, "+.1f", "nats") == "+0.2 nats (95% interval +0.2 to +0.2)"
    assert points_in_words(interval) == "+20.0 points (95% interval +17.5 to +22.5)"
    alone = over_seeds(pd.Series([0.2]))
    assert not above_zero(alone)
    assert not below_zero(alone)
    assert points_in_words(alone) == "+20.0 points (one seed)"
