"""The shares against autograd, one copy of the module per step; the tutorial's own numbers."""

import copy

import numpy as np
import pytest
import torch
from ready import ready, words_alone
from torch import Tensor

from rnngrad.models.classifier import RECURRENT, CommentClassifier
from rnngrad.study.measures.shares import shares
from rnngrad.study.measures.tutorial import tutorial
from rnngrad.study.runs.open_model import State
from tiny import make_train_params

B, T, D = 3, 20, 3

X = torch.randn(B, T, D, generator=torch.Generator().manual_seed(1))


def norms_by_autograd(classifier: CommentClassifier, inputs: Tensor, state: State) -> np.ndarray:
    """(T,) norms of the parts of d logit/dW_hh: every step has weights of its own."""
    copies = [copy.deepcopy(classifier.recurrent).double() for _ in range(inputs.shape[1])]
    output = inputs
    for module, x in zip(copies, inputs.double().split(1, dim=1), strict=True):
        output, state = module(x, state)
    logit = classifier.head.double()(output[:, -1]).sum()
    weights = [dict(module.named_parameters())["weight_hh_l0"] for module in copies]
    return np.array([g.norm().item() for g in torch.autograd.grad(logit, weights)])


@pytest.mark.parametrize("cell", list(RECURRENT))
def test_shares_equal_autograds(cell) -> None:
    classifier = CommentClassifier(cell, D, make_train_params())
    h, c = torch.rand(1, B, 6), torch.rand(1, B, 6)
    start = (h, c) if cell == "lstm" else h
    table, triangle = shares(ready(classifier.recurrent, words_alone(X), start, classifier.head))
    assert table["comment"].tolist() == [0, 1]
    for comment, row in enumerate(table.to_dict("records")):
        one = slice(comment, comment + 1)
        of_one = (h[:, one].double(), c[:, one].double()) if cell == "lstm" else h[:, one].double()
        norms = norms_by_autograd(copy.deepcopy(classifier), X[one], of_one)
        assert row["steps"] == T
        assert row["late_share"] == pytest.approx(norms[-2:].sum() / norms.sum(), rel=1e-6)
        most = row["steps_of_most"]
        assert norms[-most:].sum() >= 0.9 * norms.sum() > norms[T - most + 1 :].sum()
        if comment == 0:
            expected = np.log10(norms / norms.max())
            np.testing.assert_allclose(triangle[-1], expected, atol=1e-5)


def test_a_triangle_is_relative_to_its_rows_and_empty_above_the_diagonal() -> None:
    classifier = CommentClassifier("rnn", D, make_train_params())
    # from the zero state W_hh meets nothing at the first step
    start = torch.zeros(1, B, 6)
    _, triangle = shares(ready(classifier.recurrent, words_alone(X), start, classifier.head))
    assert triangle.dtype == np.float32
    assert np.isnan(triangle[np.triu_indices(T, 1)]).all()
    assert (triangle[:, 0] == -np.inf).all()
    assert np.nanmax(triangle[1:], axis=1).tolist() == [0.0] * (T - 1)


def test_the_tutorials_table() -> None:
    table = tutorial().set_index(["loss", "step"])["norm"]
    expected = {
        (1, 1): 0.41352006679804054,
        (2, 1): 0.08333246161703003,
        (2, 2): 0.19011577774405056,
        (3, 1): 0.010906688399113563,
        (3, 2): 0.024780998467378565,
        (3, 3): 0.13901933055672275,
    }
    assert table.to_dict() == pytest.approx(expected, rel=1e-14)
