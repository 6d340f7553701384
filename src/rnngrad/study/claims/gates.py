"""Verdicts on the forget gate: as the rate of decay, as a cure for it, and as it varies."""

import pandas as pd

from rnngrad.intervals import Interval
from rnngrad.study.claims.claim import GATES_AND_PATHS, MANUAL_LSTM, Claim, verdict
from rnngrad.study.claims.seeds import (
    above_zero,
    below_zero,
    in_words,
    over_seeds,
    paired_difference,
)

SAME_RATE = 0.1  # of the cell path's
VARIES = 0.01  # standard deviation of an activation between 0 and 1
ONE_TANH = 0.01  # factors per step: one in a hundred
OPEN = 0.98  # edge of the histogram's last bin
BIASES = {  # in the order of their forget gates
    "forget_bias_0": "forget bias 0",
    "question": "the question's",
    "forget_bias_3": "forget bias 3",
}
ALL_BIASES = BIASES | {"chrono": "chrono biases"}

GATE_RATE = (
    "holds: in decades per step, the gradient dc_t/dc_0 decays within 10% of the rate of its cell "
    "path (the product of forget gates alone), untrained and trained, on padding and on words "
    "(means over seeds). Holds only if the weights and inputs are those named: in some of these "
    "cases but not in all. Does not hold: in none."
)
SLOWER_BUT_THERE = (
    "holds: from the question's setting with forget bias 0 to its own to 3, dc_T/dc_0 at the last "
    "step grows each time (paired by seed, 95% intervals above zero), and under each of these "
    "conditions, and with chrono biases if measured, it has vanished: 95% interval of log10 below "
    "zero. Holds only if the forget gate is not nearly open: it grows each time, but under some "
    "condition it has not vanished, though a sigmoid is below 1. Does not hold: otherwise."
)
VARYING_GATES = (
    "holds: over the steps of a comment the forget gates vary (median standard deviation above "
    "0.01) on padding and on words, untrained and trained, and the paths that make up the gradient "
    "pass through tanh at no more than one step in a hundred (means over seeds). Holds only if "
    "words are read, and of the gates alone: they vary on words, untrained and trained. Does not "
    "hold: not even there."
)


def judge_gate_rate(paths: pd.DataFrame) -> Claim | None:
    """Claim 4: does the gradient decay at the forget gate's rate?

    Args:
        paths: cell, seed, weights, and the columns of ``path_rates``.

    Returns:
        None without rates.
    """
    known = paths.dropna(subset=["total", "cell_path"])
    if known.empty:
        return None
    means = known.groupby(["weights", "input"], sort=False)[["total", "cell_path"]].mean()
    off = (means["total"] - means["cell_path"]).abs() / means["cell_path"].abs()
    same = off <= SAME_RATE
    worst = known.set_index(["weights", "input"]).loc[[off.idxmax()]].set_index("seed")
    return Claim(
        id=4,
        statement=(
            "dc_t/dc_(t-1) is the forget gate (cell path), and so the gradient decays at the "
            "forget-gate rate."
        ),
        source=GATES_AND_PATHS,
        criterion=GATE_RATE,
        measured=_rates_measured(known) + _prediction(paths) + _where(same),
        interval=over_seeds(worst["total"] - worst["cell_path"]),
        verdict=verdict(holds=bool(same.all()), sometimes=bool(same.any())),
    )


def _rates_measured(known: pd.DataFrame) -> str:
    parts = []
    for (weights, kind), group in known.groupby(["weights", "input"], sort=False):
        rates = group.set_index("seed")
        parts.append(
            f"{_in_words(weights)} on {kind} "
            f"{in_words(over_seeds(rates['total']), '+.4f', 'total')}, "
            f"{rates['cell_path'].mean():+.4f} cell path, "
            f"{rates['hidden_path'].mean():+.4f} hidden paths"
        )
    return f"In decades per step: {'; '.join(parts)}"


def _prediction(paths: pd.DataFrame) -> str:
    """The prediction of a linearised step on padding, in words; empty where there is no padding."""
    parts = []
    for weights, group in paths.groupby("weights", sort=False):
        on_padding = group[group["input"] == "padding"]
        settled = on_padding["settled_rate"].dropna()
        if len(on_padding):
            at_rest = (
                f" and at rest {settled.mean():+.4f} (where {len(settled)} of {len(on_padding)} "
                "models come to rest)"
                if len(settled)
                else ""
            )
            zero = on_padding["zero_state_rate"].mean()
            parts.append(f"{zero:+.4f} at the zero state{at_rest} {_in_words(weights)}")
    if not parts:
        return ""
    return f"; the one-step Jacobian (f I + i o U_g untrained) predicts {'; '.join(parts)}"


def _where(same: pd.Series) -> str:
    names = [f"{_in_words(weights)} on {kind}" for (weights, kind), so in same.items() if so]  # pyright: ignore[reportGeneralTypeIssues]
    return f"; within 10%: {', '.join(names) or 'nowhere'}."


def _in_words(weights: object) -> str:
    return "untrained" if weights == "init" else str(weights)


def judge_forget_bias(seeds: pd.DataFrame, gates: pd.DataFrame) -> Claim | None:
    """Claim 9: is vanishing slower but still there unless all forget gates are 1?

    Args:
        seeds: a row per condition, cell and weight seed, as the conditions stage writes them.
        gates: histograms of the probe stage: input, activation, share, mean, cell, seed, weights.

    Returns:
        None where two seeds at least of the LSTM were not measured under forget_bias_0, question
        and forget_bias_3.
    """
    lstm = seeds[seeds["cell"] == "lstm"]
    steps = [_step(lstm, one, other) for one, other in zip(list(BIASES)[1:], BIASES, strict=False)]
    slower = [step is not None and above_zero(step) for step in steps]
    if None in steps:
        return None
    at_end = {
        name: over_seeds(lstm[lstm["condition"] == name].set_index("seed")["log10_at_end"])
        for name in ALL_BIASES
        if (lstm["condition"] == name).any()
    }
    vanished = all(below_zero(each) for each in at_end.values())
    return Claim(
        id=9,
        statement="Vanishing is slower but still there unless all forget gates are 1.",
        source=GATES_AND_PATHS,
        criterion=SLOWER_BUT_THERE,
        measured=(
            "log10 of the LSTM's mean |dc_T/dc_0| at the last step: "
            + "; ".join(
                f"{in_words(each, '+.1f', 'decades')} with {ALL_BIASES[name]}"
                for name, each in at_end.items()
            )
            + _openness(gates)
            + "."
        ),
        interval=max(at_end.values(), key=lambda each: each["mean"]),
        verdict=verdict(holds=all(slower) and vanished, sometimes=all(slower)),
    )


def _step(lstm: pd.DataFrame, one: str, other: str) -> Interval | None:
    """At the last step, condition ``one`` minus condition ``other``."""
    both = lstm[lstm["condition"].isin([one, other])]
    return paired_difference(both.assign(cell=both["condition"]), "log10_at_end", one, other)


def _openness(gates: pd.DataFrame) -> str:
    """How open the study's own forget gates are, before and after training."""
    lstm = gates[gates["cell"] == "lstm"]
    parts = []
    for (kind, weights), group in lstm.groupby(["input", "weights"], sort=False):
        mean = group.groupby("seed")["mean"].first().mean()
        open_share = group[group["activation"] > OPEN].groupby("seed")["share"].sum().mean()
        parts.append(f"{mean:.2f} on {kind} {_in_words(weights)} ({open_share:.1%} above {OPEN})")
    return f"; the study's own forget gates average {', '.join(parts)}" if parts else ""


def judge_varying_gates(paths: pd.DataFrame) -> Claim | None:
    """Claim 11: is no factor multiplied over and over, and is there only one tanh?

    Args:
        paths: cell, seed, weights, and the columns of ``path_rates``.

    Returns:
        None where no words are read.
    """
    groups = paths.groupby(["weights", "input"], sort=False)
    spread = groups["gate_std"].mean()
    factors = paths.assign(size=paths["tanh_factors"].abs()).groupby(["weights", "input"])["size"]
    words = spread[spread.index.get_level_values("input") == "words"]
    if words.empty:
        return None
    passed = factors.mean().dropna()
    one_tanh = len(passed) > 0 and bool((passed <= ONE_TANH).all())
    least = paths.set_index(["weights", "input"]).loc[[words.idxmin()]].set_index("seed")
    return Claim(
        id=11,
        statement=(
            "The forget gate differs at every step, so no factor is multiplied over and over; from "
            "h_t back to h_0 there is only one tanh."
        ),
        source=MANUAL_LSTM,
        criterion=VARYING_GATES,
        measured=_variation_measured(paths),
        interval=over_seeds(least["gate_std"]),
        verdict=verdict(
            holds=bool((spread > VARIES).all()) and one_tanh,
            sometimes=bool((words > VARIES).all()),
        ),
    )


def _tanhs(rates: pd.DataFrame) -> str:
    count = over_seeds(rates["tanh_factors"])
    # a mean over paths, weighted by what each carries, with its sign
    if count["mean"] <= 0 or (count["low"] is not None and count["low"] <= 0):
        return f"no clear number of tanh: {in_words(count, '.2f', 'per step')}"
    return (
        f"{in_words(count, '.2f', 'tanh per step')}, "
        f"a factor of 10^{rates['log10_tanh_factor'].mean():.2f} each (geometric mean)"
    )


def _variation_measured(paths: pd.DataFrame) -> str:
    parts = []
    for (weights, kind), group in paths.groupby(["weights", "input"], sort=False):
        rates = group.set_index("seed")
        parts.append(
            f"{_in_words(weights)} on {kind} a forget gate's standard deviation over steps is "
            f"{rates['gate_std'].mean():.4f}, and the gradient's paths pass {_tanhs(rates)}"
        )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
