"""The study's curves against autograd, on padded comments of a small classifier."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from rnngrad.models.classifier import CommentClassifier
from rnngrad.study.measures.curves import jacobian_curves, log_spaced_steps, over_comments
from rnngrad.study.runs.open_model import open_model
from tiny import make_run, make_sample, make_train_params

D, H = 3, 5
LENGTHS = [4, 9, 6]
SPECTRAL = 5


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


@pytest.mark.parametrize("padding", ["pre", "none"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_curves_equal_autograd(cell: str, padding: str, tmp_path: Path) -> None:
    train = make_train_params(hidden=H)
    torch.save(CommentClassifier(cell, D, train).state_dict(), tmp_path / "weights.pt")
    run = make_run(cell=cell, padding=padding, steps=12)
    model = open_model(run, make_sample(LENGTHS, ["test"], D), tmp_path / "weights.pt", train)
    T = 9 if padding == "none" else 12
    steps = log_spaced_steps(T, SPECTRAL)
    log10 = jacobian_curves(model, steps)
    assert {values.shape for values in log10.values()} == {(3, T)}
    module = model.module.double()
    for b, length in enumerate(model.inputs.lengths.tolist()):
        own = model.inputs.x[b : b + 1].double()
        start = tree_map(lambda part, b=b: part[:, b : b + 1].double(), model.start)
        for t in range(1, T + 1):
            found = {name: values[b, t - 1] for name, values in log10.items()}
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


def test_the_mean_over_comments_survives_what_no_float_holds() -> None:
    values = np.array([[-400.0, -np.inf, 1.0], [-400.0 + np.log10(3), -np.inf, np.nan]])
    table = over_comments(make_run(cell="rnn"), {"frobenius": values})
    assert table["log10_mean"].tolist() == pytest.approx([-400 + np.log10(2), -np.inf, 1.0])
    assert table["examples"].tolist() == [2, 2, 1]
    assert table["state"].unique().tolist() == ["h"]
    assert {"statistic", "step", "log10_median"} <= {*table.columns}


def test_quantiles_are_those_of_the_comments_that_reach_a_step() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(8, 3))
    values[5:, 2] = np.nan
    values[:2, 1] = -np.inf
    table = over_comments(make_run(), {"frobenius": values})
    for name, share in (("low", 0.1), ("median", 0.5), ("high", 0.9)):
        found = table[f"log10_{name}"]
        assert found[0] == pytest.approx(np.quantile(values[:, 0], share))
        assert found[2] == pytest.approx(np.quantile(values[:5, 2], share))
    assert table["log10_low"][1] == -np.inf
    assert table["log10_high"][1] == pytest.approx(np.quantile(values[:, 1], 0.9))


def test_steps_are_log_spaced_with_the_milestones() -> None:
    steps = log_spaced_steps(1403, 60)
    assert steps[0] == 1
    assert steps[-1] == 1403
    assert {20, 100, 400, 1383} <= {*steps}
    assert log_spaced_steps(1, 60) == [1]
    assert isinstance(pd.Series(steps).max(), np.integer)
