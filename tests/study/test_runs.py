"""Which runs the study has, and what conditions read from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rnngrad.errors import InputError
from rnngrad.params import Params
from rnngrad.study.runs import Run, condition_jobs, conditions_of, job_name, probe_jobs

MakeParams = Callable[..., Params]
BUILD = Path("build")


def runs(params: Params) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for condition in conditions_of(params):
        found.setdefault(condition.name, []).append(condition.run)
    return found


def test_conditions_of_equal_runs_are_measured_once(make_params: MakeParams) -> None:
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


def test_one_more_condition_adds_its_own_jobs_alone(make_params: MakeParams) -> None:
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


def test_what_changes_nothing_in_a_run_is_no_part_of_it(make_params: MakeParams) -> None:
    cases = {"question": {}, "biased": {"cells": ["rnn", "lstm"], "forget_bias": 3.0}}
    found = runs(make_params(cases))
    by_cell = {cell: [r for r in found["biased"] if r.cell == cell] for cell in ("rnn", "lstm")}
    assert {*by_cell["rnn"]} <= {*found["question"]}
    assert not {*by_cell["lstm"]} & {*found["question"]}
    assert job_name(by_cell["rnn"][0], "log") in condition_jobs(make_params(cases), BUILD)


def test_trained_models_of_a_cell_that_nobody_trained_are_left_out(
    make_params: MakeParams,
) -> None:
    params = make_params({"trained": {"weights": "trained", "cells": ["rnn", "gru"]}})
    params = params.model_copy(update={"cells": {"rnn": {"seeds": [7, 8, 9]}}})
    found = runs(params)["trained"]
    assert [(run.cell, run.seed) for run in found] == [("rnn", 7), ("rnn", 8), ("rnn", 9)]


def test_trained_models_read_all_features_also_where_the_question_s_are_sliced(
    make_params: MakeParams,
) -> None:
    case = {"weights": "trained", "cells": ["rnn"]}
    found = runs(make_params({"trained": case, "question": {}}, sliced_input=True, units=3))
    assert found["trained"][0].features is None
    assert found["question"][0].features == 3


def test_one_more_seed_adds_its_two_models_alone(make_params: MakeParams) -> None:
    params = make_params({"question": {}})
    few, more = (
        params.model_copy(update={"train": params.train.model_copy(update={"seeds": seeds})})
        for seeds in ([1, 2], [1, 2, 5])
    )
    before, after = probe_jobs(few, "lstm", BUILD), probe_jobs(more, "lstm", BUILD)
    assert list(before) == ["init-1", "trained-1", "init-2", "trained-2", "tutorial"]
    assert {*after} - {*before} == {"init-5", "trained-5"}
    assert all(after[name] == job for name, job in before.items())
    assert "tutorial" not in probe_jobs(few, "rnn", BUILD)


def test_contradictions_in_a_case_are_named(make_params: MakeParams) -> None:
    for change, words in (
        ({"initializer": "identity"}, "identity is made for relu RNNs"),
        ({"initializer": "chrono", "cells": ["rnn"]}, "chrono is made for LSTMs"),
        ({"statistic": "spectral", "arithmetic": "float32"}, "computed with arithmetic log only"),
        ({"state_nonlinearity": "sigmoid"}, "untrained LSTMs only"),
        ({"unknown": 1}, "conditions.cases.q.unknown: unknown key"),
    ):
        with pytest.raises(InputError, match=words):
            make_params({"q": change}).conditions.setting_of("q")
