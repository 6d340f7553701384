"""The measurements of a run, against autograd."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ready import ready
from torch import nn

import rnngrad
from rnngrad.data.batches import load_embedding
from rnngrad.params import Params
from rnngrad.probe.cells import SigmoidStateLSTM
from rnngrad.study.condition_tables import tabulate
from rnngrad.study.measure_run import float32_zero_from, measure_run
from rnngrad.study.runs import condition_jobs, conditions_of
from rnngrad.study.runs.open_model import Inputs, Opened, open_model
from tiny import make_params, make_sample

T, D = 24, 4


@pytest.fixture
def embed(tmp_path: Path) -> Path:
    sample, vectors = make_sample([3, 9, 5, 7, 30, 4], ["train", "test"], D)
    sample.save(tmp_path / "tokens.npz")
    np.save(tmp_path / "vectors.npy", vectors)
    return tmp_path


def run(params: Params, folder: Path) -> tuple[pd.DataFrame, dict[tuple[str, str], pd.Series]]:
    """Rows of seed 1, and its curves by condition and cell."""
    one = params.conditions.model_copy(update={"seeds": [1]})
    params = params.model_copy(update={"conditions": one})
    for name, (own, arithmetic, _) in condition_jobs(params, folder).items():
        (folder / "runs" / name).mkdir(parents=True)
        measure_run(folder / "runs" / name, own, arithmetic, folder)
    rows, curves = tabulate(conditions_of(params), folder / "runs")
    groups = curves.set_index("step").groupby(["condition", "cell"])["log10"]
    return rows, {(str(a), str(b)): curve for (a, b), curve in groups}


def opened(params: Params, folder: Path, cell: str) -> Opened:
    """The question's run of seed 1."""
    found = next(c.run for c in conditions_of(params) if c.run.cell == cell)
    return open_model(found, load_embedding(folder))


def by_autograd(params: Params, folder: Path, cell: str) -> np.ndarray:
    """log10 of the mean over examples of mean_j |sum_i d s_t[i] / d s_0[j]|, (T,)."""
    _, module, _, inputs, state = opened(params, folder, cell)
    module = module.double()
    parts = [s.double() for s in (state if isinstance(state, tuple) else (state,))]
    denominator = parts[-1].requires_grad_()
    values = []
    for t in range(1, T + 1):
        start = tuple(parts) if len(parts) == 2 else parts[0]
        end = module(inputs.x[:, :t].double(), start)[1]
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


def test_a_norm_falls_from_that_of_the_identity(embed: Path) -> None:
    case = {"cells": ["rnn"], "input": "emptied_comments", "statistic": "frobenius"}
    rows, _ = run(make_params({"frobenius": case}), embed)
    found = rows.iloc[0]
    expected = (found["log10_at_end"] - np.log10(5) / 2) / T
    assert found["decades_per_step_padding"] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(found["decades_per_step_tokens"])


def test_flushed_zeros_begin_where_autograd_s_do(embed: Path) -> None:
    """The forget gates are closed, and three units leave float32 within some hundred steps."""
    params = make_params({"question": {"cells": ["lstm"]}}, forget_bias=-8.0, units=3, steps=150)
    rows, curves = run(params, embed)
    found = int(rows["float32_zero_from"].item())
    _, module, _, inputs, (h, c) = opened(params, embed, "lstm")
    assert torch.set_flush_denormal(True), "this processor cannot flush subnormal numbers"
    try:
        zero = []
        for t in range(1, 151):
            c0 = c.clone().requires_grad_()
            end = module(inputs.x[:, :t], (h, c0))[1][1]
            zero.append(bool((torch.autograd.grad(end.sum(), c0)[0] == 0).all()))
    finally:
        torch.set_flush_denormal(False)
    assert found == zero.index(True) + 1
    assert all(zero[found - 1 :])
    assert curves["question", "lstm"][found] < -37


def test_a_sigmoid_state_is_that_of_the_probe_s_module(embed: Path) -> None:
    params = make_params({"question": {"cells": ["lstm"], "state_nonlinearity": "sigmoid"}})
    _, curves = run(params, embed)
    _, module, _, inputs, start = opened(params, embed, "lstm")
    reference = SigmoidStateLSTM(D, module.hidden_size, batch_first=True)
    reference.load_state_dict(module.state_dict())
    log10 = rnngrad.jacobian_curves(reference, inputs.x, start, state="c").log10_column_sum
    expected = np.log10((10**log10).mean(axis=0))
    np.testing.assert_allclose(curves["question", "lstm"], expected, atol=1e-12)


@pytest.fixture
def forgetful() -> Opened:
    """An LSTM whose forget gates are nearly closed, two examples of 150 steps and their states."""
    module = nn.LSTM(D, 3, batch_first=True)
    with torch.no_grad():
        dict(module.named_parameters())["bias_ih_l0"][3:6] = -7.0
    inputs = Inputs(torch.randn(2, 150, D), [range(150)] * 2, torch.full((2,), 150))
    return ready(module, inputs, (torch.rand(1, 2, 3), torch.rand(1, 2, 3)))


@pytest.mark.parametrize("near", [1, 60, 149])
def test_the_first_zero_is_found_from_any_guess(near: int, forgetful: Opened) -> None:
    _, module, _, inputs, start = forgetful
    sums = rnngrad.autograd_column_sums(module, inputs.x, start, state="c", flush=True)
    zero = (sums == 0).all(axis=0).tolist()
    assert 10 < zero.index(True) + 1 < 149
    # the true curve passes the smallest normal number at `near`
    guess = np.where(np.arange(150) < near - 1, 0.0, -50.0)[None]
    assert float32_zero_from(forgetful, guess) == zero.index(True) + 1


def test_there_is_no_first_zero_where_the_last_step_has_none(forgetful: Opened) -> None:
    inputs = forgetful.inputs._replace(x=forgetful.inputs.x[:, :9])
    for guess in (-50.0, 0.0):
        assert float32_zero_from(forgetful._replace(inputs=inputs), np.full((2, 9), guess)) is None


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
