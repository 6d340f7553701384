"""Verdicts on what the cells learn, and on which steps they learn from."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rnngrad.intervals import Interval, mean_interval
from rnngrad.study.claims.claim import NUMPY_LSTM, QUESTION, Claim, verdict
from rnngrad.study.claims.seeds import (
    WEIGHTS_IN_WORDS,
    above_zero,
    below_zero,
    in_words,
    paired_difference,
    points_in_words,
)
from rnngrad.study.results import WEIGHTS

MUCH = 0.1  # of the summed norms

TEST_ON_THE_TASK = (
    "holds: paired by seed, the LSTM's test accuracy is higher and its test loss lower than the "
    "RNN's, with 95% intervals that exclude zero. Holds only if one looks at accuracy alone, or at "
    "loss alone: one interval excludes zero in the LSTM's favour. Does not hold: neither does."
)
LATE_STEPS = (
    "holds: of the summed norms of the parts of dL_T/dW_hh, the last tenth of the steps holds a "
    f"share that is larger in the RNN than in the LSTM by {100 * MUCH:.0f} percentage points or "
    "more (mean over seeds, and a 95% interval above zero), untrained and trained. Holds only if "
    "the weights are untrained, or trained: in one of the two. Does not hold: in neither."
)


def scores_on_test(model_cards: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Test loss and accuracy of every model, from the model cards by cell.

    Columns: cell, seed, epochs, loss (nats), accuracy.
    """
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "cell": cell,
                    "seed": card["settings"]["seeds"],
                    "epochs": card["settings"]["epochs"],
                    "loss": card["test"]["per_seed"]["loss"],
                    "accuracy": card["test"]["per_seed"]["accuracy"],
                }
            )
            for cell, card in model_cards.items()
        ],
        ignore_index=True,
    )


def judge_the_task(scores: pd.DataFrame, remembered: pd.DataFrame) -> Claim | None:
    """Claim 3: does the LSTM beat the RNN?

    Args:
        scores: of :func:`scores_on_test`.
        remembered: of :func:`gradient_predicts_memory`; may have no rows.

    Returns:
        None without an RNN, an LSTM and two seeds that both have: there is no interval.
    """
    accuracy, loss = (
        paired_difference(scores, name, "lstm", "rnn") for name in ("accuracy", "loss")
    )
    if accuracy is None or loss is None:
        return None
    better = (above_zero(accuracy), below_zero(loss))
    lstm, rnn = (int(scores.loc[scores["cell"] == c, "epochs"].iloc[0]) for c in ("lstm", "rnn"))
    epochs = f"{lstm} epoch{'s' * (lstm > 1)}"
    epochs += "" if lstm == rnn else f" of the LSTM and {rnn} of the RNN"
    return Claim(
        id=3,
        statement="The LSTM beats the RNN in loss and accuracy on this task over 10 epochs.",
        source=QUESTION,
        criterion=TEST_ON_THE_TASK,
        measured=(
            f"LSTM minus RNN after {epochs}: test accuracy {points_in_words(accuracy)}, "
            f"test loss {in_words(loss, '+.3f', 'nats')}.{_on_memory(remembered)}"
        ),
        interval=accuracy,
        verdict=verdict(holds=all(better), sometimes=any(better)),
    )


def gradient_predicts_memory(telling: pd.DataFrame) -> pd.DataFrame:
    """Where the gradient at a telling word is larger, is more remembered of it?

    Args:
        telling: cell, seed, and the columns of ``remembered_by_distance``.

    Returns:
        One row per cell: cell, seeds, mean, low, high of Spearman's rank correlation between
        log10_gradient and auroc over the bins of distance, one correlation per seed. A seed in
        which one of the two is the same in all bins, or which has fewer than three bins, has none.
    """
    rows = []
    for cell, models in telling.groupby("cell", sort=False):
        found = [_rank_correlation(bins) for _, bins in models.groupby("seed")]
        known = [value for value in found if value is not None]
        if known:
            rows.append({"cell": cell, "seeds": len(known), **mean_interval(known)})
    return pd.DataFrame(rows, columns=["cell", "seeds", "mean", "low", "high"])


def _rank_correlation(bins: pd.DataFrame) -> float | None:
    both = bins[["log10_gradient", "auroc"]].dropna()
    if len(both) < 3 or (both.nunique() < 2).any():
        return None
    return float(both[["log10_gradient", "auroc"]].corr(method="spearman").to_numpy()[0, 1])


def judge_late_steps(shares: pd.DataFrame) -> Claim | None:
    """Claim 5: do later steps dominate the weight gradient much more in an RNN?

    Args:
        shares: cell, seed, weights, and the columns of ``weight_gradient_shares``.

    Returns:
        None without an RNN, an LSTM and two seeds that both have.
    """
    differences = {}
    for weights in WEIGHTS:
        chosen = shares[shares["weights"] == weights]
        difference = paired_difference(chosen, "late_share", "rnn", "lstm")
        if difference is None:
            return None
        differences[weights] = difference
    much = [above_zero(each) and each["mean"] >= MUCH for each in differences.values()]
    return Claim(
        id=5,
        statement="In an RNN later steps dominate the weight gradient much more than in an LSTM.",
        source=NUMPY_LSTM,
        criterion=LATE_STEPS,
        measured=_late_steps_measured(shares, differences),
        interval=differences["trained"],
        verdict=verdict(holds=all(much), sometimes=any(much)),
    )


def _late_steps_measured(shares: pd.DataFrame, differences: dict[str, Interval]) -> str:
    means = shares.groupby(["weights", "cell"])[["late_share", "steps_of_most"]].mean()
    late, most = (means[column].to_dict() for column in ("late_share", "steps_of_most"))
    parts = []
    for weights, difference in differences.items():
        rnn, lstm = (weights, "rnn"), (weights, "lstm")
        parts.append(
            f"{WEIGHTS_IN_WORDS[weights]}, {late[rnn]:.0%} in the RNN and {late[lstm]:.0%} in the "
            f"LSTM, a difference of {points_in_words(difference)} (90% come from the last "
            f"{most[rnn]:.0f} and {most[lstm]:.0f} steps)"
        )
    steps = shares["steps"].max()
    return f"Of what {steps} steps add, the last tenth holds: {'; '.join(parts)}."


def _on_memory(remembered: pd.DataFrame) -> str:
    if remembered.empty:
        return ""
    means = zip(remembered["cell"].str.upper(), remembered["mean"], strict=True)
    parts = ", ".join(f"{cell} {mean:+.2f}" for cell, mean in means)
    return (
        " Over the distances of the last telling word, the rank correlation between the gradient "
        f"there and how well toxic comments are told from others is: {parts} (mean over seeds)."
    )
