"""Modules and inputs that the probe refuses."""

import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

X = torch.zeros(2, 5, 3)


def lstm(**options) -> nn.LSTM:
    return nn.LSTM(3, 4, batch_first=True, **options)


def gru(**options) -> nn.GRU:
    return nn.GRU(3, 4, batch_first=True, **options)


def with_nan(module: nn.RNNBase, name: str, value: float = float("nan")) -> nn.RNNBase:
    with torch.no_grad():
        getattr(module, name)[2, 1] = value
    return module


def quantised() -> nn.Module:
    from torch.ao.nn.quantized.dynamic import LSTM

    with warnings.catch_warnings(action="ignore"):  # torch's own, that this will go
        return LSTM(3, 4)


def keras_layer() -> Any:
    """It has as much as is looked at."""
    names = {"__module__": "keras.src.layers.rnn.lstm", "get_weights": list}
    return type("LSTM", (), names)()


class Unbounded(nn.Module):
    """A parametrization that computes NaN from finite parameters."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / (weight - weight)


def parametrized() -> nn.RNNBase:
    module = gru()
    parametrize.register_parametrization(module, "weight_hh_l0", Unbounded(), unsafe=True)
    return module


class OwnForward(nn.GRU):
    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> Any:  # noqa: A002  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(5 * input, hx)


def hooked() -> nn.RNNBase:
    """torch.nn.utils.weight_norm and prune leave a module like this."""
    module = gru()
    module.register_forward_pre_hook(lambda *_: None)
    return module


def x_with(value: float) -> torch.Tensor:
    x = X.clone()
    x[1, 3, 2] = value
    return x


def changed(**attributes: object) -> nn.RNNBase:
    """A module of two layers whose attributes are others than it was made with."""
    module = gru(num_layers=2)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def with_weight(name: str, value: torch.Tensor) -> nn.RNNBase:
    return changed(**{name: nn.Parameter(value)})


def other_mode() -> nn.RNNBase:
    module = nn.RNN(3, 4)
    module.mode = "RNN_SIN"
    return module
