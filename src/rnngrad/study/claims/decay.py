"""Verdicts on how the gradient of untrained models dies away, and on which cell's does so later."""

import numpy as np
import pandas as pd

from rnngrad.intervals import Interval
from rnngrad.study.claims.claim import QUESTION, Claim, verdict
from rnngrad.study.claims.seeds import above_zero, in_words, over_seeds, paired_difference

SHARP = 1.0  # decades
SMALLEST = float(np.log10(np.finfo(np.float32).tiny))  # float32's smallest normal number
# where the two cells are compared; the first is the question's own setting
COMPARED = {
    "question": "in the question's setting",
    "no_padding": "without padding",
    "torch_initializer": "with torch's initialiser",
    "trained": "trained",
}

SHARP_FALL = (
    "holds: for every weight seed, the true mean of |dc_t/dc_0| falls by a decade or more in the "
    "first 20 steps and is exactly zero at the last step. Holds only if the arithmetic is float32 "
    "that flushes to zero: the fall is there, the zero is there in that arithmetic alone, and the "
    f"true value has vanished (below 10^{SMALLEST:.1f}, float32's smallest normal number). Does "
    "not hold: otherwise."
)
RNN_IS_BETTER = (
    "holds: at the last step log10 of the true mean derivative is larger for the RNN than for the "
    "LSTM, paired by seed and with a 95% interval above zero, under each of the conditions "
    "question, no_padding, torch_initializer and trained that was measured. Holds only if the "
    "factors named are as in the question: it is so there, but not in all of them. Does not hold: "
    "not even there."
)


def judge_sharp_fall(seeds: pd.DataFrame) -> Claim | None:
    """Claim 1: a sharp fall over 20 steps, an exact zero at the end, a sign of vanishing?

    Args:
        seeds: a row per condition, cell and weight seed, as the conditions stage writes them.

    Returns:
        None where the LSTM was not measured under the conditions question and float32_flushed,
        or over fewer than 20 steps.
    """
    true, flushed = (_of(seeds, name, "lstm") for name in ("question", "float32_flushed"))
    if true.empty or flushed.empty:
        return None
    falls = bool((true["log10_at_20"] <= -SHARP).all())
    zero = bool(np.isneginf(true["log10_at_end"]).all())
    flushed_zero = bool(np.isneginf(flushed["log10_at_end"]).all())
    vanished = bool((true["log10_at_end"] < SMALLEST).all())
    return Claim(
        id=1,
        statement=(
            "dc_t/dc_0 falls sharply over the first 20 steps; it is exactly zero at the end; that "
            "is a strong sign of vanishing gradients."
        ),
        source=QUESTION,
        criterion=SHARP_FALL,
        measured=(
            f"Over 20 steps log10 of the LSTM's mean |dc_t/dc_0| changes by "
            f"{in_words(over_seeds(true['log10_at_20']), '+.2f', 'decades')}; at the last step its "
            f"true value is {_at_end(true)}, and in float32 that flushes to zero it is "
            f"{_at_end(flushed)}{_zero_from(flushed)}."
        ),
        interval=_finite_interval(true["log10_at_end"]),
        verdict=verdict(holds=falls and zero, sometimes=falls and flushed_zero and vanished),
    )


def _of(seeds: pd.DataFrame, condition: str, cell: str) -> pd.DataFrame:
    chosen = seeds[(seeds["condition"] == condition) & (seeds["cell"] == cell)]
    return chosen.dropna(subset=["log10_at_20"]).set_index("seed")


def _finite_interval(values: pd.Series) -> Interval | None:
    return over_seeds(values) if bool(np.isfinite(values).all()) else None


def _at_end(condition: pd.DataFrame) -> str:
    values = condition["log10_at_end"]
    zeros = int(np.isneginf(values).sum())
    if zeros == len(values):
        return "exactly zero"
    number = f"10^{values[np.isfinite(values)].mean():.1f} (mean over seeds)"
    return f"{number}, but for {zeros} exact zeros" if zeros else f"{number}, not zero"


def _zero_from(flushed: pd.DataFrame) -> str:
    steps = flushed["float32_zero_from"].dropna()
    return f" from step {steps.median():,.0f} on (median over seeds)" if len(steps) else ""


def judge_rnn_is_better(seeds: pd.DataFrame) -> Claim | None:
    """Claim 2: do the RNN's gradients behave better than the LSTM's?

    Args:
        seeds: as in :func:`judge_sharp_fall`.

    Returns:
        None where two seeds at least of both cells were not measured under the condition question.
    """
    differences: dict[str, Interval] = {}
    for name in COMPARED:
        # of an exact zero there is no logarithm to compare
        finite = np.isfinite(seeds["log10_at_end"])
        chosen = seeds[(seeds["condition"] == name) & finite]
        found = paired_difference(chosen, "log10_at_end", "rnn", "lstm")
        if found is not None:
            differences[name] = found
    if "question" not in differences:
        return None
    better = {name: above_zero(difference) for name, difference in differences.items()}
    return Claim(
        id=2,
        statement="The RNN's gradients behave better than the LSTM's.",
        source=QUESTION,
        criterion=RNN_IS_BETTER,
        measured=(
            "RNN minus LSTM, log10 of the mean derivative at the last step: "
            + "; ".join(
                f"{in_words(each, '+.1f', 'decades')} {COMPARED[name]}"
                for name, each in differences.items()
            )
            + _turned_by(seeds, better)
            + "."
        ),
        interval=differences["question"],
        verdict=verdict(holds=all(better.values()), sometimes=better["question"]),
    )


def _turned_by(seeds: pd.DataFrame, better: dict[str, bool]) -> str:
    """The factors with which an advantage in the question's setting goes."""
    turned = [name for name, so in better.items() if not so]
    if not better["question"] or not turned:
        return ""
    factor = seeds.drop_duplicates("condition").set_index("condition")["factor"]
    return (
        f"; the RNN's advantage is gone once one of these is changed: {', '.join(factor[turned])}"
    )
