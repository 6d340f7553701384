"""Made-up tables of the study, and the claim that each of them brings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

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


MUCH, LITTLE, UNSURE, LESS = [0.7, 0.72, 0.71], [0.53, 0.54, 0.55], [0.4, 0.9, 0.9], [0.3, 0.2, 0.3]

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
