"""The study's curves against autograd, on padded comments of a small classifier."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import CommentClassifier
from rnngrad.models.weights import weight_file
from rnngrad.params import EmbedParams, ProbeParams, TrainParams
from rnngrad.study.probed import STATE, ProbedModel, summarize
from rnngrad.study.probing import initial_state, log_spaced_steps, probe_inputs, probe_model

D, H = 3, 5
LENGTHS = [4, 9, 6]
PROBE = ProbeParams(comments=3, initial_state="uniform", spectral_steps=5, seed=1)


def make_embed(padding: str) -> EmbedParams:
    return EmbedParams.model_validate(
        {
            "vectors": "corpus",
            "path": None,
            "dimensions": D,
            "vocabulary": "sample",
            "padding": padding,
            "max_length": 12,
        }
    )


def autograd_jacobian(
    module: torch.nn.RNNBase, inputs: Tensor, state: Tensor | tuple[Tensor, Tensor], t: int
) -> Tensor:
    """d s_t/d s_0 (H, H) of one example, by one reverse pass per row; s = c for an LSTM."""
    if isinstance(state, tuple):
        h, c = state

        def c_t(c_0: Tensor) -> Tensor:
            return module(inputs[:, :t], (h, c_0))[1][1].flatten()

        return torch.autograd.functional.jacobian(c_t, c).reshape(H, H)

    def h_t(h_0: Tensor) -> Tensor:
        return module(inputs[:, :t], h_0)[1].flatten()

    return torch.autograd.functional.jacobian(h_t, state).reshape(H, H)


@pytest.mark.parametrize("padding", ["pre", "post", "none"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_curves_equal_autograd(
    cell: str,
    padding: str,
    make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]],
    make_train_params: Callable[..., TrainParams],
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    train = make_train_params(seeds=[2], hidden=H)
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    model = CommentClassifier(cell, D, train)
    for weights in ("init", "trained"):
        torch.save(model.weights(), weight_file(tmp_path, weights, 2))
    inputs = probe_inputs(sample, vectors, make_embed(padding), PROBE)
    T = 9 if padding == "none" else 12
    assert inputs.inputs.shape == (3, T, D)
    probed = probe_model(cell, tmp_path, train, PROBE, inputs, 2, "init")
    state = initial_state(model.recurrent, 3, PROBE)
    module = model.recurrent.double()
    steps = log_spaced_steps(T, PROBE.spectral_steps)
    for b, length in enumerate(inputs.lengths.tolist()):
        own = inputs.inputs[b : b + 1].double()
        if isinstance(state, tuple):
            start = (state[0][:, b : b + 1].double(), state[1][:, b : b + 1].double())
        else:
            start = state[:, b : b + 1].double()
        for t in range(1, T + 1):
            found = {name: values[b, t - 1] for name, values in probed.log10.items()}
            if t > length:
                assert all(np.isnan(value) for value in found.values())
                continue
            J = autograd_jacobian(module, own, start, t)
            expected = {
                "column_sum": J.sum(dim=0).abs().mean().log10().item(),
                "frobenius": J.norm().log10().item(),
            }
            if t in steps:
                expected["spectral"] = torch.linalg.matrix_norm(J, 2).log10().item()
            for name, value in expected.items():
                assert found[name] == pytest.approx(value, abs=1e-4), (name, t)


def test_the_summarys_mean_survives_what_no_float_holds() -> None:
    values = np.array([[-400.0, -np.inf, 1.0], [-400.0 + np.log10(3), -np.inf, np.nan]])
    table = summarize("rnn", ProbedModel(1, "init", {"frobenius": values}, None))
    assert table["log10_mean"].tolist() == pytest.approx([-400 + np.log10(2), -np.inf, 1.0])
    assert table["examples"].tolist() == [2, 2, 1]
    assert table["state"].unique().tolist() == [STATE["rnn"]]
    assert {"cell", "seed", "weights", "statistic", "step", "log10_median"} <= {*table.columns}


def test_steps_are_log_spaced_with_the_milestones() -> None:
    steps = log_spaced_steps(1403, 60)
    assert steps[0] == 1
    assert steps[-1] == 1403
    assert {20, 100, 400, 1383} <= {*steps}
    assert log_spaced_steps(1, 60) == [1]
    assert isinstance(pd.Series(steps).max(), np.integer)
