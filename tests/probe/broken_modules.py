"""Modules and inputs that the probe refuses."""

import warnings
from typing import Any

import torch
from torch import nn

X = torch.zeros(2, 5, 3)


def lstm(**options) -> nn.LSTM:
    return nn.LSTM(3, 4, batch_first=True, **options)


def gru(**options) -> nn.GRU:
    return nn.GRU(3, 4, batch_first=True, **options)


def with_nan(module: nn.RNNBase, name: str) -> nn.RNNBase:
    with torch.no_grad():
        getattr(module, name)[2, 1] = torch.nan
    return module


def quantised() -> nn.Module:
    from torch.ao.nn.quantized.dynamic import LSTM

    with warnings.catch_warnings(action="ignore"):  # torch's own, that this will go
        return LSTM(3, 4)


def keras_layer() -> Any:
    """It has as much as is looked at."""
    names = {"__module__": "keras.src.layers.rnn.lstm", "get_weights": list}
    return type("LSTM", (), names)()


class OwnForward(nn.GRU):
    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> Any:  # noqa: A002  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(5 * input, hx)


def hooked() -> nn.RNNBase:
    """torch.nn.utils.weight_norm and prune leave a module like this."""
    module = gru()
    module.register_forward_pre_hook(lambda *_: None)
    return module


def x_with_nan() -> torch.Tensor:
    x = X.clone()
    x[1, 3, 2] = torch.nan
    return x


def with_weight(name: str, value: torch.Tensor) -> nn.RNNBase:
    module = gru(num_layers=2)
    setattr(module, name, nn.Parameter(value))
    return module
