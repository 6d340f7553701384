"""Conditions: what is read, run and measured, against autograd; and how it becomes a table."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import rnngrad
from rnngrad.data.batches import load_embedding
from rnngrad.errors import InputError
from rnngrad.params import Params, read_params
from rnngrad.study.conditions import measuring, table
from rnngrad.study.conditions.inputs import condition_inputs
from rnngrad.study.conditions.jobs import SMALLEST_NORMAL, distinct, jobs_of, tabulate
from rnngrad.study.probing import shared_state

ROOT = Path(__file__).parent.parent.parent
T, H, D = 24, 5, 4


def make_params(cases: dict[str, dict[str, Any]], **question: Any) -> Params:
    params = read_params(ROOT / "params.yaml")
    changed = params.conditions.model_copy(
        update={
            "seeds": [1, 2],
            "comments": 3,
            "streams": 2,
            "question": params.conditions.question.model_copy(
                update={"units": H, "steps": T} | question
            ),
            "cases": {name: {"factor": "some"} | case for name, case in cases.items()},
        }
    )
    return params.model_copy(update={"conditions": changed})


@pytest.fixture
def embed(tmp_path: Path, make_sample: Any) -> Path:
    sample, vectors = make_sample([3, 9, 5, 7, 30, 4], ["train", "test"], D)
    sample.save(tmp_path / "tokens.npz")
    np.save(tmp_path / "vectors.npy", vectors)
    return tmp_path


def run(params: Params, embed: Path) -> tuple[pd.DataFrame, dict[tuple[str, str], pd.Series]]:
    """Rows of seed 1, and its curves by condition and cell."""
    cases = jobs_of(params, D)
    jobs = distinct(job for case in cases.values() for job in case)
    measured = [measuring.measure_job(job, params, embed, Path("nowhere")) for job in jobs]
    rows, curves = tabulate(params, cases, measured)
    first = dict(reversed([((a, b), c) for a, b, c in curves]))
    return pd.DataFrame(rows).query("seed == 1"), first


def by_autograd(params: Params, embed: Path, cell: str) -> np.ndarray:
    """log10 of the mean over examples of mean_j |sum_i d s_t[i] / d s_0[j]|, (T,)."""
    job = jobs_of(params, D)["question"][0]._replace(cell=cell)
    sample, vectors = load_embedding(embed)
    examples = condition_inputs(job.setting, "pre", sample, vectors, params.conditions)
    module = measuring.module_of(job, D, params, Path()).double()
    state = shared_state(module, len(examples.inputs), "uniform", 1001)
    parts = [s.double() for s in (state if isinstance(state, tuple) else (state,))]
    denominator = parts[-1].requires_grad_()
    values = []
    for t in range(1, T + 1):
        start = tuple(parts) if len(parts) == 2 else parts[0]
        end = module(examples.inputs[:, :t].double(), start)[1]
        numerator = end[1] if isinstance(end, tuple) else end
        (gradient,) = torch.autograd.grad(numerator.sum(), denominator)
        values.append(gradient.abs().mean().log10().item())
    return np.array(values)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_question_s_statistic_is_what_autograd_gives(cell: str, embed: Path) -> None:
    params = make_params(
        {
            "question": {"cells": [cell]},
            "float64": {"cells": [cell], "arithmetic": "float64"},
            "halved": {"cells": [cell], "halved_mean": True},
        }
    )
    rows, curves = run(params, embed)
    expected = by_autograd(params, embed, cell)
    np.testing.assert_allclose(curves["question", cell], expected, atol=1e-12)
    recorded = curves["float64", cell]
    np.testing.assert_allclose(recorded, expected[recorded.index - 1], atol=1e-10)
    assert {*range(1, 21), T} <= {*recorded.index}
    np.testing.assert_allclose(curves["halved", cell], expected - np.log10(2), atol=1e-12)
    ends = rows.set_index("condition")["log10_at_end"]
    assert ends["question"] == pytest.approx(expected[-1], abs=1e-12)


def test_readings_of_one_model_are_run_once(embed: Path) -> None:
    params = make_params(
        {
            "question": {},
            "spectral": {"statistic": "spectral"},
            "flushed": {"arithmetic": "float32_flushed"},
            "padding": {"padding": "none"},
        }
    )
    cases = jobs_of(params, D)
    jobs = distinct(job for case in cases.values() for job in case)
    assert len(jobs) == 2 * 2 * 2  # settings, cells, seeds
    assert {len(job.readings) for job in jobs} == {3, 1}


def test_trained_models_of_a_cell_that_nobody_trained_are_left_out() -> None:
    params = make_params({"trained": {"weights": "trained", "cells": ["rnn", "gru"]}})
    params = params.model_copy(update={"cells": {"rnn": {"seeds": [7, 8, 9]}}})
    jobs = jobs_of(params, D)["trained"]
    assert [(job.cell, job.seed) for job in jobs] == [("rnn", 7), ("rnn", 8), ("rnn", 9)]


def test_trained_models_read_all_features_also_where_the_question_s_are_sliced() -> None:
    case = {"weights": "trained", "cells": ["rnn"]}
    params = make_params({"trained": case, "question": {}}, sliced_input=True, units=3)
    jobs = jobs_of(params, D)
    assert not jobs["trained"][0].setting.sliced_input
    assert jobs["question"][0].setting.sliced_input


def test_flushed_zeros_begin_where_autograd_s_do(embed: Path) -> None:
    """The forget gates are closed, and three units leave float32 within some hundred steps."""
    params = make_params({"question": {"cells": ["lstm"]}}, forget_bias=-8.0, units=3, steps=150)
    rows, curves = run(params, embed)
    found = int(rows["float32_zero_from"].item())
    job = jobs_of(params, D)["question"][0]
    sample, vectors = load_embedding(embed)
    examples = condition_inputs(job.setting, "pre", sample, vectors, params.conditions)
    module = measuring.module_of(job, D, params, Path())
    h, c = shared_state(module, 3, "uniform", 1001)
    assert torch.set_flush_denormal(True), "this processor cannot flush subnormal numbers"
    try:
        zero = []
        for t in range(1, 151):
            c0 = c.clone().requires_grad_()
            end = module(examples.inputs[:, :t], (h, c0))[1][1]
            zero.append(bool((torch.autograd.grad(end.sum(), c0)[0] == 0).all()))
    finally:
        torch.set_flush_denormal(False)
    assert found == zero.index(True) + 1
    assert all(zero[found - 1 :])
    assert curves["question", "lstm"][found] < -37


class SigmoidState(nn.Module):
    """The same recurrence for autograd."""

    def __init__(self, lstm: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        weights = [p.detach().to(dtype) for p in lstm.parameters()]
        self.W_ih, self.W_hh, self.b = weights[0], weights[1], weights[2] + weights[3]

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        for t in range(x.shape[1]):
            i, f, g, o = (x[:, t] @ self.W_ih.T + h @ self.W_hh.T + self.b).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.sigmoid()
        return c


def test_a_sigmoid_state_is_differentiated_as_autograd_does(embed: Path) -> None:
    case = {"cells": ["lstm"], "state_nonlinearity": "sigmoid"}
    params = make_params({"question": case})
    _, curves = run(params, embed)
    job = jobs_of(params, D)["question"][0]
    sample, vectors = load_embedding(embed)
    examples = condition_inputs(job.setting, "pre", sample, vectors, params.conditions)
    module = measuring.module_of(job, D, params, Path())
    h, c = (s[0].double() for s in shared_state(module, 3, "uniform", 1001))
    reference, c = SigmoidState(module, torch.float64), c.requires_grad_()
    for t in (1, 2, 9, T):
        end = reference(examples.inputs[:, :t].double(), h, c)
        (gradient,) = torch.autograd.grad(end.sum(), c)
        expected = gradient.abs().mean().log10().item()
        assert curves["question", "lstm"][t] == pytest.approx(expected, abs=1e-12)


Problem = tuple[nn.LSTM, Tensor, tuple[Tensor, Tensor]]


@pytest.fixture
def forgetful() -> Problem:
    """An LSTM whose forget gates are nearly closed, two examples of 150 steps and their states."""
    torch.manual_seed(0)
    module = nn.LSTM(D, 3, batch_first=True)
    with torch.no_grad():
        dict(module.named_parameters())["bias_ih_l0"][3:6] = -7.0
    return module, torch.randn(2, 150, D), (torch.rand(1, 2, 3), torch.rand(1, 2, 3))


@pytest.mark.parametrize("near", [1, 60, 149])
def test_the_first_zero_is_found_from_any_guess(near: int, forgetful: Problem) -> None:
    module, x, start = forgetful
    sums = rnngrad.autograd_column_sums(module, x, start, state="c", flush=True)
    zero = (sums == 0).all(axis=0).tolist()
    assert 10 < zero.index(True) + 1 < 149
    # the true curve passes the smallest normal number at `near`
    guess = np.where(np.arange(150) < near - 1, 0.0, -50.0)[None]
    found = measuring.float32_zero_from(module, x, start, "c", guess)
    assert found == zero.index(True) + 1


def test_there_is_no_first_zero_where_the_last_step_has_none(forgetful: Problem) -> None:
    module, x, start = forgetful
    for guess in (-50.0, 0.0):
        log10 = np.full((2, 9), guess)
        assert measuring.float32_zero_from(module, x[:, :9], start, "c", log10) is None


def test_costly_readings_are_taken_where_the_question_looked(embed: Path) -> None:
    """Its last 20 steps in float32 with flush-to-zero alone."""
    arithmetic = ("float32", "float32_flushed", "float64")
    cases = {name: {"cells": ["rnn"], "arithmetic": name} for name in arithmetic}
    params = make_params({"log": {"cells": ["rnn"]}} | cases, steps=60)
    rows, curves = run(params, embed)
    assert {*range(1, 21), *range(41, 61)} <= {*curves["float32_flushed", "rnn"].index}
    for name in arithmetic:
        recorded = curves[name, "rnn"]
        assert {*range(1, 21), 60} <= {*recorded.index}
        true = curves["log", "rnn"][recorded.index]
        np.testing.assert_allclose(recorded, true, atol=1e-5)
    assert len(curves["float32", "rnn"]) < len(curves["float32_flushed", "rnn"]) < 60
    rates = rows.set_index("condition")["decades_per_step_tokens"]
    assert rates["float64"] == pytest.approx(rates["log"], abs=1e-12)


def test_a_stream_has_no_padding_and_padded_comments_end_together(make_sample: Any) -> None:
    sample, vectors = make_sample([3, 9, 5, 7, 30, 4], ["train", "test"], D)
    setting = make_params({"q": {}}).conditions.setting_of("q")
    conditions = make_params({"q": {}}).conditions.model_copy(update={"comments": 9})
    stream = condition_inputs(setting, "none", sample, vectors, conditions)
    assert stream.inputs.shape == (2, T, D)
    assert (stream.inputs != 0).any(dim=2).all()
    assert not torch.equal(stream.inputs[0], stream.inputs[1])
    padded = condition_inputs(setting, "pre", sample, vectors, conditions)
    assert [len(words) for words in padded.words] == [9, 7, 4]
    for row, words in zip(padded.inputs, padded.words, strict=True):
        assert words.stop == T
        assert (row != 0).any(dim=1).tolist() == [t in words for t in range(T)]
    behind = condition_inputs(setting, "post", sample, vectors, conditions)
    assert [words.start for words in behind.words] == [0, 0, 0]
    assert torch.equal(behind.inputs[0, :9], padded.inputs[0, -9:])


def test_inputs_that_are_no_comments(make_sample: Any) -> None:
    sample, vectors = make_sample([3, 9], ["test"], D)
    params = make_params(
        {
            "emptied": {"input": "emptied_comments"},
            "tokens": {"input": "random_tokens", "steps": 6},
            "sliced": {"sliced_input": True, "units": 3},
        }
    ).conditions
    emptied = condition_inputs(params.setting_of("emptied"), "pre", sample, vectors, params)
    assert not emptied.inputs.any()
    tokens = condition_inputs(params.setting_of("tokens"), "pre", sample, vectors, params)
    assert tokens.inputs.shape == (3, 6, D)
    assert 0 < tokens.inputs.abs().max() <= 0.05
    sliced = condition_inputs(params.setting_of("sliced"), "pre", sample, vectors, params)
    assert sliced.inputs.shape[2] == 3


def test_identity_and_chrono_reach_the_module() -> None:
    params = make_params(
        {
            "identity": {"initializer": "identity", "cells": ["rnn"]},
            "chrono": {"initializer": "chrono", "cells": ["lstm"]},
        }
    )
    jobs = jobs_of(params, D)
    rnn = measuring.module_of(jobs["identity"][0], D, params, Path())
    assert isinstance(rnn, nn.RNN)
    assert rnn.nonlinearity == "relu"
    assert torch.equal(dict(rnn.named_parameters())["weight_hh_l0"], torch.eye(H))
    lstm = measuring.module_of(jobs["chrono"][0], D, params, Path())
    i, f, _, _ = dict(lstm.named_parameters())["bias_ih_l0"].chunk(4)
    assert torch.equal(i, -f)
    assert 0 <= f.min() < f.max() <= np.log(T - 1)


def test_rates_and_horizon_of_a_straight_line() -> None:
    steps = np.arange(1, 101)
    # 0.02 decades per step on 60 steps of padding, 0.1 on 40 words
    line = np.where(steps <= 60, -0.02 * steps, -1.2 - 0.1 * (steps - 60))[None]
    curve, numbers = table.curve_numbers(line, [range(60, 100)], 0.0, -np.inf, False, 77)
    assert numbers["decades_per_step_padding"] == pytest.approx(-0.02)
    assert numbers["decades_per_step_tokens"] == pytest.approx(-0.1)
    assert numbers["horizon"] == 50
    assert numbers["log10_at_20"] == pytest.approx(-0.4)
    assert numbers["log10_at_end"] == pytest.approx(-5.2)
    assert np.isnan(numbers["log10_at_400"])
    assert numbers["float32_zero_from"] == 77
    sparse = np.where(np.isin(steps, (1, 20, 40, 60, 80, 100)), line, np.nan)
    assert len(curve) == 100
    _, coarse = table.curve_numbers(sparse, [range(60, 100)], 0.0, -np.inf, False, None)
    assert coarse == pytest.approx(numbers | {"float32_zero_from": np.nan}, nan_ok=True)


def test_rates_stop_where_the_arithmetic_ends() -> None:
    line = np.maximum(-1.0 * np.arange(1, 101), -45.0)[None]
    smallest = SMALLEST_NORMAL["float32"]
    words = [range(100)]
    _, numbers = table.curve_numbers(line, words, 0.0, smallest, True, None)
    assert numbers["decades_per_step_tokens"] == pytest.approx(-1.0)
    assert np.isnan(numbers["decades_per_step_padding"])
    assert numbers["log10_at_20"] == pytest.approx(-20 - np.log10(2))


def test_the_median_over_seeds_keeps_never_apart_from_missing() -> None:
    row: dict[str, Any] = dict.fromkeys(table.NUMBERS, np.nan)
    names = {"condition": "a", "factor": "b", "cell": "rnn"}
    rows = [
        names | row | {"seed": seed, "log10_at_end": end, "horizon": h, "float32_zero_from": z}
        for seed, end, h, z in ((1, -1.0, 5, np.nan), (2, -3.0, 7, 9), (3, -np.inf, 8, np.nan))
    ]
    median = table.over_seeds(pd.DataFrame(rows)).iloc[0]
    assert median["log10_at_end"] == -3.0
    assert median["horizon"] == 7
    assert pd.isna(median["float32_zero_from"])
    assert np.isnan(median["log10_at_20"])


def test_contradictions_in_a_case_are_named() -> None:
    for change, words in (
        ({"initializer": "identity"}, "identity is made for relu RNNs"),
        ({"initializer": "chrono", "cells": ["rnn"]}, "chrono is made for LSTMs"),
        ({"statistic": "spectral", "arithmetic": "float32"}, "computed with arithmetic log only"),
        ({"state_nonlinearity": "sigmoid"}, "untrained LSTMs only"),
        ({"unknown": 1}, "conditions.cases.q.unknown: unknown key"),
    ):
        with pytest.raises(InputError, match=words):
            make_params({"q": change}).conditions.setting_of("q")
