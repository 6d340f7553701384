"""A recurrent module in a subclass, and losses that come to it in another way than step by step."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnngrad
from whole_models import close, everything


class OwnForward(nn.LSTM):
    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        h, state = super().forward(x, hx)
        return 2 * h, state


class WithLengths(nn.LSTM):
    """Packs its inputs by itself, as one library's LSTM does."""

    def forward(self, x: Tensor, hx: Any = None, lengths: Any = None) -> Any:  # type: ignore
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, state = super().forward(packed, hx)
        return pad_packed_sequence(output, batch_first=True)[0], state


def test_a_subclass_that_calls_torch_s_forward_is_asked():
    module, x = WithLengths(3, 4, batch_first=True).double(), torch.randn(2, 5, 3).double()
    kind, lengths = type(module), torch.tensor([5, 3])

    def loss(output: tuple[Tensor, Any]) -> Tensor:
        return output[0].square().sum()

    found = rnngrad.gradient_reach(module, x, lengths=lengths, loss=loss)
    assert found.title.endswith("2 example(s); lengths: given to forward, not to layers")
    plain = nn.LSTM(3, 4, batch_first=True).double()
    plain.load_state_dict(module.state_dict())
    packed = pack_padded_sequence(x, lengths, batch_first=True)
    expected = rnngrad.gradient_reach(plain, packed, loss=lambda out: out[0].data.square().sum())
    close(found, expected)
    assert type(module) is kind
    assert "forward" not in vars(module)


class SpelledOut(nn.LSTM):
    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        return nn.LSTM.forward(self, x, hx)


class BySelf(nn.LSTM):
    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        assert type(self) is BySelf
        return super(self.__class__, self).forward(x, hx)


class OtherWeights(nn.LSTM):
    """Torch multiplies with what stands in this list (DropConnect)."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        own = self._flat_weights
        self._flat_weights = [w / 2 for w in own]
        output = super().forward(x, hx)
        self._flat_weights = own
        return output


@pytest.mark.parametrize("kind", [OwnForward, SpelledOut, BySelf, OtherWeights])
def test_whatever_way_torch_s_forward_is_called_the_numbers_are_the_model_s(kind: Any):
    module, x = kind(3, 4, batch_first=True).double(), torch.randn(2, 5, 3).double()
    (layer,) = rnngrad.gradient_reach(module, x, loss=everything).layers.values()
    everything(module(x)).backward()
    scale = 0.5 if kind is OtherWeights else 1.0
    parts: Any = rnngrad.weight_gradient_parts(
        layer.module, layer.inputs, output_gradients=layer.output_gradient,
        final_state_gradient=layer.final_state_gradient, reduce="none",
    )  # fmt: skip
    for name, part in parts.items():
        expected = module.get_parameter(name).grad
        np.testing.assert_allclose(scale * part.sum((0, 1, 2)), expected, atol=1e-12)
    assert nn.LSTM.forward.__module__ == "torch.nn.modules.rnn"


def test_a_derivative_within_the_loss_is_not_taken_for_a_plain_one():
    """A gradient penalty (WGAN-GP) comes back through the backward pass, at no step of its own."""

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = x.clone().requires_grad_()
            y = self.head(self.core(x)[0][:, -1])
            return y, torch.autograd.grad(y.sum(), x, create_graph=torch.is_grad_enabled())[0]

    def penalty(output: tuple[Tensor, Tensor]) -> Tensor:
        return (output[1].flatten(1).norm(dim=1) - 1).square().mean()

    class OfCell(Critic):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = x.clone().requires_grad_()
            y = self.head(self.core(x)[1][1][0])
            return y, torch.autograd.grad(y.sum(), x, create_graph=torch.is_grad_enabled())[0]

    x = torch.randn(4, 10, 3)
    both = lambda output: output[0].mean() + penalty(output)  # noqa: E731
    for kind, loss in ((Critic, penalty), (Critic, both), (OfCell, both)):
        reach = rnngrad.gradient_reach(kind(), x, loss=loss)
        assert "not asked: what the loss makes of .core, through which it takes" in reach.title
        assert reach.layers["core"].loss_gradients is None
