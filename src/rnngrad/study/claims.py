"""Eleven statements of the question and of three tutorials, judged by the study's tables.

Each function goes from tables to numbers and a verdict. It gives None where params.yaml does
without the cells, seeds or conditions that it needs. The tables are those of
:class:`~rnngrad.study.results.Results`. Words stand in ``rnngrad/report/templates/claims/``.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd

from rnngrad.intervals import Interval, mean_interval
from rnngrad.plot import FLOAT32_NORMAL
from rnngrad.study import CLIP_NORM, WEIGHTS
from rnngrad.study.results import Results

Verdict = Literal["holds", "holds only if", "does not hold"]
Ruling = tuple[object, object, str]  # whether it holds, whether under a condition, and which one

QUESTION, TUTORIAL_1, TUTORIAL_2, TUTORIAL_3 = "question", "tutorial 1", "tutorial 2", "tutorial 3"
CASE = ["weights", "input"]

# The criteria's thresholds; the report shows them from here.
SHARP = 1.0  # claim 1, decades
VANISHED = 3.0  # for the answer, decades
COMPARED = {  # claim 2, by condition: the part of the question's setting that it does without
    "question": "",
    "no_padding": "padding",
    "torch_initializer": "this initialiser",
    "trained": "untrained weights",
    "trained_without_padding_on_padding": "padding in training",
}
EPOCHS = 10  # claim 3, so many says the claim
SAME_RATE = 0.1  # claim 4, of the cell path's rate
MUCH = 0.1  # claim 5, of the summed norms
TENTH = 10  # claim 5, steps: fewer have no last tenth
CLOSE, CLOSE_SHARE = 0.005, 0.1  # claim 6, decades per step, or of the measured rate
LINEAR = 0.95  # claim 6, mean slope of tanh
AGREEMENT = 0.04  # claim 7, decades
ROUGHLY, GATES_AT = 0.5, 20  # claim 7, decades at so many steps
ROUNDING = 1e-6  # claim 8, beside CLIP_NORM
BIASES = ("question", "forget_bias_0", "forget_bias_3")  # claim 9, conditions
FADED = -1.0  # claim 9, log10 of a tenth
OPEN = 0.98  # claim 9, edge of the histogram's last bin
CANCELLED = 0.1  # claim 10, decades
VARIES = 0.01  # claim 11, standard deviation of an activation between 0 and 1
ONE_TANH = 0.01  # claim 11, factors per step


@dataclass(frozen=True)
class Claim:
    """A claim as ``reports/claims.json`` holds it."""

    id: int  # 1 to 11
    source: str  # who says so
    verdict: Verdict
    condition: str | None  # completes "holds only ..."; None with any other verdict
    measured: dict[str, float]  # by names such as "init/padding/total/mean"
    interval: Interval | None  # the deciding number's; None where that is an exact zero


def judge_all(results: Results) -> list[Claim]:
    """Every claim that the cells and conditions of params.yaml allow to judge, by its number."""
    seeds, evidence = results.condition_seeds, results.evidence
    epochs = {cell: results.params.train_of(cell).epochs for cell in results.cells}
    judged = [
        sharp_fall(seeds),
        rnn_is_better(seeds),
        lstm_wins(results.tests, epochs),
        late_steps(evidence["shares"]),
        blocking(evidence["influences"]),
        forget_bias(seeds, results.gates, _biases(results)),
    ]
    if "powers" in evidence:
        judged += [powers_of_w(evidence["powers"])]
    if "paths" in evidence:  # an LSTM's alone
        judged += [claim(evidence["paths"]) for claim in (gate_rate, one_path, varying_gates)]
        judged += [output_gate_path(evidence["output_gates"])]
    return sorted(filter(None, judged), key=lambda claim: claim.id)


def sharp_fall(seeds: pd.DataFrame) -> Claim | None:
    """Claim 1: a sharp fall over 20 steps, an exact zero at the end, a sign of vanishing?"""
    lstm = seeds[seeds["cell"] == "lstm"].dropna(subset=["log10_at_20"])
    true, flushed = (lstm[lstm["condition"] == name] for name in ("question", "float32_flushed"))
    if true.empty or flushed.empty:
        return None
    end, flushed_end = true["log10_at_end"], flushed["log10_at_end"]
    falls = (true["log10_at_20"] <= -SHARP).all()
    vanished = falls and np.isneginf(flushed_end).all() and (end < FLOAT32_NORMAL).all()
    condition = "in float32 that flushes to zero, as far as exact zeros go"
    ruling = falls and np.isneginf(end).all(), vanished, condition
    measured = {
        "log10_at_20": _interval(true, "log10_at_20"),
        "true": _ends(end),
        "flushed": _ends(flushed_end) | {"zero_from": flushed["float32_zero_from"].median()},
    }
    interval = _interval(true, "log10_at_end") if np.isfinite(end).all() else None
    return _claim(1, QUESTION, ruling, measured, interval)


def _ends(values: pd.Series) -> dict[str, Any]:
    zeros = np.isneginf(values)
    return {"log10_at_end": values[~zeros].mean(), "exact_zeros": zeros.sum(), "seeds": len(values)}


def rnn_is_better(seeds: pd.DataFrame) -> Claim | None:
    """Claim 2: do the RNN's gradients behave better than the LSTM's?"""
    # an exact zero has no logarithm to compare
    finite = seeds[np.isfinite(seeds["log10_at_end"])]
    leads = {
        name: lead
        for name in COMPARED
        if (lead := _difference(finite[finite["condition"] == name], "log10_at_end", "rnn", "lstm"))
    }
    if "question" not in leads:
        return None
    turned = [COMPARED[name] for name, lead in leads.items() if _sign(lead) < 1]
    if "untrained weights" in turned and "padding in training" in turned:
        turned.remove("padding in training")  # only trained weights have it
    ruling = not turned, _sign(leads["question"]) > 0, f"with {_listed(turned)}"
    return _claim(2, QUESTION, ruling, leads, leads["question"])


def lstm_wins(tests: pd.DataFrame, epochs: Mapping[str, int]) -> Claim | None:
    """Claim 3: does the LSTM beat the RNN in loss and accuracy?"""
    scores: dict[str, Any] = {}
    wins, ahead = [], []
    for weights, models in tests.groupby("weights", sort=False):
        accuracy, loss = (_difference(models, name, "lstm", "rnn") for name in ("accuracy", "loss"))
        if accuracy is None or loss is None:
            return None
        scores[str(weights)] = {"accuracy": accuracy, "loss": loss}
        better = ["accuracy"] * (_sign(accuracy) > 0) + ["loss"] * (_sign(loss) < 0)
        wins.append(len(better) == 2)
        what = "" if wins[-1] else "".join(f"the {name} of " for name in better)
        ahead += [f"in {what}{_models(weights)}"] if better else []
    trained = {cell: epochs[cell] for cell in ("rnn", "lstm")}
    least = min((each["accuracy"] for each in scores.values()), key=lambda lead: lead["mean"])
    fewer = {*trained.values()} != {EPOCHS}
    numbers = _listed([*dict.fromkeys(map(str, trained.values()))])
    after = [f"after {numbers} epoch{'s' * (numbers != '1')}"] * fewer
    condition = ", ".join([*after, *[_listed(ahead)] * (not all(wins))])
    ruling = all(wins) and not fewer, ahead, condition
    return _claim(3, QUESTION, ruling, {"scores": scores, "epochs": trained}, least)


def gate_rate(paths: pd.DataFrame) -> Claim | None:
    """Claim 4: does the gradient decay at the forget gate's rate?"""
    known = paths.dropna(subset=["total", "cell_path"])
    if known.empty:
        return None
    known = known.assign(off=known["total"] - known["cell_path"])
    means = known.groupby(CASE, sort=False)[["total", "cell_path"]].mean()
    off = (means["total"] - means["cell_path"]).abs() / means["cell_path"].abs()
    same = off <= SAME_RATE
    rates = ["cell_path", "hidden_path", "zero_state_rate", "settled_rate"]
    counts = {"at_rest": ("settled_rate", "count"), "models": ("settled_rate", "size")}
    at_rest = _rows(paths.groupby(CASE).agg(**counts))
    measured = _numbers(_by_case(known, "total", rates)) | _numbers(at_rest)
    ruling = same.all(), same.any(), _with_cases(same)
    return _claim(4, TUTORIAL_3, ruling, measured, _interval(known, "off", off.idxmax()))


def late_steps(shares: pd.DataFrame) -> Claim | None:
    """Claim 5: do later steps dominate the weight gradient much more in an RNN?"""
    measured: dict[str, Any] = {"steps": shares["steps"].max()}
    much, difference = [], None
    by_weights = shares.groupby("weights", sort=False)
    for weights, chosen in by_weights:
        difference = _difference(chosen, "late_share", "rnn", "lstm")
        if difference is None or chosen["steps"].min() < TENTH:
            return None
        means = chosen.groupby("cell")[["late_share", "steps_of_most"]].mean()
        measured[str(weights)] = {"difference": difference} | _rows(means.loc[["rnn", "lstm"]])
        if _sign(difference) > 0 and difference["mean"] >= MUCH:
            much.append(_models(weights))
    ruling = len(much) == len(by_weights), much, f"in {_listed(much)}"
    return _claim(5, TUTORIAL_1, ruling, measured, difference)


def powers_of_w(powers: pd.DataFrame) -> Claim | None:
    """Claim 6: is the RNN's gradient governed by powers of W?"""
    known = powers.dropna(subset=["measured"])
    if known.empty:
        return None
    off, size = known["measured"] - known["predicted"], known["measured"].abs()
    known = known.assign(distance=off.abs(), size=size)
    means = known.groupby(CASE, sort=False)[["distance", "size", "tanh_slope"]].mean()
    close = (means["distance"] <= CLOSE) | (means["distance"] <= CLOSE_SHARE * means["size"])
    linear = means["tanh_slope"] >= LINEAR
    kernel = ["spectral_radius", "largest_singular_value", "predicted"]
    measured = _by_case(known, "measured", [*kernel, "tanh_slope", "last_move", "distance"])
    ruling = close.all(), linear.any() and close[linear].all(), "where tanh is linear"
    interval = _interval(known, "distance", means["distance"].idxmax())
    return _claim(6, TUTORIAL_3, ruling, measured, interval)


def blocking(influences: pd.DataFrame) -> Claim | None:
    """Claim 7: is what gates block forwards blocked backwards?"""
    lstm = influences[influences["cell"] == "lstm"].dropna(subset=["backward_difference"])
    moves = lstm["perturbation"].agg(["min", "max"])
    small = lstm[lstm["perturbation"] == moves["min"]]
    at = small[small["lag"] == GATES_AT]
    if at.empty or moves["min"] == moves["max"]:  # it takes moves of both sizes
        return None
    means = lstm.pivot_table("backward_difference", ["weights", "lag"], "perturbation")
    apart = means.groupby("weights").max().set_axis(["small_moves", "large_moves"], axis=1)
    found = at.groupby("weights")[["gates_difference", "gates_correlation"]].mean().join(apart)
    off, agrees = found["gates_difference"], found["small_moves"].max() <= AGREEMENT
    measured = {
        "lags": {"first": small["lag"].min(), "last": small["lag"].max(), "gates": at["lag"].max()},
        "moves": {"small": moves["min"], "large": moves["max"]},
        **_rows(found),
    }
    condition = "with all paths counted, not the gates alone"
    ruling = agrees and (off <= ROUGHLY).all(), agrees, condition
    interval = _interval(at[at["weights"] == off.idxmax()], "gates_difference")
    return _claim(7, TUTORIAL_3, ruling, measured, interval)


def output_gate_path(output_gates: pd.DataFrame) -> Claim | None:
    """Claim 8: can the LSTM explode through the output gates, and does clipping bound the step?"""
    # zero cannot be clipped, and a path that is exactly zero has no rate
    clipped = output_gates.query("gradient_norm > 0").dropna(subset=["clipped_norm"])
    if clipped.empty or np.isneginf(output_gates["path_rate"]).any():
        return None
    # the factors of W_o were tried in their order until the path grew
    scaled = output_gates.sort_values("factor").groupby(["weights", "seed"]).tail(1)
    scaled = scaled.assign(grows=(scaled["path_rate"] > 0) & (scaled["total_rate"] > 0))
    groups = scaled.groupby("weights")
    by_weights = groups["factor"].agg(lowest="min", highest="max")
    by_weights = by_weights.join(groups[["path_rate", "total_rate"]].mean())
    by_weights["grows"] = groups["grows"].all()
    as_it_is = output_gates[output_gates["factor"] == 1].groupby("weights")
    rates = {weights: _interval(rows, "path_rate") for weights, rows in as_it_is}
    bounds = _rows(as_it_is[["bound_rate", "ceiling_rate"]].mean())
    longest = clipped.nlargest(1, "gradient_norm")[["gradient_norm", "clipped_norm"]].iloc[0]
    cosine = clipped["cosine"].min()
    # clipping bounds the step, and turns none
    clips = clipped["clipped_norm"].max() <= CLIP_NORM + ROUNDING and cosine >= 1 - ROUNDING
    early_to_late = clipped.query("factor == 1")["log10_early_to_late"].mean()
    measured = {
        "path": {w: {"rate": rate} | bounds[w] for w, rate in rates.items()},
        "scaled": _rows(by_weights),
        "clipping": {**longest, "smallest_cosine": cosine, "log10_early_to_late": early_to_late},
    }
    growing = [
        f"times {' to '.join(map(str, ends.unique()))} in {_models(weights)}"
        for weights, ends in by_weights.query("grows")[["lowest", "highest"]].iterrows()
    ]
    explodes = any(_sign(rate) > 0 for rate in rates.values())
    ruling = clips and explodes, clips and growing, f"with W_o {_listed(growing)}"
    fastest = max(rates.values(), key=lambda rate: rate["mean"])
    return _claim(8, TUTORIAL_3, ruling, measured, fastest)


def _biases(results: Results) -> dict[str, float]:
    """The forget biases of the conditions of `BIASES`, smallest first; of equal ones the first."""
    conditions = results.params.conditions
    settings = {name: conditions.setting_of(name) for name in BIASES if name in conditions.cases}
    found = {own.forget_bias: name for name, own in reversed(settings.items())}
    if any(own.initializer != "keras" for own in settings.values()):
        return {}  # such an initializer takes no forget bias
    return {found[bias]: bias for bias in sorted(found)}


def forget_bias(
    seeds: pd.DataFrame, gates: pd.DataFrame, biases: Mapping[str, float]
) -> Claim | None:
    """Claim 9: is vanishing slower but still there unless all forget gates are 1?

    biases: of conditions, the smallest first.
    """
    lstm = seeds[seeds["cell"] == "lstm"]
    pairs = [(lstm, "log10_at_end", more, less, "condition") for less, more in pairwise(biases)]
    steps = [_difference(*pair) for pair in pairs]
    by_condition = dict(list(lstm.groupby("condition")))
    names = [name for name in (*biases, "chrono") if name in by_condition]
    # an exact zero has no logarithm to compare
    known = all(np.isfinite(by_condition[name]["log10_at_end"]).all() for name in names)
    if not steps or None in steps or not known:
        return None
    ends = {name: _interval(by_condition[name], "log10_at_end") for name in names}
    measured = {"log10_at_end": ends, "gates": _rows(openness(gates[gates["cell"] == "lstm"]))}
    grows = all(_sign(step) > 0 for step in steps)
    faded = [name for name, end in ends.items() if (end["high"] or 0) <= FADED]
    less = _listed([f"{biases[name]:g}" for name in faded if name in biases])
    ruling = grows and faded == names, grows and less, f"with a forget bias of {less}"
    slowest = max(ends.values(), key=lambda end: end["mean"])
    return _claim(9, TUTORIAL_3, ruling, measured, slowest)


def openness(gates: pd.DataFrame, above: float = OPEN) -> pd.DataFrame:
    """By weights and input, how open a cell's gates are: mean, and open, the share that is."""
    opened = gates.assign(open=gates["share"].where(gates["activation"] > above, 0.0))
    by_seed = opened.groupby([*CASE, "seed"], sort=False)
    found = by_seed.agg({"mean": "first", "open": "sum"})
    return found.groupby(level=[0, 1], sort=False).mean()


def one_path(paths: pd.DataFrame) -> Claim | None:
    """Claim 10: is one path enough along which the gradient does not vanish, or do paths cancel?"""
    rates = ["cell_path", "hidden_path"]
    if paths[rates].isna().all(axis=None):
        return None
    cases = paths.groupby(CASE, sort=False)
    lost, means = cases["below_largest_path"].max(), cases[rates].mean()
    together, slowest = lost <= CANCELLED, float(np.nanmax(means.to_numpy()))
    measured = {"slowest": slowest, "cases": _rows(means.assign(below_largest_path=lost))}
    none = "where there is such a path, of which none was found"
    some = none if slowest < 0 else _with_cases(together)
    ruling = together.all() and slowest >= 0, together.any(), some
    interval = _interval(paths, "below_largest_path", lost.idxmax())
    return _claim(10, TUTORIAL_3, ruling, measured, interval)


def varying_gates(paths: pd.DataFrame) -> Claim | None:
    """Claim 11: is no factor multiplied over and over, and is there only one tanh?"""
    spread = paths.groupby(CASE, sort=False)["gate_std"].mean().dropna()
    words = spread[spread.index.get_level_values("input") == "words"]
    if words.empty:
        return None
    passed = paths["tanh_factors"].abs().groupby([paths[name] for name in CASE]).mean().dropna()
    one_tanh = len(passed) > 0 and (passed <= ONE_TANH).all()
    gates_vary, on_words = (spread > VARIES).all(), (words > VARIES).all()
    ruling = gates_vary and one_tanh, on_words, "on words, for the gates alone"
    measured = _by_case(paths, "tanh_factors", ["gate_std", "log10_tanh_factor"])
    interval = _interval(paths, "gate_std", words.idxmin())
    return _claim(11, TUTORIAL_2, ruling, measured, interval)


def _claim(
    number: int, source: str, ruling: Ruling, measured: dict[str, Any], interval: Interval | None
) -> Claim:
    holds, sometimes, condition = ruling
    verdict: Verdict = "holds" if holds else "holds only if" if sometimes else "does not hold"
    only = condition if verdict == "holds only if" else None
    return Claim(number, source, verdict, only, _numbers(measured), interval)


def _numbers(measured: dict[str, Any]) -> dict[str, float]:
    """Nested numbers by the paths of their names; what is missing or infinite is left out."""
    (flat,) = pd.json_normalize(measured, sep="/").to_dict("records")
    known = {str(k): v for k, v in flat.items() if v is not None and math.isfinite(v)}
    return {k: int(v) if isinstance(v, int) else float(f"{v:.6g}") for k, v in known.items()}


def _rows(table: pd.DataFrame) -> dict[Any, Any]:
    """The rows of a table by their index, such as "trained" or "trained/words"."""
    names = ["/".join(name) if isinstance(name, tuple) else name for name in table.index]
    return table.set_axis(names).to_dict("index")


def _by_case(frame: pd.DataFrame, column: str, means: list[str]) -> dict[str, Any]:
    """By "weights/input", the interval of one column and the means of others."""
    cases = frame.groupby(CASE, sort=False)
    found = _rows(cases[means].mean())
    for name, (_, rows) in zip(found, cases, strict=True):
        if rows[column].notna().any():
            found[name][column] = _interval(rows, column)
    return found


def _with_cases(chosen: pd.Series) -> str:
    index = chosen.index[chosen]
    return _listed([f"on {kind} in {_models(weights)}" for weights, kind in index])


def _models(weights: Any) -> str:
    """Such as "untrained models"; those whose kernel is scaled are untrained, too."""
    return "untrained models" if weights == "init" else f"models {WEIGHTS[weights]}"


def _listed(parts: Sequence[str]) -> str:
    """Such as "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _interval(frame: pd.DataFrame, column: str, case: Hashable = None) -> Interval:
    """The interval of one number per seed, of all rows or a case's; NaN are left out."""
    rows = frame if case is None else frame.set_index(CASE).loc[[case]]
    return mean_interval(rows.sort_values("seed")[column].dropna().tolist())


def _difference(
    frame: pd.DataFrame, column: str, one: str, other: str, by: str = "cell"
) -> Interval | None:
    """The interval of ``one`` minus ``other`` over the seeds of both; None below two of these."""
    by_seed = frame.pivot_table(column, "seed", by).reindex(columns=[one, other]).dropna()
    differences = by_seed[one] - by_seed[other]
    return mean_interval(differences.tolist()) if len(differences) > 1 else None


def _sign(interval: Interval | None) -> int:
    """1 or -1 where the whole interval lies on that side of zero, else 0."""
    return ((interval["low"] or 0) > 0) - ((interval["high"] or 0) < 0) if interval else 0
