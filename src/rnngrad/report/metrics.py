"""The numbers that the report states, computed from the result tables; words are elsewhere."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from typing import Any, get_args

import numpy as np
import pandas as pd

from rnngrad.intervals import Interval, mean_interval
from rnngrad.plot import FLOAT32_NORMAL
from rnngrad.report.style import thinned
from rnngrad.study import MILESTONES
from rnngrad.study.claims import SAME_RATE, Claim, Verdict, openness
from rnngrad.study.results import Results

PLOTTED = ("question", "no_padding", "trained", "trained_without_padding")  # conditions
PLOT_STEPS = 10  # one step in so many
READ = {  # the conditions under which the weights read words alone, and padded comments
    "init": ("no_padding", "question"),
    "trained": ("trained_on_words", "trained"),
    "trained_without_padding": ("trained_without_padding", "trained_without_padding_on_padding"),
}
NEARLY_OPEN = 0.9  # activations of a gate
LEFT = -1.0  # log10 of a tenth, up to which the loss is said to reach
SWING = 0.1  # the least that a unit moves in a step of padding; tanh allows at most 2
STEADY = 0.001  # decades per step that a gradient at most gains or loses on padding
MODEL = ["cell", "weights"]


def value_of(results: Results, condition: str, cell: str, column: str) -> float | None:
    """One number of the table of conditions; None where it was not measured."""
    found = results.conditions.query("condition == @condition and cell == @cell")[column].dropna()
    return None if found.empty else float(found.iloc[0])


def per_word(results: Results, cell: str) -> float | None:
    """Give decades per word that an untrained model gains on streams, else on padded comments."""
    found = (value_of(results, name, cell, "decades_per_step_tokens") for name in READ["init"])
    return next((rate for rate in found if rate is not None), None)


def starts_alike(results: Results, cell: str) -> bool:
    """Tell whether training starts from models as the question's setting has them."""
    question, own = results.params.conditions.question, results.params.train_of(cell)
    keys = ["initializer"] + ["forget_bias"] * (cell == "lstm" and own.initializer == "keras")
    alike = all(getattr(question, key) == getattr(own, key) for key in keys)
    return alike and question.units == own.hidden


def cause_table(results: Results, conditions: Iterable[str]) -> pd.DataFrame:
    """The change of both cells' ends under conditions of one factor, the largest effect first.

    Columns: condition; rnn and lstm: log10 at the end; rnn_change, lstm_change: against the
    question's setting; lead_change: of the decades by which the RNN is ahead. For an exact zero the
    change runs from the smallest normal float32 to the true value. NaN where a cell was not run;
    no rows where the question's setting lacks one of the cells.
    """
    cases = results.params.conditions
    question = cases.question.model_dump(exclude={"cells"})
    known = {name: cases.setting_of(name) for name in conditions if name in cases.cases}
    # A condition that changes nothing is no cause. Nor is training that starts from other models.
    causes = [name for name, own in known.items() if own.model_dump(exclude={"cells"}) != question]
    if not all(starts_alike(results, cell) for cell in ("rnn", "lstm") if cell in results.cells):
        causes = [name for name in causes if name != "trained"]
    ends = results.conditions.pivot_table("log10_at_end", "condition", "cell")
    found = ends.reindex(["question", *causes], columns=["rnn", "lstm"]).dropna(how="all")
    if not found.notna().all(axis=1).get("question", default=False):
        return pd.DataFrame()
    question, found = found.loc["question"], found.drop(index="question")
    change = (found - question).where(~np.isneginf(found), question - FLOAT32_NORMAL, axis=1)
    change = change.where(np.isfinite(change))  # an exact zero that was one before moves nothing
    change["lead"] = change["rnn"] - change["lstm"]
    change.loc[np.isneginf(found).all(axis=1), "lead"] = np.nan
    table = found.join(change.add_suffix("_change")).reset_index(names="condition")
    return table.sort_values(["lead_change", "lstm_change"], ascending=False, key=abs)


def rnn_leads(claims: Sequence[Claim]) -> dict[str, int]:
    """By condition, 1 where the RNN's gradient ends above the LSTM's, -1 where below.

    The numbers are those of claim 2; 0 where its interval holds zero, or there is none.
    """
    ends = next((claim.measured for claim in claims if claim.id == 2), {})
    return {
        name: (ends.get(f"{name}/low", 0) > 0) - (ends.get(f"{name}/high", 0) < 0)
        for name in ("question", "no_padding")
    }


def curve_table(results: Results) -> pd.DataFrame:
    """log10 of the mean over comments, median over seeds: cell, weights, statistic, a few steps."""
    steps = results.curves["step"]
    at = results.curves[steps.isin([*MILESTONES, steps.max()])]
    keys = [*MODEL, "statistic"]
    table = at.pivot_table("log10_mean", keys, "step", aggfunc="median", sort=False)
    return table.sort_index(axis=1).reset_index()


def padding_share(results: Results) -> float | None:
    """The part of the question's steps that is padding; None where that is none or not known."""
    question = results.params.conditions.question
    if (question.input, question.padding) != ("comments", "pre"):
        return None
    steps = results.condition_curves.query("condition == 'question'")["step"].max()
    words = results.data_card["sample"]["words"]
    # nobody knows how many words are left of a comment that is cut
    return 1 - words["mean"] / steps if steps >= words["max"] else None


def test_scores(results: Results) -> dict[Any, dict[Any, Interval]]:
    """By cell and trained weights, the mean of every test metric with its 95% interval."""
    by_model = results.tests.drop(columns="seed").groupby(MODEL, sort=False)
    return by_model.agg(mean_interval).to_dict("index")


def opened_gates(results: Results) -> list[dict[str, Any]]:
    """Say what every cell's models make of words: a row per cell and weights.

    mean, open: mean activation on words of the gate that keeps the state, and the share that is
    nearly open. rate, end: decades per word, and log10 at the end of words. padded, lowest,
    highest: log10 at the end of padded comments, median and ends over seeds. reach: words until a
    tenth of the loss's gradient is left. accuracy: on the test split. NaN or None: no such number.
    """
    scores, cases, rows = test_scores(results), results.params.conditions, []
    reach = results.evidence["reach"].query("state == 'c' or cell != 'lstm'")
    left = reach.groupby([*MODEL, "distance"])["log10"].median()
    reached = left[left <= LEFT].reset_index("distance").groupby(MODEL)["distance"].min()
    by_seed = results.condition_seeds.groupby(["condition", "cell"])["log10_at_end"]
    ends = by_seed.agg(padded="median", lowest="min", highest="max")
    for cell, weights in product(results.cells, results.weights):
        words, padded = READ[weights]
        if weights == "init" and not starts_alike(results, cell):
            words = padded = ""  # these are other models
        elif padded in cases.cases and cases.setting_of(padded).padding == "none":
            padded = ""
        find = partial(value_of, results, words, cell)
        gates = openness(results.gates[results.gates["cell"] == cell], NEARLY_OPEN)
        row = {"cell": cell, "weights": weights, **gates.reindex([(weights, "words")]).iloc[0]}
        row |= {"rate": find("decades_per_step_tokens"), "end": find("log10_at_end")}
        row |= ends.reindex([(padded, cell)]).iloc[0].to_dict()
        row["reach"] = reached.get((cell, weights), math.nan)
        rows.append(row | scores.get((cell, weights), {"accuracy": None}))
    return rows


def gates_hold_less(results: Results, weights: str) -> bool:
    """Tell whether the forget gates alone would lose more of the gradient on words than is lost."""
    if "paths" not in results.evidence:
        return False
    on_words = results.evidence["paths"].query("weights == @weights and input == 'words'")
    total, cell_path = on_words[["total", "cell_path"]].mean()
    return bool(total > cell_path + SAME_RATE * abs(cell_path))


def swing(results: Results) -> dict[str, float] | None:
    """Find how far the state still swings on padding where the trained RNN's gradient is kept."""
    if "powers" not in results.evidence:
        return None
    trained = results.evidence["powers"].query("weights == 'trained' and input == 'padding'")
    steady = trained.query("abs(measured) < @STEADY and last_move > @SWING")
    if len(steady) <= len(trained) / 2:
        return None
    return {"models": len(steady), "of": len(trained), "move": steady["last_move"].max()}


def plot_tables(results: Results) -> dict[str, pd.DataFrame]:
    """Small tables for `dvc plots`, a column per cell: conditions by step, accuracy by epoch."""
    curves = results.condition_curves
    curves = curves[curves["condition"].isin(PLOTTED) & thinned(curves["step"], PLOT_STEPS)]
    by_condition = curves.groupby("condition", sort=False)
    by_weights = results.history.query("split == 'validation'").groupby("weights", sort=False)
    return {name: own.pivot_table("log10", "step", "cell") for name, own in by_condition} | {
        f"accuracy_{weights}": own.pivot_table("accuracy", "epoch", "cell")
        for weights, own in by_weights
    }


def metrics_summary(results: Results, claims: Sequence[Claim]) -> dict[str, Any]:
    """For `dvc metrics`: verdicts; conditions.csv by condition and cell; test metrics by model."""
    verdicts = Counter(claim.verdict for claim in claims)
    counts = {verdict.replace(" ", "_"): verdicts[verdict] for verdict in get_args(Verdict)}
    summary: dict[str, Any] = {"claims": counts, "conditions": {}}
    for row in results.conditions.drop(columns="factor").to_dict("records"):
        condition, cell = row.pop("condition"), row.pop("cell")
        numbers = {k: v for k, v in row.items() if math.isfinite(v)}
        summary["conditions"].setdefault(condition, {})[cell] = numbers
    for (cell, weights), scores in test_scores(results).items():
        means = {name: score["mean"] for name, score in scores.items()}
        summary.setdefault(cell, {})[weights] = {"test": means}
    return summary
