"""Made-up results of a study, for a report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rnngrad.params import read_params
from rnngrad.study import TRAINED, WEIGHTS
from rnngrad.study.claims import Claim
from rnngrad.study.condition_tables import COUNTS, STEPS, over_seeds
from rnngrad.study.results import Results

ROOT = Path(__file__).parent.parent.parent
T = 500
METRICS = ("accuracy", "auroc", "f1", "loss")
ENDED = [f"log10_at_{step}" for step in (*STEPS, "end")]
RATES = ["decades_per_step_padding", "decades_per_step_tokens"]
NUMBERS = ["examples", *ENDED, "float32_zero_from", *RATES, "horizon"]


def make_curves(rate: dict[str, float]) -> pd.DataFrame:
    """Straight lines of ``rate`` decades per step: three seeds, both weights, all statistics."""
    parts = []
    for cell, decades in rate.items():
        statistics = ["column_sum", "frobenius", "spectral"] + ["cell_path"] * (cell == "lstm")
        for seed in (1, 2, 3):
            for weights in WEIGHTS:
                for statistic in statistics:
                    step = np.arange(1, T + 1)
                    log10 = decades * step + 0.01 * seed
                    names = {"cell": cell, "seed": seed, "weights": weights}
                    values = dict.fromkeys(
                        ("log10_mean", "log10_median", "log10_low", "log10_high"), log10
                    )
                    names |= {"state": "h", "statistic": statistic}
                    parts.append(pd.DataFrame({**names, "step": step, **values, "examples": 4}))
    return pd.concat(parts)


ENDS = {  # condition: log10 at the end of RNN and LSTM
    "question": (-3.0, -96.0),
    "float32_flushed": (-3.0, -np.inf),
    "float32": (-3.0, -44.9),
    "no_padding": (-150.0, -101.0),
    "trained": (-140.0, -36.0),
    "trained_without_padding": (-130.0, -26.0),
    "averaging_bug": (-3.3, -96.3),
}
TIMES = {
    "processor": "a chip",
    "cores": 3,
    "seconds": {"sample": 5.0, "train@rnn": 10.4, "train@lstm": 31.2},
}
CLAIMS = [
    Claim(
        id=1,
        source="question",
        verdict="does not hold",
        condition=None,
        measured={
            "log10_at_20/mean": -1.9,
            "true/log10_at_end": -96.0,
            "true/exact_zeros": 0,
            "true/seeds": 3,
            "flushed/exact_zeros": 3,
            "flushed/seeds": 3,
            "flushed/zero_from": 551,
        },
        interval=None,
    ),
    Claim(
        id=2,
        source="question",
        verdict="holds only if",
        condition="with padding",
        measured={
            "question/mean": 3.0,
            "question/low": 2.0,
            "question/high": 4.0,
            "no_padding/mean": -49.0,
            "no_padding/low": -50.0,
            "no_padding/high": -48.0,
        },
        interval={"mean": 3.0, "low": 2.0, "high": 4.0},
    ),
]


def make_condition_seeds() -> pd.DataFrame:
    rows = []
    for condition, ends in ENDS.items():
        for cell, end in zip(("rnn", "lstm"), ends, strict=True):
            for seed in (1, 2, 3):
                numbers = dict.fromkeys(NUMBERS, end)
                numbers["decades_per_step_padding"] = -0.001 if cell == "rnn" else -0.07
                numbers["decades_per_step_tokens"] = end / 1403
                numbers["float32_zero_from"] = 551 if end < -38 else np.nan
                numbers["examples"] = 4 if condition != "no_padding" else 2
                numbers["horizon"] = 9 if cell == "lstm" else np.nan
                names = {"condition": condition, "factor": "some", "cell": cell, "seed": seed}
                rows.append(names | numbers)
    return pd.DataFrame(rows)


def make_condition_curves() -> pd.DataFrame:
    step = np.arange(1, 1404)
    parts = []
    for condition, ends in ENDS.items():
        for cell, end in zip(("rnn", "lstm"), ends, strict=True):
            line = np.where(step > 551, end, -0.07 * step) if end == -np.inf else end * step / 1403
            names = {"condition": condition, "cell": cell}
            parts.append(pd.DataFrame({**names, "step": step, "log10": line}))
    return pd.concat(parts).assign(low=lambda c: c["log10"], high=lambda c: c["log10"])


def make_remembered() -> pd.DataFrame:
    rows = [
        (weights, cell, seed, distance, 0.9 - 0.001 * distance, -0.05 * distance)
        for weights in TRAINED.values()
        for cell in ("rnn", "lstm")
        for seed in (1, 2, 3)
        for distance in (3.0, 12.0, 40.0)
    ]
    columns = ["weights", "cell", "seed", "distance_median", "auroc", "log10_gradient"]
    return pd.DataFrame(rows, columns=columns)


def make_reach() -> pd.DataFrame:
    """A tenth is left after 10 words, of an LSTM's c after 20, and of untrained RNNs never."""
    rows = [
        (weights, cell, seed, state, distance, -distance / words)
        for weights in WEIGHTS
        for cell, state, words in (("rnn", "h", 10), ("lstm", "h", 5), ("lstm", "c", 20))
        for seed in (1, 2, 3)
        for distance in range(40 if (weights, cell) != ("init", "rnn") else 9)
    ]
    columns = ["weights", "cell", "seed", "state", "distance", "log10"]
    return pd.DataFrame(rows, columns=columns)


def make_powers(last_move: float, measured: float = 0.0) -> pd.DataFrame:
    trained = {("trained", "padding"): (last_move, measured)}
    rows = [
        (seed, weights, kind, *trained.get((weights, kind), (1.5, -0.1)))
        for seed in (1, 2, 3)
        for weights in ("init", "trained")
        for kind in ("padding", "words")
    ]
    return pd.DataFrame(rows, columns=["seed", "weights", "input", "last_move", "measured"])


HOSTILE = (
    "<script>document.title='run'</script>",
    "<img src=x onerror=document.title='run'>",
    "`</code><svg onload=document.title='run'>`|",
    "](javascript:document.title='run') ![x](http://127.0.0.1:9/x.png) $x_1^2$ \n# a heading\n",
)


def make_hostile(results: Results) -> Results:
    """The same with file names, filler, label, factor and condition that are HTML and Markdown."""
    params = results.params
    data = params.data.model_copy(update={"path": HOSTILE[1], "label": HOSTILE[2]})
    sample = params.sample.model_copy(update={"filler": HOSTILE[0]})
    embed = params.embed.model_copy(update={"path": HOSTILE[3]})
    filler = results.data_card["filler"] | {"word": HOSTILE[0]}
    conditions = pd.concat(
        [results.conditions, results.conditions[:1].assign(condition=HOSTILE[2])], ignore_index=True
    )
    changed = {
        "params": params.model_copy(update={"data": data, "sample": sample, "embed": embed}),
        "data_card": results.data_card | {"source": f"csv {HOSTILE[1]}", "filler": filler},
        "embed_card": results.embed_card | {"vectors": HOSTILE[3]},
        "conditions": conditions,
    }
    return replace(results, **changed)


def make_results() -> Results:
    """The results of a made-up study of an RNN and an LSTM with three seeds."""
    params = read_params(ROOT / "params.yaml")
    params = params.model_copy(update={"cells": {"rnn": {}, "lstm": {}}})
    words = {"mean": 68.0, "median": 36.0, "p90": 149.0, "p95": 225.0, "p99": 618.0, "max": 1403}
    counts = {"comments": 10, "classes": {"0": 5, "1": 5}, "words": words}
    epochs = pd.DataFrame(
        [
            (cell, weights, seed, epoch, split, 0.7 / epoch, 1 - 0.5 / epoch)
            for cell in params.cells
            for weights in TRAINED.values()
            for seed in (1, 2, 3)
            for epoch in (1, 2)
            for split in ("train", "validation")
        ],
        columns=["cell", "weights", "seed", "epoch", "split", "loss", "accuracy"],
    )
    gates = pd.DataFrame(
        [
            (kind, (i + 0.5) / 50, opened if i >= 45 else 0.02, mean, "lstm", 1, weights)
            for kind in ("padding", "words")
            for weights, mean, opened in zip(
                WEIGHTS, (0.5, 0.7, 0.8), (0.0, 0.02, 0.04), strict=True
            )
            for i in range(50)
        ],
        columns=["input", "activation", "share", "mean", "cell", "seed", "weights"],
    )
    card: dict[str, Any] = {
        "parameters": 1234,
        "test_comments": 300,
        "settings": params.train.model_dump(),
    }
    tests = pd.DataFrame(
        {"cell": cell, "weights": weights, "seed": seed, **dict.fromkeys(METRICS, score)}
        for cell in params.cells
        for weights in TRAINED.values()
        for seed, score in enumerate((0.85, 0.9, 0.95), 1)
    )
    return Results(
        params=params,
        curves=make_curves({"rnn": -0.001, "lstm": -0.1}),
        gates=gates,
        history=epochs,
        tests=tests,
        model_cards=dict.fromkeys(params.cells, card),
        data_card={
            "source": "demo",
            "given": counts,
            "sample": counts,
            "filler": {"word": "the", "words_replaced": 7, "comments_left_whole": 1},
        },
        embed_card={
            "vectors": "corpus",
            "dimensions": 100,
            "types": 50,
            "coverage_of_tokens": 0.99,
            "coverage_of_types": 0.9,
        },
        # as it is read from its file: missing steps are NaN
        conditions=over_seeds(make_condition_seeds()).astype(dict.fromkeys(COUNTS, float)),
        condition_seeds=make_condition_seeds(),
        condition_curves=make_condition_curves(),
        evidence={
            "remembered": make_remembered(),
            "reach": make_reach(),
            "powers": make_powers(0.0),
            "tutorial": pd.DataFrame(
                {"loss": [1, 2, 2], "step": [1, 1, 2], "norm": [0.4, 0.083, 0.19]}
            ),
        },
        triangles={
            (cell, weights): np.where(np.tri(9) > 0, -1.0 - i - 0.1 * j, np.nan).astype(np.float32)
            for i, cell in enumerate(params.cells)
            for j, weights in enumerate(WEIGHTS)
        },
    )
