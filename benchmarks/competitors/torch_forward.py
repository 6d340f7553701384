"""Forward mode in torch: jvp of one step over all directions, and jacfwd of the trajectory."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacfwd as torch_jacfwd
from torch.func import vmap

from benchmarks.cases import Problem
from benchmarks.competitors import Curves
from benchmarks.competitors.torch_cell import advance, cell_states, projected, weights_of


def vmap_jvp(problem: Problem, steps: int) -> Callable[[], Curves]:
    weights = weights_of(problem)
    x = torch.from_numpy(problem.inputs[:, :steps])
    h_0, c_0 = torch.from_numpy(problem.h), torch.from_numpy(problem.c)

    def run() -> Curves:
        h, c = h_0, c_0
        dc = torch.eye(problem.hidden).unsqueeze(1).expand(-1, problem.batch, -1)  # (k, b, i)
        dh = torch.zeros_like(dc)
        a = projected(weights, x).transpose(0, 1)
        J_sizes = []
        for a_t in a:
            (h, c), (dh, dc) = advance(weights, a_t, (h, c), (dh, dc))
            J_sizes.append(_sizes(dc.permute(1, 2, 0)))
        return _curves(J_sizes)

    return run


def jacfwd(problem: Problem, steps: int) -> Callable[[], Curves]:
    weights = weights_of(problem)
    x = torch.from_numpy(problem.inputs[:, :steps])
    h_0, c_0 = torch.from_numpy(problem.h), torch.from_numpy(problem.c)

    def example(a: Tensor, h: Tensor, c: Tensor) -> Tensor:
        return torch_jacfwd(lambda c_0: cell_states(weights, a, h, c_0))(c)

    def run() -> Curves:
        with torch.no_grad():
            J = vmap(example)(projected(weights, x), h_0, c_0)  # (b, t, i, j)
        return of_trajectory(J)

    return run


def of_trajectory(J: Tensor) -> Curves:
    """Curves from d c_t / d c_0 at all t: (b, t, i, j)."""
    column_sum, frobenius = _sizes(J)
    return Curves(column_sum.log10().numpy(), frobenius.log10().numpy())


def _sizes(J: Tensor) -> tuple[Tensor, Tensor]:
    """Column-sum statistic and Frobenius norm, in float64."""
    column_sum = J.sum(dim=-2).abs().mean(dim=-1)
    # in two stages: float32's sum over all entries at once is 2e-5 off
    frobenius = torch.linalg.vector_norm(torch.linalg.vector_norm(J, dim=-1), dim=-1)
    return column_sum.double(), frobenius.double()


def _curves(sizes: list[tuple[Tensor, Tensor]]) -> Curves:
    column_sum, frobenius = (
        torch.stack(values, dim=1).log10().numpy() for values in zip(*sizes, strict=True)
    )
    return Curves(column_sum, frobenius)
