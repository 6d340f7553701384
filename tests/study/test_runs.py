"""The study has these runs, and conditions read from them."""

from pathlib import Path
from typing import Any

import pytest

from rnngrad.errors import InputError
from rnngrad.params import Params
from rnngrad.study.runs import Run, condition_jobs, conditions_of, job_name, probe_jobs
from tiny import make_params

BUILD = Path("build")


def runs(params: Params) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for condition in conditions_of(params):
        found.setdefault(condition.name, []).append(condition.run)
    return found


def test_conditions_of_equal_runs_are_measured_once() -> None:
    cases = {
        "question": {},
        "again": {"factor": "another name"},
        "spectral": {"statistic": "spectral"},
        "flushed": {"arithmetic": "float32_flushed"},
        "padding": {"padding": "none"},
    }
    params = make_params(cases)
    found = runs(params)
    assert found["question"] == found["again"] == found["spectral"] == found["flushed"]
    assert len({run for each in found.values() for run in each}) == 2 * 2 * 2  # padding, cell, seed
    jobs = condition_jobs(params, BUILD)
    # the true values of both paddings, and flushed ones of one
    assert len(jobs) == 3 * 2 * 2


def test_one_more_condition_adds_its_own_jobs_alone() -> None:
    cases: dict[str, dict[str, Any]] = {"question": {}}
    before = condition_jobs(make_params(cases), BUILD)
    same_run = condition_jobs(make_params(cases | {"halved": {"halved_mean": True}}), BUILD)
    assert same_run == before
    more = condition_jobs(make_params(cases | {"float32": {"arithmetic": "float32"}}), BUILD)
    assert {*more} > {*before}
    assert {arithmetic for name, (_, arithmetic, *_) in more.items() if name not in before} == {
        "float32"
    }
    assert all(more[name] == job for name, job in before.items())
    first = condition_jobs(make_params({"zero": {"initial_state": "zero"}} | cases), BUILD)
    assert all(first[name] == job for name, job in before.items())


def test_what_changes_nothing_in_a_run_is_no_part_of_it() -> None:
    cases = {"question": {}, "biased": {"cells": ["rnn", "lstm"], "forget_bias": 3.0}}
    found = runs(make_params(cases))
    by_cell = {cell: [r for r in found["biased"] if r.cell == cell] for cell in ("rnn", "lstm")}
    assert {*by_cell["rnn"]} <= {*found["question"]}
    assert not {*by_cell["lstm"]} & {*found["question"]}
    assert job_name(by_cell["rnn"][0], "log") in condition_jobs(make_params(cases), BUILD)


def test_trained_models_of_a_cell_that_nobody_trained_are_left_out() -> None:
    params = make_params({"trained": {"weights": "trained", "cells": ["rnn", "gru"]}})
    params = params.model_copy(update={"cells": {"rnn": {"seeds": [7, 8, 9]}}})
    found = runs(params)["trained"]
    assert [(run.cell, run.seed) for run in found] == [("rnn", 7), ("rnn", 8), ("rnn", 9)]


def test_models_read_padding_or_words_whatever_they_were_trained_with() -> None:
    ways = [(padding, reading) for padding in ("pre", "none") for reading in ("pre", "none")]
    cases = {
        f"{padding}_{reading}": {
            "weights": "trained",
            "trained_with": padding,
            "padding": reading,
            "cells": ["lstm"],
        }
        for padding, reading in ways
    }
    params = make_params(cases)
    found = {name: own[0] for name, own in runs(params).items()}
    assert [(run.input, run.padding) for run in found.values()] == [
        ("comments", "pre"),
        ("stream", "none"),
    ] * 2
    jobs = condition_jobs(params, BUILD)
    files = {name: jobs[job_name(run, "log")][3] for name, run in found.items()}
    for padding, reading in ways:
        train = jobs[job_name(found[f"{padding}_{reading}"], "log")][4]
        assert (train.padding, train.seeds) == ([padding], [1])
        file = BUILD / "train" / "lstm" / padding / "seed-1" / "trained-1.pt"
        assert files[f"{padding}_{reading}"] == file
    # models that nobody trained have no conditions
    train = params.train.model_copy(update={"padding": ["none"]})
    assert list(runs(params.model_copy(update={"train": train}))) == ["none_pre", "none_none"]


def test_trained_models_read_all_features_also_where_the_question_s_are_sliced() -> None:
    case = {"weights": "trained", "cells": ["rnn"]}
    found = runs(make_params({"trained": case, "question": {}}, sliced_input=True, units=3))
    assert found["trained"][0].features is None
    assert found["question"][0].features == 3


def test_one_more_seed_adds_its_models_alone() -> None:
    params = make_params({"question": {}})
    few, more = (
        params.model_copy(update={"train": params.train.model_copy(update={"seeds": seeds})})
        for seeds in ([1, 2], [1, 2, 5])
    )
    before, after = probe_jobs(few, "lstm", BUILD), probe_jobs(more, "lstm", BUILD)
    names = ["init", "trained", "trained_without_padding"]
    assert list(before) == [f"{name}-{seed}" for seed in (1, 2) for name in names] + ["tutorial"]
    assert {*after} - {*before} == {f"{name}-5" for name in names}
    assert all(after[name] == job for name, job in before.items())
    assert "tutorial" not in probe_jobs(few, "rnn", BUILD)


@pytest.mark.parametrize(
    ("padding", "readings"),
    [
        (["none", "pre"], {"init": "pre", "trained": "pre", "trained_without_padding": "none"}),
        (["pre"], {"init": "pre", "trained": "pre"}),
        (["none"], {"init": "none", "trained_without_padding": "none"}),
    ],
)
def test_a_probed_model_reads_as_it_was_trained(
    padding: list[str], readings: dict[str, str]
) -> None:
    params = make_params({"question": {}})
    train = params.train.model_copy(update={"seeds": [1], "padding": padding})
    jobs = probe_jobs(params.model_copy(update={"train": train}), "rnn", BUILD)
    assert {run.weights: run.padding for run, *_ in jobs.values()} == readings
    for run, _, _, predictions, file, _ in jobs.values():
        name = "init" if run.weights == "init" else "trained"
        assert file == BUILD / "train" / "rnn" / run.padding / "seed-1" / f"{name}-1.pt"
        assert predictions == (None if name == "init" else file.with_name("predictions.csv"))


def test_contradictions_in_a_case_are_named() -> None:
    for change, words in (
        ({"initializer": "chrono", "cells": ["rnn"]}, "chrono is made for lstm"),
        ({"statistic": "spectral", "arithmetic": "float32"}, "computed with arithmetic log only"),
        ({"state_nonlinearity": "sigmoid"}, "untrained LSTMs only"),
    ):
        with pytest.raises(InputError, match=words):
            make_params({"q": change}).conditions.setting_of("q")
