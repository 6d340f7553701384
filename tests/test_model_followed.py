"""A model may hide things from autograd, or change them behind its back: follow or name them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import rnngrad
from whole_models import close


class InParts(nn.Module):
    """An LSTM reads three parts of its inputs; `between` may do something after each."""

    def __init__(self, between: Callable[[Any, Any], Any] = lambda lstm, state: state) -> None:
        super().__init__()
        self.lstm, self.between = nn.LSTM(3, 4, batch_first=True), between

    def read(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        output, state = self.lstm(x, (h, c))
        return output, *state

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = (x.new_zeros(1, len(x), 4),) * 2, []
        for part in x.split(3, dim=1):
            output, *state = self.read(part, *state)
            state = self.between(self.lstm, state)
            outputs.append(output)
        return torch.cat(outputs, dim=1)


class Checkpointed(InParts):
    def read(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return checkpoint(super().read, x, h, c, use_reentrant=self.reentrant)  # type: ignore

    reentrant = False


@pytest.mark.parametrize("x", [torch.randn(5, 3), torch.randn(5, 2, 3)])
def test_what_a_module_returns_is_no_view(x: Tensor):
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            output, h = self.gru(x)
            first, _ = self.gru(x, h.detach_())
            return first + output.detach_()

    assert len(rnngrad.gradient_reach(Model(), x, loss=torch.sum).layers) == 2


class Failing(InParts):
    def read(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        def stopped() -> None:
            raise ValueError("stopped")

        with pytest.raises(ValueError, match="stopped"):
            checkpoint(stopped, use_reentrant=False)
        return super().read(x, h, c)


def test_an_error_in_a_checkpoint_is_the_models_own():
    x = torch.randn(2, 9, 3)
    assert list(rnngrad.gradient_reach(Failing(), x, loss=torch.sum).layers) == ["lstm"]


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_hides_nothing(reentrant: bool):
    model, plain = Checkpointed().double(), InParts().double()
    model.reentrant = reentrant
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 9, 3).double()
    found, expected = (
        rnngrad.gradient_reach(each, x, loss=lambda h: h[:, -1].square().sum())
        for each in (model, plain)
    )
    assert found.layers["lstm"].learned_at.shape == (2, 9)
    close(found, expected)
    if reentrant:  # torch's own is back
        assert checkpoint(torch.sin, x.requires_grad_(), use_reentrant=True).requires_grad


def zeroed(_: Any, state: Any) -> Any:
    for part in state:
        part.data[:, 0] = 0
    return state


def learned(lstm: Any, state: Any) -> Any:
    lstm.weight_hh_l0.data.add_(0.1)
    return state


def written(_: Any, state: Any) -> Any:
    return tuple(part.copy_(part.detach()) for part in state)


def test_a_state_written_with_its_own_values_lets_no_loss_pass():
    reach = rnngrad.gradient_reach(
        InParts(written), torch.randn(2, 9, 3), loss=lambda h: h[:, -1].sum()
    )
    first, *_, last = reach.layers.values()
    assert np.isneginf(first.learned_at).all()
    assert (last.learned_at > -np.inf).all()


@pytest.mark.parametrize("between", [zeroed, learned])
def test_what_autograd_does_not_see_begins_a_new_call(between: Any):
    model, x, seen = InParts(between).double(), torch.randn(2, 9, 3).double(), list[Tensor]()
    lstm: Any = model.lstm
    weights = lstm.weight_hh_l0.detach().clone()
    reach = rnngrad.gradient_reach(model, x, loss=lambda h: (seen.append(h), h.sum())[1])
    assert list(reach.layers) == ["lstm", "lstm (call 2)", "lstm (call 3)"]
    assert torch.equal(lstm.weight_hh_l0, weights)
    torch.testing.assert_close(seen[0], model(x), rtol=0, atol=1e-12)


class WithoutAutograd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.GRU(3, 4), nn.GRU(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.training):
            x, _ = self.first(x)
        return self.second(x)[0]


class Hyper(nn.Module):
    """The first layer makes a weight of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.GRU(3, 4), nn.GRU(3, 4), nn.Linear(4, 48)

    def forward(self, x: Tensor) -> Tensor:
        made = self.head(self.first(x)[1].mean(dim=(0, 1))).view(12, 4)
        return functional_call(self.second, {"weight_hh_l0": made}, x)[0]


@pytest.mark.parametrize(
    ("model", "why"), [(WithoutAutograd(), "without autograd"), (Hyper(), "weights are made")]
)
def test_what_a_loss_sends_past_autograd_is_not_called_zero(model: nn.Module, why: str):
    reach = rnngrad.gradient_reach(model, torch.randn(5, 2, 3), loss=torch.sum)
    assert "not asked: what the loss makes of .first, " in str(reach)
    assert why in str(reach)
    assert reach.layers["first"].loss_gradients is None
    assert reach.layers["second"].loss_gradients is not None
    assert "not asked" not in str(rnngrad.gradient_reach(model, torch.randn(5, 2, 3)))


def test_weights_that_are_computed_of_parameters_are_followed():
    lstm = nn.utils.parametrizations.weight_norm(nn.LSTM(3, 4), "weight_hh_l0")
    reach = rnngrad.gradient_reach(lstm, torch.randn(5, 2, 3), loss=lambda out: out[0].sum())
    assert "not asked" not in str(reach)
