"""Every verdict of every claim, turned by made-up results, and the numbers that it comes with."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rnngrad.study import claims
from rnngrad.study.claims import Claim

SEEDS = (1, 2, 3)

Case = tuple[str, str]  # weights and input

CASES: list[Case] = [(w, i) for w in ("init", "trained") for i in ("padding", "words")]

HOLDS, ONLY, NOT = "holds", "holds only if", "does not hold"


def fall(at_20: float, end: float, flushed: float) -> Claim | None:
    return claims.sharp_fall(lstm_ends(at_20, end, flushed))


def lstm_ends(at_20: float, end: float, flushed: float) -> pd.DataFrame:
    rows = [
        (condition, "lstm", seed, at_20, at_end, 551.0 if np.isinf(flushed) else np.nan)
        for condition, at_end in (("question", end), ("float32_flushed", flushed))
        for seed in SEEDS
    ]
    names = ["condition", "cell", "seed", "log10_at_20", "log10_at_end", "float32_zero_from"]
    return pd.DataFrame(rows, columns=names)


ALL_BETTER = {  # log10 at the last step of RNN and LSTM
    "question": (-3.0, -96.0),
    "no_padding": (-50.0, -101.0),
    "torch_initializer": (-200.0, -270.0),
    "trained": (-10.0, -36.0),
    "trained_without_padding_on_padding": (-20.0, -30.0),
}

TURNED = {"no_padding": (-150.0, -101.0), "torch_initializer": (-312.0, -271.0)}


def both_cells(**changes: tuple[float, float]) -> pd.DataFrame:
    rows = [
        (condition, cell, seed, end + (0.5 * (seed - 2) if cell == "rnn" else 0.0))
        for condition, ends in (ALL_BETTER | changes).items()
        for cell, end in zip(("rnn", "lstm"), ends, strict=True)
        for seed in SEEDS
    ]
    return pd.DataFrame(rows, columns=["condition", "cell", "seed", "log10_at_end"])


def better(**changes: tuple[float, float]) -> Claim | None:
    return claims.rnn_is_better(both_cells(**changes))


def scores(accuracy: list[float], loss: list[float], weights: str = "trained") -> pd.DataFrame:
    """An RNN of accuracy 0.5 and loss 0.7 in every seed, and an LSTM."""
    n = len(accuracy)
    of_cells = {
        "rnn": {"accuracy": [0.5] * n, "loss": [0.7] * n},
        "lstm": {"accuracy": accuracy, "loss": loss},
    }
    return pd.concat(
        pd.DataFrame(values).assign(cell=cell, weights=weights, seed=range(1, n + 1))
        for cell, values in of_cells.items()
    )


EPOCHS = {"rnn": 10, "lstm": 10}


def wins(
    accuracy: list[float],
    loss: list[float],
    unpadded: tuple[list[float], list[float]] | None = None,
    epochs: int = 10,
) -> Claim | None:
    tests = scores(accuracy, loss)
    if unpadded:
        tests = pd.concat([tests, scores(*unpadded, weights="trained_without_padding")])
    return claims.lstm_wins(tests, EPOCHS | {"lstm": epochs})


RATES = {
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


def make_paths(changes: Mapping[Case, Mapping[str, float]], **everywhere: float) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        for weights, kind in CASES:
            own = RATES | everywhere | dict(changes.get((weights, kind), {}))
            if kind == "words":
                own |= {"zero_state_rate": np.nan, "settled_rate": np.nan}
            rows.append({"cell": "lstm", "seed": seed, "weights": weights, "input": kind} | own)
    return pd.DataFrame(rows)


def rate(*slower: Case) -> Claim | None:
    return claims.gate_rate(make_paths({case: {"total": -0.0677} for case in slower}))


def all_at(total: float) -> Claim | None:
    return claims.gate_rate(make_paths({}, total=total))


def make_shares(untrained: list[float], trained: list[float]) -> pd.DataFrame:
    """An LSTM whose late share is a half, and an RNN; two comments each, which average out."""
    rows = [
        (cell, seed, weights, comment, 100, late, 20)
        for weights, shares in (("init", untrained), ("trained", trained))
        for seed, share in enumerate(shares)
        for comment, off in enumerate((-0.05, 0.05))
        for cell, late in (("rnn", share + off), ("lstm", 0.5 - off))
    ]
    columns = ["cell", "seed", "weights", "comment", "steps", "late_share", "steps_of_most"]
    return pd.DataFrame(rows, columns=columns)


def late(untrained: list[float], trained: list[float]) -> Claim | None:
    return claims.late_steps(make_shares(untrained, trained))


MUCH, LITTLE, UNSURE = [0.7, 0.72, 0.71], [0.53, 0.54, 0.55], [0.4, 0.9, 0.9]

LINEAR = [("init", "padding"), ("radius 0.9", "padding")]

SATURATED = [("init", "words"), ("radius 1.1", "padding"), ("trained", "padding")]


def make_powers(off: Mapping[Case, float], slope: float = 1.0) -> pd.DataFrame:
    """``off``: measured minus predicted; ``slope``: that of tanh where it is linear."""
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        for weights, kind in LINEAR + SATURATED:
            radius = {"radius 0.9": 0.9, "radius 1.1": 1.1}.get(weights, 1.0)
            predicted = float(np.log10(radius))
            names = {"cell": "rnn", "seed": seed, "weights": weights, "input": kind}
            kernel = {"spectral_radius": radius, "largest_singular_value": radius}
            measured = {
                "predicted": predicted,
                "measured": predicted + off.get((weights, kind), 0.0) + 1e-5 * (seed - 2),
                "tanh_slope": slope if (weights, kind) in LINEAR else 0.7,
                "last_move": 0.25 * seed,
            }
            rows.append(names | kernel | measured)
    return pd.DataFrame(rows)


def powers(off: Mapping[Case, float], slope: float = 1.0, **all_of: float) -> Claim | None:
    return claims.powers_of_w(make_powers(off, slope).assign(**all_of))


def make_influences(backward: float, untrained: float, trained: float) -> pd.DataFrame:
    """An LSTM whose forget gates alone are off by as much at 20 steps, and by more at 100."""
    rows = [
        ("lstm", seed, weights, move, lag, backward * move, off if lag == 20 else 9.0, 0.9)
        for weights, gates in (("init", untrained), ("trained", trained))
        for seed in SEEDS
        for off in [gates + 0.01 * seed]
        for move in (0.001, 1.0)
        for lag in (1, 20, 100)
    ]
    columns = ["cell", "seed", "weights", "perturbation", "lag"]
    return pd.DataFrame(rows, columns=[*columns, *INFLUENCES])


INFLUENCES = ["backward_difference", "gates_difference", "gates_correlation"]


def blocked(*off: float) -> Claim | None:
    return claims.blocking(make_influences(*off))


def make_output_gates(path: float, scaled: float, total: float, **changes: float) -> pd.DataFrame:
    """Paths whose rate differs a little between seeds; trained ones shrink whatever the factor."""
    rows = []
    for weights in ("init", "trained"):
        for seed in SEEDS:
            as_it_is, larger = (path, scaled) if weights == "init" else (-1.0, -0.2)
            for factor, rate, whole in (
                (1, as_it_is, -0.1),
                (2, -0.2, np.nan),
                (64, larger, total),
            ):
                found = {
                    "path_rate": rate + 0.001 * seed,
                    "bound_rate": 0.3,
                    "ceiling_rate": 0.4,
                    "total_rate": whole,
                    "gradient_norm": 5.0,
                    "clipped_norm": np.nan if np.isnan(whole) else 0.9999999,
                    "cosine": 1.0,
                    "log10_early_to_late": -2.0,
                }
                names = {"cell": "lstm", "seed": seed, "weights": weights, "factor": factor}
                rows.append(names | found | changes)
    return pd.DataFrame(rows)


def explodes(*rates: float, **changes: float) -> Claim | None:
    return claims.output_gate_path(make_output_gates(*rates, **changes))


def one_seed(column: str, value: float) -> Claim | None:
    table = make_output_gates(-0.5, 0.1, 0.1)
    table.loc[(table["seed"] == 2) & (table["factor"] == 64), column] = value
    return claims.output_gate_path(table)


BIASES = {"forget_bias_0": -287.0, "question": -96.0, "forget_bias_3": -20.0, "chrono": -1.8}


def with_biases(**changes: float) -> pd.DataFrame:
    rows = [
        (name, "lstm", seed, end + 0.1 * seed)
        for name, end in (BIASES | changes).items()
        for seed in SEEDS
    ]
    return pd.DataFrame(rows, columns=["condition", "cell", "seed", "log10_at_end"])


def histogram() -> pd.DataFrame:
    """Before training all gates at 0.73, after it a fifth of them is open."""
    rows = [
        ("words", activation, share, 0.73, "lstm", seed, weights)
        for seed in SEEDS
        for weights, shares in (("init", (1.0, 0.0)), ("trained", (0.8, 0.2)))
        for activation, share in zip((0.73, 0.99), shares, strict=True)
    ]
    columns = ["input", "activation", "share", "mean", "cell", "seed", "weights"]
    return pd.DataFrame(rows, columns=columns)


BY_BIAS = {"forget_bias_0": 0.0, "question": 1.0, "forget_bias_3": 3.0}


def biased(**changes: float) -> Claim | None:
    return claims.forget_bias(with_biases(**changes), histogram(), BY_BIAS)


def path(*cancelled: Case, hidden_path: float = 0.0) -> Claim | None:
    """One seed in which paths cancel is one too many."""
    table = make_paths({}, hidden_path=hidden_path)
    cases = pd.MultiIndex.from_frame(table[["weights", "input"]]).isin(cancelled)
    table.loc[cases & (table["seed"] == 2), "below_largest_path"] = 0.5
    return claims.one_path(table)


def gates(*still: Case, **everywhere: float) -> Claim | None:
    return claims.varying_gates(
        make_paths({case: {"gate_std": 1e-9} for case in still}, **everywhere)
    )


# the verdicts

CASES += [("trained_without_padding", "words")]

SMALL_BIAS = "with a forget bias of 0 and 1"

ALL_PATHS = "with all paths counted, not the gates alone"

ON_WORDS = "on words, for the gates alone"

MORE, HARDLY = ([0.9, 0.92, 0.91], [0.3, 0.25, 0.28]), ([0.4, 0.6, 0.5], [0.3, 0.9, 0.7])

WITH, WITHOUT = "models trained with padding", "models trained without padding"

TURNS: list[tuple[int, Callable[[], Claim | None], str, str | None]] = [
    (1, lambda: fall(-1.9, -np.inf, -np.inf), HOLDS, None),
    (
        1,
        lambda: fall(-1.9, -95.0, -np.inf),
        ONLY,
        "in float32 that flushes to zero, as far as exact zeros go",
    ),
    (1, lambda: fall(-0.9, -95.0, -np.inf), NOT, None),  # no sharp fall
    (1, lambda: fall(-1.9, -95.0, -44.9), NOT, None),  # nowhere a zero
    (1, lambda: fall(-1.9, -30.0, -np.inf), NOT, None),  # float32 could hold the true value
    (2, lambda: better(), HOLDS, None),
    (2, lambda: better(**TURNED), ONLY, "with padding and this initialiser"),
    (2, lambda: better(trained=(-36.2, -36.0)), ONLY, "with untrained weights"),  # not surely
    (
        2,
        lambda: better(**TURNED, trained=(-50.0, -36.0)),
        ONLY,
        "with padding, this initialiser and untrained weights",
    ),
    (
        2,
        lambda: better(trained_without_padding_on_padding=(-90.0, -50.0)),
        ONLY,
        "with padding in training",
    ),
    (
        2,
        lambda: better(trained=(-90.0, -50.0), trained_without_padding_on_padding=(-90.0, -50.0)),
        ONLY,
        "with untrained weights",
    ),
    (2, lambda: better(question=(-100.0, -96.0), trained=(-50.0, -36.0)), NOT, None),
    (3, lambda: wins(*MORE), HOLDS, None),
    (3, lambda: wins(*MORE, epochs=4), ONLY, "after 10 and 4 epochs"),
    (
        3,
        lambda: wins(MORE[0], HARDLY[1], epochs=4),
        ONLY,
        f"after 10 and 4 epochs, in the accuracy of {WITH}",
    ),
    (3, lambda: wins(MORE[0], HARDLY[1]), ONLY, f"in the accuracy of {WITH}"),
    (3, lambda: wins(HARDLY[0], MORE[1]), ONLY, f"in the loss of {WITH}"),
    (3, lambda: wins(*HARDLY, unpadded=MORE), ONLY, f"in {WITHOUT}"),
    (
        3,
        lambda: wins(*MORE, unpadded=(HARDLY[0], MORE[1])),
        ONLY,
        f"in {WITH} and in the loss of {WITHOUT}",
    ),
    (3, lambda: wins(*HARDLY), NOT, None),
    (4, lambda: rate(), HOLDS, None),
    (4, lambda: rate(*CASES[1:]), ONLY, "on padding in untrained models"),
    (4, lambda: rate(*CASES[:3]), ONLY, f"on words in {WITH} and on words in {WITHOUT}"),
    (4, lambda: rate(*CASES), NOT, None),
    (4, lambda: all_at(-0.1225), HOLDS, None),  # just within ten percent
    (4, lambda: all_at(-0.1223), NOT, None),
    (5, lambda: late(MUCH, MUCH), HOLDS, None),
    (5, lambda: late(MUCH, LITTLE), ONLY, "in untrained models"),
    (5, lambda: late(UNSURE, MUCH), ONLY, f"in {WITH}"),
    (5, lambda: late(LITTLE, LITTLE), NOT, None),
    (6, lambda: powers({}), HOLDS, None),
    (6, lambda: powers({("init", "words"): 0.004}), HOLDS, None),
    (6, lambda: powers({}, predicted=-0.3, measured=-0.33), HOLDS, None),  # within ten percent
    (6, lambda: powers(dict.fromkeys(SATURATED, -0.1)), ONLY, "where tanh is linear"),
    (6, lambda: powers({("radius 0.9", "padding"): -0.1}), NOT, None),
    (6, lambda: powers(dict.fromkeys(SATURATED, -0.1), slope=0.9), NOT, None),  # nowhere linear
    (6, lambda: powers({}, predicted=-0.3, measured=-0.34), NOT, None),
    (7, lambda: blocked(1, 0.1, 0.3), HOLDS, None),
    (7, lambda: blocked(1, 0.7, 0.3), ONLY, ALL_PATHS),
    (7, lambda: blocked(1, 0.1, 0.7), ONLY, ALL_PATHS),
    (7, lambda: blocked(50, 0.1, 0.3), NOT, None),
    (8, lambda: explodes(0.1, 0.1, 0.1), HOLDS, None),
    (8, lambda: explodes(-0.5, 0.1, 0.1), ONLY, "with W_o times 64 in untrained models"),
    (8, lambda: one_seed("factor", 32), ONLY, "with W_o times 32 to 64 in untrained models"),
    (8, lambda: one_seed("path_rate", -0.01), NOT, None),  # one seed does not grow
    (8, lambda: explodes(-0.5, -0.1, 0.1), NOT, None),
    (8, lambda: explodes(-0.5, 0.1, -0.1), NOT, None),
    (8, lambda: explodes(0.1, 0.1, 0.1, clipped_norm=1.5), NOT, None),
    (8, lambda: explodes(-0.5, 0.1, 0.1, cosine=0.5), NOT, None),
    (9, lambda: biased(), HOLDS, None),
    (9, lambda: biased(forget_bias_3=4.3), ONLY, SMALL_BIAS),
    (9, lambda: biased(chrono=-1.1), ONLY, "with a forget bias of 0, 1 and 3"),  # not surely
    (9, lambda: biased(forget_bias_3=-96.1), NOT, None),
    (9, lambda: biased(forget_bias_0=-90.0), NOT, None),
    (10, lambda: path(), HOLDS, None),
    (
        10,
        lambda: path(hidden_path=-0.02),
        ONLY,
        "where there is such a path, of which none was found",
    ),
    (10, lambda: path(*CASES[1:]), ONLY, "on padding in untrained models"),
    (10, lambda: path(*CASES), NOT, None),
    (11, lambda: gates(), HOLDS, None),
    (11, lambda: gates(("init", "padding")), ONLY, ON_WORDS),
    (11, lambda: gates(tanh_factors=0.14), ONLY, ON_WORDS),
    (11, lambda: gates(tanh_factors=-0.14), ONLY, ON_WORDS),
    (11, lambda: gates(("trained", "words")), NOT, None),
]


@pytest.mark.parametrize(("number", "judge", "verdict", "condition"), TURNS)
def test_every_verdict_is_turned(
    number: int, judge: Callable[[], Claim | None], verdict: str, condition: str | None
) -> None:
    claim = judged(judge())
    assert (claim.id, claim.verdict, claim.condition) == (number, verdict, condition)
    json.dumps(asdict(claim), allow_nan=False)
    assert all(type(number) in (int, float) for number in claim.measured.values())


def test_every_claim_has_its_three_verdicts() -> None:
    assert {(number, verdict) for number, _, verdict, _ in TURNS} == {
        (number, verdict) for number in range(1, 12) for verdict in (HOLDS, ONLY, NOT)
    }


def judged(claim: Claim | None) -> Claim:
    assert claim is not None
    return claim


MEASURED: list[tuple[Callable[[], Claim | None], float, dict[str, float]]] = [
    # the mean of the interval that decides, and some of the numbers
    (
        lambda: fall(-1.9, -95.0, -np.inf),
        -95.0,
        {"log10_at_20/mean": -1.9, "true/exact_zeros": 0, "flushed/zero_from": 551},
    ),
    (lambda: better(**TURNED), 93.0, {"no_padding/mean": -49.0, "trained/low": 24.758}),
    (lambda: wins(*MORE), 0.41, {"epochs/lstm": 10, "scores/trained/loss/mean": -0.423333}),
    (
        lambda: rate(("init", "padding")),
        0.0683,
        {"init/padding/total/mean": -0.0677, "init/padding/at_rest": 3, "init/words/at_rest": 0},
    ),
    (
        lambda: late(MUCH, LITTLE),
        0.04,
        {"steps": 100, "init/rnn/late_share": 0.71, "trained/lstm/steps_of_most": 20},
    ),
    (
        lambda: powers({("radius 1.1", "padding"): -0.04}),
        0.04,
        {"radius 1.1/padding/measured/mean": 0.001393, "radius 1.1/padding/last_move": 0.5},
    ),
    (
        lambda: blocked(1, 0.1, 0.3),
        0.32,
        {"lags/last": 100, "trained/small_moves": 0.001, "init/gates_difference": 0.12},
    ),
    (
        lambda: explodes(-0.5, 0.1, 0.2),
        -0.498,
        {"scaled/init/path_rate": 0.102, "scaled/init/total_rate": 0.2, "scaled/trained/grows": 0},
    ),
    (
        lambda: biased(),
        -1.6,  # of the slowest decay
        {"gates/init/words/open": 0.0, "gates/trained/words/open": 0.2},
    ),
    (
        lambda: path(("init", "words"), hidden_path=-0.02),
        0.166667,
        {"slowest": -0.02, "cases/init/words/below_largest_path": 0.5},
    ),
    (lambda: gates(tanh_factors=0.14), 0.05, {"init/padding/tanh_factors/mean": 0.14}),
    (lambda: gates(("trained", "words")), 0.0, {"init/words/gate_std": 0.05}),  # the least spread
]


@pytest.mark.parametrize(("judge", "mean", "numbers"), MEASURED)
def test_the_numbers_are_the_tables_(
    judge: Callable[[], Claim | None], mean: float, numbers: dict[str, float]
) -> None:
    claim = judged(judge())
    assert claim.interval is not None
    assert claim.interval["mean"] == pytest.approx(mean, abs=2e-6)
    found = {name: claim.measured.get(name) for name in numbers}
    assert found == pytest.approx(numbers, abs=1e-4)


def test_an_exact_zero_has_no_interval_and_is_compared_with_nothing() -> None:
    assert judged(fall(-1.9, -np.inf, -np.inf)).interval is None
    table = lstm_ends(-1.9, -95.0, -np.inf)
    table.loc[(table["condition"] == "question") & (table["seed"] == 1), "log10_at_end"] = -np.inf
    some = judged(claims.sharp_fall(table))
    assert some.verdict == ONLY
    assert some.measured["true/exact_zeros"] == 1
    assert some.measured["true/log10_at_end"] == -95.0
    assert "trained/mean" not in judged(better(trained=(-10.0, -np.inf))).measured
    assert better(question=(-3.0, -np.inf)) is None


def test_a_lag_without_a_move_is_not_read() -> None:
    influences = make_influences(1, 0.1, 0.3)
    influences.loc[influences["lag"] == 100, INFLUENCES] = np.nan
    claim = judged(claims.blocking(influences))
    assert claim.verdict == HOLDS
    assert claim.measured["lags/last"] == 20


def test_models_that_come_to_rest_are_counted() -> None:
    paths = make_paths({})
    paths.loc[(paths["seed"] == 1) & (paths["weights"] == "trained"), "settled_rate"] = np.nan
    measured = judged(claims.gate_rate(paths)).measured
    assert (measured["trained/padding/at_rest"], measured["trained/padding/models"]) == (2, 3)


def test_differences_are_paired_by_seed() -> None:
    table = both_cells()
    apart = table["seed"].map({1: 0.0, 2: 30.0, 3: 90.0})
    table["log10_at_end"] -= apart  # seeds differ, and the two cells of a seed do not
    assert judged(claims.rnn_is_better(table)).verdict == HOLDS


UNJUDGED: list[Callable[[], Claim | None]] = [
    lambda: claims.sharp_fall(lstm_ends(-1.9, -95.0, -np.inf).assign(log10_at_20=np.nan)),
    lambda: claims.sharp_fall(lstm_ends(-1.9, -95.0, -9.0).query("condition == 'question'")),
    lambda: claims.rnn_is_better(both_cells().query("condition != 'question'")),
    lambda: claims.rnn_is_better(both_cells().query("seed == 1")),
    lambda: wins([0.9], [0.3]),
    lambda: claims.gate_rate(make_paths({}, total=np.nan)),
    lambda: late([0.9], [0.9]),
    lambda: powers({}, measured=np.nan),
    lambda: claims.late_steps(make_shares(MUCH, MUCH).assign(steps=9)),
    lambda: claims.blocking(make_influences(1, 0.1, 0.3).query("lag < 20")),
    lambda: claims.blocking(make_influences(1, 0.1, 0.3).query("perturbation == 1")),
    lambda: explodes(-np.inf, 0.1, 0.1),
    lambda: explodes(0.1, 0.1, 0.1, gradient_norm=0.0),
    lambda: claims.blocking(make_influences(1, 0.1, 0.3).assign(backward_difference=np.nan)),
    lambda: claims.forget_bias(
        with_biases().query("condition != 'forget_bias_3'"), histogram(), BY_BIAS
    ),
    lambda: claims.forget_bias(with_biases(), histogram(), ["question"]),
    lambda: claims.one_path(make_paths({}, cell_path=np.nan, hidden_path=np.nan)),
    lambda: claims.varying_gates(make_paths({}).query("input == 'padding'")),
]


@pytest.mark.parametrize("judge", UNJUDGED)
def test_a_claim_is_not_judged_without_what_it_needs(judge: Callable[[], Claim | None]) -> None:
    assert judge() is None


def test_a_condition_that_was_not_measured_is_left_out() -> None:
    some = both_cells().query("condition in ('question', 'trained')")
    assert judged(claims.rnn_is_better(some)).verdict == HOLDS
    no_chrono = with_biases().query("condition != 'chrono'")
    claim = judged(claims.forget_bias(no_chrono, histogram().iloc[:0], BY_BIAS))
    assert claim.verdict == HOLDS
    assert not any(name.startswith("gates") for name in claim.measured)
