"""Verdicts on what gates block, and on the path through the output gate."""

import pandas as pd

from rnngrad.intervals import Interval
from rnngrad.study.claims.claim import GATES_AND_PATHS, Claim, verdict
from rnngrad.study.claims.seeds import WEIGHTS_IN_WORDS, above_zero, in_words, over_seeds
from rnngrad.study.results import WEIGHTS

AGREEMENT = 0.04  # decades, 10%
ROUGHLY = 0.5  # decades
GATES_AT = 20  # steps
CLIP_NORM = 1.0  # to which the measured gradients are clipped
ROUNDING = 1e-6

BLOCKED_BOTH_WAYS = (
    "holds: in the LSTM, untrained and trained, for moves of 0.1% of the cell state, the gradient "
    f"is within {AGREEMENT} decades (10%) of the forward influence at every lag at which there is "
    "a move to be read, and the product of the forget gates alone is within "
    f"{ROUGHLY} decades of it at {GATES_AT} steps (medians over samples, mean over seeds). Holds "
    "only if all paths are counted, not the gates alone: the first is so, the second is not. Does "
    "not hold: forward influence and gradient differ."
)
OUTPUT_GATE_PATH = (
    "holds: the norm of the product of K_k W_o grows from step to step (mean over seeds, and a 95% "
    "interval above zero), with untrained or trained weights as they are. Holds only if W_o is "
    "larger: times one of the powers of two that were tried, 256 at most, it grows, and the whole "
    "Jacobian with it, untrained or trained, for every seed. In both cases a gradient clipped to "
    f"the norm {CLIP_NORM:g} must be no longer than that and keep its direction (its cosine is 1, "
    f"both up to {ROUNDING:g}). Does not hold: otherwise."
)


def judge_blocking(influences: pd.DataFrame) -> Claim | None:
    """Claim 7: is what gates block forwards blocked backwards?

    Args:
        influences: cell, seed, weights, and the columns of ``influence``.

    Returns:
        None without an LSTM, or where no move was left to be read.
    """
    lstm = influences[influences["cell"] == "lstm"].dropna(subset=["backward_difference"])
    if lstm.empty:
        return None
    small, large = (
        lstm[lstm["perturbation"] == eps]
        for eps in (lstm["perturbation"].min(), lstm["perturbation"].max())
    )
    apart = _largest_mean(small)
    at = small[small["lag"] == small.loc[small["lag"] <= GATES_AT, "lag"].max()]
    gates = at.groupby("weights")["gates_difference"].mean()
    worst = at[at["weights"] == gates.idxmax()].set_index("seed")["gates_difference"]
    return Claim(
        id=7,
        statement="What gates block forwards they block backwards.",
        source=GATES_AND_PATHS,
        criterion=BLOCKED_BOTH_WAYS,
        measured=(
            f"{small['lag'].min()} to {small['lag'].max()} steps later, the influence of c_k on "
            f"c_t and the gradient differ by at most {apart:.5f} decades for moves of 0.1% of c_k, "
            f"by {_largest_mean(large):.3f} for moves as large as c_k. {_on_gates_alone(at)}"
        ),
        interval=over_seeds(worst),
        verdict=verdict(
            holds=apart <= AGREEMENT and bool((gates <= ROUGHLY).all()),
            sometimes=apart <= AGREEMENT,
        ),
    )


def _largest_mean(influences: pd.DataFrame) -> float:
    """The largest of the means over seeds, by weights and lag."""
    return influences.groupby(["weights", "lag"])["backward_difference"].mean().max()


def _on_gates_alone(at: pd.DataFrame) -> str:
    means = at.groupby("weights")[["gates_difference", "gates_correlation"]].mean()
    parts = [
        f"{means.loc[weights, 'gates_difference']:.2f} decades {WEIGHTS_IN_WORDS[weights]} "
        f"(correlation of the logarithms {means.loc[weights, 'gates_correlation']:+.2f})"
        for weights in WEIGHTS
        if weights in means.index
    ]
    return f"After {at['lag'].max()} steps the forget gates alone are off by {' and '.join(parts)}."


def judge_output_gate_path(output_gates: pd.DataFrame) -> Claim | None:
    """Claim 8: can the LSTM explode through the output gates, and what does clipping do about it?

    Args:
        output_gates: cell, seed, weights, and the columns of ``output_gate_path``.

    Returns:
        None without an LSTM.
    """
    lstm = output_gates[output_gates["cell"] == "lstm"]
    if lstm.empty:
        return None
    as_it_is = lstm[lstm["factor"] == 1]
    rates = {
        str(weights): over_seeds(rows.set_index("seed")["path_rate"])
        for weights, rows in as_it_is.groupby("weights")
    }
    fastest = max(rates.values(), key=lambda rate: rate["mean"])
    clips = _clips(lstm)
    return Claim(
        id=8,
        statement=(
            "The LSTM can still explode through the output-gate path; clipping bounds the step and "
            "does not help vanishing."
        ),
        source=GATES_AND_PATHS,
        criterion=OUTPUT_GATE_PATH,
        measured=f"{_on_the_bound(as_it_is, rates)} {_on_the_condition(lstm)} {_on_clipping(lstm)}",
        interval=fastest,
        verdict=verdict(
            holds=clips and any(above_zero(rate) for rate in rates.values()),
            sometimes=clips and bool(_condition(lstm)),
        ),
    )


def _clips(lstm: pd.DataFrame) -> bool:
    clipped = lstm.dropna(subset=["clipped_norm"])
    return bool(
        (clipped["clipped_norm"] <= CLIP_NORM + ROUNDING).all()
        and (clipped["cosine"] >= 1 - ROUNDING).all()
    )


def _condition(lstm: pd.DataFrame) -> dict[str, str]:
    """By weights, the factors of W_o at which path and whole Jacobian grow, for every seed."""
    last = lstm.sort_values("factor").groupby(["weights", "seed"]).tail(1)
    grows = (last["path_rate"] > 0) & (last["total_rate"] > 0)
    every = grows.groupby(last["weights"]).all()
    found = {}
    for weights, factors in last.groupby("weights")["factor"]:
        low, high = int(factors.min()), int(factors.max())
        found[weights] = f"{low}" if low == high else f"{low} to {high}, by seed,"
    return {weights: found[weights] for weights in WEIGHTS if every.get(weights, False)}


def _on_the_bound(as_it_is: pd.DataFrame, rates: dict[str, Interval]) -> str:
    means = as_it_is.groupby("weights")[["bound_rate", "ceiling_rate"]].mean()
    bound, ceiling = (means[column].to_dict() for column in ("bound_rate", "ceiling_rate"))
    parts = [
        f"{WEIGHTS_IN_WORDS[weights]} {in_words(rates[weights], '+.2f', 'decades per step')}, its "
        f"bound {bound[weights]:+.2f} ({bound[weights] - rates[weights]['mean']:.2f} too high), "
        f"the bound ||W_o||/4 {ceiling[weights]:+.2f}"
        for weights in WEIGHTS
        if weights in rates
    ]
    return f"The norm of the path's product changes by: {'; '.join(parts)}."


def _on_the_condition(lstm: pd.DataFrame) -> str:
    conditions = _condition(lstm)
    if not conditions:
        return f"With W_o times up to {lstm['factor'].max():.0f} it does not grow for every seed."
    last = lstm.sort_values("factor").groupby(["weights", "seed"]).tail(1)
    means = last.groupby("weights")[["path_rate", "total_rate"]].mean()
    parts = [
        f"{WEIGHTS_IN_WORDS[weights]} with W_o times {factor} the path grows by "
        f"{means.loc[weights, 'path_rate']:.2f} and the whole Jacobian by "
        f"{means.loc[weights, 'total_rate']:.2f} decades per step"
        for weights, factor in conditions.items()
    ]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _on_clipping(lstm: pd.DataFrame) -> str:
    clipped = lstm.dropna(subset=["clipped_norm"])
    longest = clipped.sort_values("gradient_norm").iloc[-1]
    early = clipped.loc[clipped["factor"] == 1, "log10_early_to_late"].mean()
    return (
        f"Clipping takes the longest gradient from norm {longest['gradient_norm']:.3g} to "
        f"{longest['clipped_norm']:.3f} and turns none (smallest cosine "
        f"{clipped['cosine'].min():.6f}): the part from the first half of the steps stays "
        f"{abs(early):.1f} decades {'below' if early < 0 else 'above'} that of the second half."
    )
