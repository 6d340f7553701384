"""The path through the output gate against autograd, its bounds, and what clipping does."""

import copy

import pandas as pd
import pytest
import torch
from ready import ready, words_alone
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import rnngrad
from rnngrad.models.classifier import CommentClassifier
from rnngrad.study.measures.output_gates import FACTORS, log10_norm_of_product, output_gates
from tiny import make_train_params

B, T, D, H = 2, 9, 3, 6
X = torch.randn(B, T, D, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0.0, 1.0])


@pytest.fixture
def classifier() -> CommentClassifier:
    return CommentClassifier("lstm", D, make_train_params(hidden=H))


@pytest.fixture
def start() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(1, B, H, generator=generator), torch.rand(1, B, H, generator=generator)


def paths_of(
    classifier: CommentClassifier, start: tuple[Tensor, Tensor], x: Tensor = X
) -> pd.DataFrame:
    words = words_alone(x, LABELS)
    return output_gates(ready(classifier.recurrent, words, start, classifier.head))


def hidden_weight(module: nn.RNNBase) -> Tensor:
    return dict(module.named_parameters())["weight_hh_l0"]


def test_product_is_the_modules_jacobian_if_only_the_output_gate_reads_h(
    classifier: CommentClassifier, start: tuple[Tensor, Tensor]
) -> None:
    module = classifier.recurrent.double()
    with torch.no_grad():
        hidden_weight(module)[: 3 * H] = 0
    h, c = (s.double() for s in start)
    inputs = X.double()
    mix = rnngrad.trajectory(module, inputs, (h, c)).factors.mix
    K = torch.from_numpy(mix[:, :, 3]).transpose(0, 1)
    found = log10_norm_of_product(K, hidden_weight(module).detach()[3 * H :])
    for b in range(B):
        one = slice(b, b + 1)

        def last(s: Tensor, one: slice = one) -> Tensor:
            return module(inputs[one], (s, c[:, one]))[1][0]

        J = torch.autograd.functional.jacobian(last, h[:, one])
        assert isinstance(J, Tensor)
        expected = torch.linalg.matrix_norm(J.reshape(H, H), 2).log10().item()
        assert found[b].item() == pytest.approx(expected, abs=1e-9)


def test_a_product_may_be_as_small_as_it_likes_or_zero() -> None:
    W = torch.eye(2, dtype=torch.float64)
    K = torch.full((100, 2, 2), 1e-9, dtype=torch.float64)
    K[50, 1] = 0
    assert log10_norm_of_product(K, W).tolist() == pytest.approx([-900, -torch.inf])


def test_rates_stay_below_their_bounds_and_end_where_the_path_grows(
    classifier: CommentClassifier, start: tuple[Tensor, Tensor]
) -> None:
    before = copy.deepcopy(classifier.state_dict())
    table = paths_of(classifier, start)
    assert table["factor"].tolist() == list(FACTORS[: len(table)])
    assert (table["path_rate"] <= table["bound_rate"] + 1e-6).all()
    assert (table["bound_rate"] <= table["ceiling_rate"] + 1e-6).all()
    assert (table["path_rate"][:-1] <= 0).all()
    assert len(table) == len(FACTORS) or table["path_rate"].iloc[-1] > 0
    measured = table["total_rate"].notna()
    assert measured.tolist() == [row in (0, len(table) - 1) for row in range(len(table))]
    for name, value in classifier.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_rate_is_that_of_the_weight_where_gates_stand_still(
    classifier: CommentClassifier, start: tuple[Tensor, Tensor]
) -> None:
    """Cells far above 1 and output gates at 1/2: K_k is the identity over 4, nearly."""
    h, c = start
    with torch.no_grad():
        for parameter in classifier.recurrent.parameters():
            parameter.zero_()
        bias = dict(classifier.recurrent.named_parameters())["bias_ih_l0"]
        bias[: 3 * H] = 30  # i = f = g = 1: c_t = c_(t-1) + 1
        hidden_weight(classifier.recurrent)[3 * H :] = 1e-3 * torch.eye(H)
    table = paths_of(classifier, (h, c))
    first, second = table["path_rate"].iloc[0], table["path_rate"].iloc[1]
    assert first == pytest.approx(-3 - torch.tensor(4.0).log10().item(), abs=0.05)
    assert second - first == pytest.approx(torch.tensor(2.0).log10().item(), abs=1e-3)


def test_a_path_begins_where_the_cell_state_does(classifier: CommentClassifier) -> None:
    """From the zero state, words without a vector leave c at zero."""
    zero = torch.zeros(1, B, H)
    x = X.clone()
    x[0, :3] = 0
    found = paths_of(classifier, (zero, zero), x).iloc[0]
    assert -10 < found["path_rate"] < found["bound_rate"]


def test_a_clipped_gradient_is_short_and_points_the_same_way(
    classifier: CommentClassifier, start: tuple[Tensor, Tensor]
) -> None:
    with torch.no_grad():
        classifier.head.weight *= 50  # an error that is worth clipping
    row = paths_of(classifier, start).iloc[0]
    double = copy.deepcopy(classifier).double()
    h, c = start
    output, _ = double.recurrent(X.double(), (h.double(), c.double()))
    logits = double.head(output[:, -1])[:, 0]
    loss = binary_cross_entropy_with_logits(logits, LABELS.double())
    (gradient,) = torch.autograd.grad(loss, hidden_weight(double.recurrent))
    assert row["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-9)
    assert row["gradient_norm"] > 1
    assert row["clipped_norm"] == pytest.approx(1, abs=1e-5)
    assert row["cosine"] == pytest.approx(1)
    assert row["log10_early_to_late"] < 0
