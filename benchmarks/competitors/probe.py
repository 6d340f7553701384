"""rnngrad itself, and torch's plain forward pass, the unit of all ratios."""

import sys
from collections.abc import Callable

import torch
from torch import nn

import rnngrad
from benchmarks.cases import Problem
from benchmarks.competitors import Curves
from rnngrad.probe import tangents


def lstm_of(problem: Problem) -> nn.LSTM:
    lstm = nn.LSTM(problem.inputs.shape[2], problem.hidden, batch_first=True)
    weights = (problem.weight_ih, problem.weight_hh, problem.bias)
    values = [*map(torch.from_numpy, weights), torch.zeros(4 * problem.hidden)]
    with torch.no_grad():
        for parameter, value in zip(lstm.parameters(), values, strict=True):
            parameter.copy_(value)
    return lstm


def state_of(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """h_0 and c_0 as a module of one layer takes them: (1, B, H)."""
    return torch.from_numpy(problem.h).unsqueeze(0), torch.from_numpy(problem.c).unsqueeze(0)


def curves(problem: Problem, steps: int) -> Callable[[], Curves]:
    lstm, state = lstm_of(problem), state_of(problem)
    inputs = torch.from_numpy(problem.inputs[:, :steps])

    def run() -> Curves:
        found = rnngrad.jacobian_curves(
            lstm, inputs, state, state="c", statistics=("frobenius", "column_sum")
        )
        return Curves(found.log10_column_sum, found.log10_frobenius)

    return run


def all_directions(problem: Problem, steps: int) -> Callable[[], Curves]:
    """Without what the falling rank of the Jacobian saves: all that is left is the products."""
    tangents.COMPRESS_EVERY = sys.maxsize
    return curves(problem, steps)


def plain_forward(problem: Problem, steps: int) -> Callable[[], Curves]:
    lstm, state = lstm_of(problem), state_of(problem)
    inputs = torch.from_numpy(problem.inputs[:, :steps])

    def run() -> Curves:
        with torch.no_grad():
            lstm(inputs, state)
        return Curves()

    return run
