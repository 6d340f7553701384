"""Influence of a state on later ones, against Jacobians and where the answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from ready import ready, words_alone
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from rnngrad.models.classifier import RECURRENT
from rnngrad.study.measures.influences import LARGE, SMALL, influences
from rnngrad.study.runs.open_model import State

B, T, D, H = 2, 12, 3, 4
X = torch.randn(B, T, D, generator=torch.Generator().manual_seed(1))


def make(cell: str) -> tuple[nn.RNNBase, State]:
    torch.manual_seed(0)
    module = RECURRENT[cell](D, H, batch_first=True)
    h, c = torch.rand(1, B, H), torch.rand(1, B, H)
    return module, (h, c) if cell == "lstm" else h


def at(table: pd.DataFrame, perturbation: float, lag: int) -> pd.Series:
    (row,) = np.flatnonzero((table["perturbation"] == perturbation) & (table["lag"] == lag))
    return table.iloc[row]


@pytest.mark.parametrize("cell", list(RECURRENT))
def test_small_moves_follow_the_gradient_and_the_module_is_left_alone(cell: str) -> None:
    module, start = make(cell)
    table = influences(ready(module, words_alone(X), start))
    assert table["lag"].unique().tolist() == [1, 2, 5, 10]
    small = table[table["perturbation"] == SMALL]
    assert (small["resolved"] == 1).all()
    assert (small["backward_difference"] < 1e-3).all()
    weights = list(module.parameters())
    assert all(w.dtype == torch.float32 and w.requires_grad for w in weights)
    pd.testing.assert_frame_equal(table, influences(ready(module, words_alone(X), start)))


@pytest.mark.parametrize("cell", list(RECURRENT))
def test_the_gradient_is_the_jacobian_along_the_direction(cell: str) -> None:
    """|J v| over all samples, with the full Jacobian of the module by autograd."""
    module, start = make(cell)
    found = at(influences(ready(module, words_alone(X), start)), SMALL, 10)
    module, inputs = module.double(), X.double()
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(8, H, generator=generator, dtype=torch.float64)
    v /= v.norm(dim=1, keepdim=True)
    # both steps k of both comments, then the same again in the second direction
    samples = [(b, k) for _ in range(2) for k in (0, T - 10) for b in range(B)]
    logs = []
    for (b, k), direction in zip(samples, v, strict=True):
        state = tree_map(lambda part, b=b: part[:, b : b + 1].double(), start)
        state = module(inputs[b : b + 1, :k], state)[1] if k else state
        logs.append((jacobian(module, inputs[b : b + 1, k : k + 10], state) @ direction).norm())
    expected = torch.stack(logs).log10()
    assert found["log10_backward"] == pytest.approx(np.median(expected.numpy()), abs=1e-3)


def jacobian(module: nn.RNNBase, inputs: Tensor, state: State) -> Tensor:
    if isinstance(state, tuple):
        h, c = state
        J = torch.autograd.functional.jacobian(lambda s: module(inputs, (h, s))[1][1], c)
    else:
        J = torch.autograd.functional.jacobian(lambda s: module(inputs, s)[1], state)
    assert isinstance(J, Tensor)
    return J.reshape(H, H)


def test_without_recurrent_weights_the_forget_gates_are_all_there_is() -> None:
    """Then c_t depends on c_k through the gates alone, linearly: a move of any size shows them."""
    module, start = make("lstm")
    with torch.no_grad():
        dict(module.named_parameters())["weight_hh_l0"].zero_()
    table = influences(ready(module, words_alone(X), start))
    assert set(table["perturbation"]) == {SMALL, LARGE}
    assert (table[["gates_difference", "backward_difference"]] < 1e-9).all(axis=None)
    assert (table["gates_correlation"] > 1 - 1e-9).all()


def test_what_is_lost_in_rounding_is_left_out() -> None:
    module, start = make("lstm")
    with torch.no_grad():
        dict(module.named_parameters())["weight_hh_l0"].zero_()
        dict(module.named_parameters())["bias_hh_l0"][H : 2 * H] = -30.0
    table = influences(ready(module, words_alone(X), start))
    closed = at(table, SMALL, 10)
    assert closed["resolved"] == 0
    assert closed[["log10_forward", "backward_difference", "gates_correlation"]].isna().all()


def test_an_rnn_has_no_gates() -> None:
    module, start = make("rnn")
    table = influences(ready(module, words_alone(X), start))
    assert table[["log10_gates", "gates_difference", "gates_correlation"]].isna().all(axis=None)
