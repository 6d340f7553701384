"""The same LSTM twice: the example's NumPy layer and torch's module, of the same random numbers."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from numpy_lstm import Weights

# ||dL_T/dWx||, by the loss of step T and the step of the input, of draw_problem((1, 3, 3, 1), 1)
TUTORIAL = [
    [0.41352006679804054, 0, 0],
    [0.08333246161703003, 0.19011577774405056, 0],
    [0.010906688399113563, 0.024780998467378565, 0.13901933055672275],
]


class Problem(NamedTuple):
    """x (N, T, D), h0 (N, H), the layer's weights, dh (N, T, H); all float64."""

    x: np.ndarray
    h0: np.ndarray
    weights: Weights
    dh: np.ndarray


def draw_problem(shape: tuple[int, int, int, int], seed: int) -> Problem:
    """Standard normal numbers, in the order of the tutorial: x, h0, Wx, Wh, b, dh."""
    N, T, D, H = shape
    draw = np.random.RandomState(seed).randn
    x, h0 = draw(N, T, D), draw(N, H)
    weights = Weights(draw(D, 4 * H), draw(H, 4 * H), draw(4 * H))
    return Problem(x, h0, weights, draw(N, T, H))


def to_torch(array: np.ndarray) -> Tensor:
    """Columns i, f, o, g as torch's rows i, f, g, o."""
    i, f, o, g = np.split(array, 4, axis=-1)
    return torch.from_numpy(np.concatenate((i, f, g, o), axis=-1).T.copy())


def from_torch(tensor: Tensor) -> np.ndarray:
    """Rows i, f, g, o as the example's columns i, f, o, g."""
    i, f, g, o = np.split(tensor.numpy().T, 4, axis=-1)
    return np.concatenate((i, f, o, g), axis=-1)


def torch_lstm(weights: Weights) -> nn.LSTM:
    """nn.LSTM of the same weights, its second bias zero."""
    module = nn.LSTM(len(weights.Wx), len(weights.Wh), batch_first=True).double()
    with torch.no_grad():
        module.get_parameter("weight_ih_l0").copy_(to_torch(weights.Wx))
        module.get_parameter("weight_hh_l0").copy_(to_torch(weights.Wh))
        module.get_parameter("bias_ih_l0").copy_(to_torch(weights.b))
        module.get_parameter("bias_hh_l0").zero_()
    return module


def torch_state(problem: Problem) -> tuple[Tensor, Tensor]:
    """h_0 as given and c_0 = 0, each (1, N, H)."""
    h0 = torch.from_numpy(problem.h0)[None]
    return h0, torch.zeros_like(h0)
