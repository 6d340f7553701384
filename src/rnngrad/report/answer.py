"""The answer in five sentences, every number filled in from the results."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from rnngrad.intervals import Interval
from rnngrad.report.style import NAMES
from rnngrad.report.why import value_of
from rnngrad.study.claims.claim import Claim
from rnngrad.study.results import Results

SWING = 0.1  # that a unit moves in a step of padding, of the 2 that tanh lets it
STEADY = 0.001  # decades per step that a gradient at most gains or loses on padding


def answer(results: Results, claims: Sequence[Claim]) -> list[str]:
    """Five sentences: the zeros, the padding, the RNN, training, the tutorials.

    A sentence is left out where params.yaml does without a cell or a condition that it needs.
    """
    table = results.conditions
    sentences = [
        _zeros(table),
        _padding(results),
        _rnn(results, claims),
        _training(results),
        _tutorials(claims),
    ]
    return [sentence for sentence in sentences if sentence]


def _zeros(table: pd.DataFrame) -> str:
    end = value_of(table, "question", "lstm", "log10_at_end")
    zero = value_of(table, "question", "lstm", "float32_zero_from")
    if end is None or zero is None or pd.isna(zero):
        return ""
    plateau = value_of(table, "float32", "lstm", "log10_at_end")
    torch = "" if plateau is None else f", or a false plateau of {_power(plateau)} with torch"
    return (
        f"The zeros are arithmetic: the LSTM's true mean |dc_t/dc_0| ends at {_power(end)}, and "
        f"float32's normal numbers end at 10^-38, so that from step {zero:,.0f} on every entry is "
        f"0 with TensorFlow's flush-to-zero{torch}."
    )


def _padding(results: Results) -> str:
    rate = value_of(results.conditions, "question", "lstm", "decades_per_step_padding")
    question = results.params.conditions.question
    if rate is None or pd.isna(rate) or rate >= 0 or question.input != "comments":
        return ""
    steps = results.condition_curves.query("condition == 'question'")["step"].max()
    words = results.data_card["sample"]["words"]["mean"]
    return (
        f"The gradient itself does vanish: an untrained LSTM keeps {10**rate:.0%} of it per step "
        f"of unmasked padding, {abs(rate) * 100:.1f} decades in 100 steps, and comments of "
        f"{words:.0f} words on average were padded to {steps:,} steps."
    )


def _rnn(results: Results, claims: Sequence[Claim]) -> str:
    table = results.conditions
    ends = {
        (condition, cell): value_of(table, condition, cell, "log10_at_end")
        for condition in ("question", "no_padding")
        for cell in ("rnn", "lstm")
    }
    padding = value_of(table, "question", "rnn", "decades_per_step_padding")
    word = value_of(table, "question", "rnn", "decades_per_step_tokens")
    end = {key: value for key, value in ends.items() if value is not None}
    if padding is None or word is None or np.isnan([padding, word]).any() or len(end) < len(ends):
        return ""
    matrix = "orthogonal " if results.params.conditions.question.initializer == "keras" else ""
    return (
        f"The RNN {_looked(end, claims, f'its {matrix}matrix')}: a step of padding "
        f"{_changes(padding)} decades, a word {_changes(word)}, so that it ends at "
        f"{_power(end['question', 'rnn'])} with padding and at {_power(end['no_padding', 'rnn'])} "
        f"without, where the LSTM ends at {_power(end['no_padding', 'lstm'])}."
    )


def _looked(end: dict[tuple[str, str], float], claims: Sequence[Claim], matrix: str) -> str:
    judged = {claim.id: claim.verdict for claim in claims}
    if end["question", "rnn"] <= end["question", "lstm"] or judged.get(2) == "does not hold":
        return "does not look better"
    if end["no_padding", "rnn"] < end["no_padding", "lstm"]:
        return f"looked better only because {matrix} loses next to nothing on zeros"
    return "looks better with padding and without"


def _changes(rate: float) -> str:
    return f"costs it {-rate:.3f}" if rate < 0 else f"brings it {rate:.3f}"


def _training(results: Results) -> str:
    parts = []
    for cell in results.cells:
        end = value_of(results.conditions, "trained", cell, "log10_at_end")
        reach = ""
        if end is not None:
            reach = f", and its gradient ends at {_power(end)}{_over_seeds(results, cell)}"
            reach += _swinging(results) if cell == "rnn" else ""
        accuracy = percent(results.metrics[cell]["accuracy"])
        parts.append(f"the {NAMES[cell]} gets {accuracy} of the test comments right{reach}")
    seeds = counted(results.numbers_of_seeds, "seed") + _of_accuracy(results)
    return f"Trained ({seeds}), {'; '.join(parts)}."


def _of_accuracy(results: Results) -> str:
    intervals = any(results.metrics[cell]["accuracy"]["low"] is not None for cell in results.cells)
    return "; 95% intervals of the test accuracy" if intervals else ""


def _over_seeds(results: Results, cell: str) -> str:
    """Where the trained models' gradients end, if not all at one place: one median hides much."""
    ends = results.condition_seeds.query("condition == 'trained' and cell == @cell")["log10_at_end"]
    low, high = _power(ends.min()), _power(ends.max())
    return "" if low == high else f" ({low} to {high}, by seed)"


def _swinging(results: Results) -> str:
    """The swing that keeps the trained RNN's gradient up, in words; empty if there is none."""
    powers = results.evidence["powers"]
    trained = powers[(powers["weights"] == "trained") & (powers["input"] == "padding")]
    steady = trained[(trained["measured"].abs() < STEADY) & (trained["last_move"] > SWING)]
    if len(steady) <= len(trained) / 2:
        return ""
    return (
        f", kept up in {len(steady)} of {counted([len(trained)], 'model')} by a state that on "
        f"padding never comes to rest: it swings by up to {steady['last_move'].max():.1f} a step"
    )


def _tutorials(claims: Sequence[Claim]) -> str:
    if not claims:
        return ""
    count = Counter(claim.verdict for claim in claims)
    return (
        f"{counted([len(claims)], 'statement')} of the question and of three tutorials "
        f"{'was' if len(claims) == 1 else 'were'} measured: "
        f"{count['holds']} of them hold{'s' if count['holds'] == 1 else ''}, "
        f"{count['holds only if …']} only under a condition, and "
        f"{count['does not hold']} not (see the table of claims)."
    )


def counted(numbers: Sequence[int], what: str) -> str:
    """Such as "1 seed", "5 seeds" or "2 to 5 seeds"."""
    low, high = min(numbers), max(numbers)
    number = f"{high}" if low == high else f"{low} to {high}"
    return f"{number} {what}{'' if high == 1 else 's'}"


def _power(value: float) -> str:
    return "exactly 0" if value == -float("inf") else f"10^{value:z.1f}"


def percent(interval: Interval) -> str:
    """A share with its 95% interval, cut to what a share can be."""
    mean, low, high = interval["mean"], interval["low"], interval["high"]
    if low is None or high is None:
        return f"{mean:.1%}"
    return f"{mean:.1%} ({max(low, 0):.1%} to {min(high, 1):.1%})"
