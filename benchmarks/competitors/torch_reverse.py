"""Reverse mode in torch: one backward pass for every t, and jacrev of the trajectory."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacrev as torch_jacrev
from torch.func import vmap

from benchmarks.cases import Problem
from benchmarks.competitors import Curves
from benchmarks.competitors.torch_cell import cell_states, projected, weights_of
from benchmarks.competitors.torch_forward import of_trajectory


def jacrev(problem: Problem, steps: int) -> Callable[[], Curves]:
    weights = weights_of(problem)
    x = torch.from_numpy(problem.inputs[:, :steps])
    h_0, c_0 = torch.from_numpy(problem.h), torch.from_numpy(problem.c)

    def example(a: Tensor, h: Tensor, c: Tensor) -> Tensor:
        return torch_jacrev(lambda c_0: cell_states(weights, a, h, c_0))(c)

    def run() -> Curves:
        return of_trajectory(vmap(example)(projected(weights, x), h_0, c_0))

    return run


def autograd(problem: Problem) -> tuple[Callable[[], None], Callable[[int], Curves]]:
    """The forward pass once, then `autograd.grad` of the sum of c_t, for one t after another."""
    weights = weights_of(problem)
    h, c = torch.from_numpy(problem.h), torch.from_numpy(problem.c).requires_grad_()
    states: list[Tensor] = []

    def once() -> None:
        a = projected(weights, torch.from_numpy(problem.inputs)).transpose(0, 1)
        states[:] = cell_states(weights, a, h, c).unbind()

    def at(t: int) -> Curves:
        (gradient,) = torch.autograd.grad(states[t - 1].sum(), c, retain_graph=True)
        return Curves(gradient.abs().mean(dim=1, keepdim=True).double().log10().numpy())

    return once, at
