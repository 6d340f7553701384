"""Lyapunov exponents of a driven recurrent module."""

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.errors import InputError
from rnngrad.probe.arithmetic import exact_arithmetic, probing
from rnngrad.probe.cells import Cell, OneStep, mixed
from rnngrad.probe.problem import Problem, check_integer, problem_of
from rnngrad.probe.trajectory import Chunk, chunks, one_steps, run_layer

COMPARABLE = 1e-3  # columns this close need no factor of their own
LOST = 1e-12  # of the terms it is a sum of: four digits of a pivot are left


@probing
def lyapunov_exponents(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    count: int | None = None,
    warmup: int = 0,
    layer: int = -1,
) -> np.ndarray:
    """Mean logarithmic growth rates of tangents along the trajectory that the inputs drive.

    Args:
        module, inputs, initial_state: as in `rnngrad.jacobian_curves`.
        count: how many exponents, from the largest; None means all (H, for an LSTM 2H).
        warmup: steps at the start that turn the tangents but are not counted.
        layer: whose recurrence; its state is h, for an LSTM (h, c).

    Returns:
        (batch, count) float64, nats per step, largest first; -inf where a step's map is singular
        because a unit is dead or is not read. All together the exponents sum to the mean of
        log|det M_t| over the counted steps, with saturated units as well. NaN, at the end, where
        float64 cannot tell an exponent: at some step it would be made of rounding errors, as with
        a weight matrix that is singular, or nearly, in any other way, or in an LSTM where a unit
        with its input and forget gates closed meets others with closed gates. Errors of many
        steps, each of which can still be told, may gather before that: with weights in the tens
        exponents beyond the first lose digits.

    Source: tangents renormalised by QR at every step, Benettin et al. (1980); for recurrent
    networks Engelken, Wolf and Abbott (2023), Lyapunov spectra of chaotic recurrent neural
    networks. Finite-time singular values of J_t are another thing: see `rnngrad.jacobian_curves`.

    Memory: the float64 trajectory and a few (S, S) matrices per example of a chunk.

    Raises:
        InputError: count or warmup out of range, and whatever `jacobian_curves` refuses.
        TypeError: count or warmup that are no integers.
    """
    problem = problem_of(module, inputs, initial_state)
    index, size = problem.layer_index(layer), problem.hidden * len(problem.states)
    count = size if count is None else count
    check_integer(count, "count")
    check_integer(warmup, "warmup")
    if not 1 <= count <= size:
        raise InputError(f"count={count}: the state has {size} exponents; use 1..{size}")
    if not 0 <= warmup < problem.steps:
        raise InputError(f"warmup={warmup}: must lie in 0..{problem.steps - 1}")
    out = np.empty((problem.batch, count))
    with exact_arithmetic(problem.inputs.device):
        for chunk in chunks(problem, 2 if index else 1, 8 * size * (4 * count + 2 * size)):
            rates = _rates(problem, chunk, index, count, warmup)
            out[chunk.rows.numpy()] = _sorted(rates).cpu().numpy()
    return out


def _sorted(rates: Tensor) -> Tensor:
    """Descending, NaN last."""
    unknown = rates.isnan()
    rates = rates.masked_fill(unknown, -torch.inf).sort(dim=1, descending=True).values
    known = rates.shape[1] - unknown.sum(dim=1, keepdim=True)
    at = torch.arange(rates.shape[1], device=rates.device)
    return rates.masked_fill(at >= known, torch.nan)


def _rates(problem: Problem, chunk: Chunk, layer: int, count: int, warmup: int) -> Tensor:
    cell, _, path = run_layer(problem, chunk, layer)
    Q = _directions(problem.hidden * len(problem.states), count).to(cell.weight_hh.device)
    Q = Q.expand(len(chunk.rows), -1, -1)
    total = Q.new_zeros(len(chunk.rows), count)
    for t, one in enumerate(one_steps(cell, path)):
        Q, growth = _step(cell, one, Q)
        if t >= warmup:
            total = _plus(total, growth)
    return total / (chunk.steps - warmup)


def _step(cell: Cell, one: OneStep, Q: Tensor) -> tuple[Tensor, Tensor]:
    """The directions after a step and the logarithms of their growth (b, count).

    Directions are made orthonormal between the factors of M_t. Columns of M_t that differ in size
    (an LSTM's forget gates) are rows of the first factor; small rows are safe in `_orthonormal`,
    but an LSTM adds multiples of dc to them, dh = through dc + ..., which is a factor of its own.
    """
    M = _map(cell, one)
    columns = M.abs().amax(dim=1)
    growth = torch.zeros_like(Q[:, 0])
    if bool((columns.amin(dim=1) < COMPARABLE * columns.amax(dim=1)).any()):
        Q, growth = _orthonormal(columns.unsqueeze(2) * Q, columns)
        M = M / torch.where(columns == 0, 1.0, columns).unsqueeze(1)
    Q, more = _orthonormal(M @ Q, M.abs().sum(dim=2))
    growth = _plus(growth, more)
    if one.through is not None:
        dh, dc = Q.chunk(2, dim=1)
        Q, more = _orthonormal(
            torch.cat((dh + one.through.unsqueeze(2) * dc, dc), dim=1), torch.ones_like(Q[..., 0])
        )
        growth = _plus(growth, more)
    return Q, growth


def _plus(total: Tensor, growth: Tensor) -> Tensor:
    """What is lost stays lost: the growth of an arbitrary direction afterwards means nothing."""
    return torch.where(total == -torch.inf, total, total + growth)


def _map(cell: Cell, one: OneStep) -> Tensor:
    """M_t (b, S, S), of an LSTM without the last factor."""
    w = cell.weight_hh.unflatten(0, (cell.gates, -1))
    if one.keep is None:
        return mixed(one.mix, w)
    keep = torch.diag_embed(one.keep)
    if one.through is None:
        return mixed(one.mix, w) + keep
    dh = torch.cat((mixed(one.mix[:, 3:], w[3:]), torch.zeros_like(keep)), dim=2)
    return torch.cat((dh, torch.cat((mixed(one.mix[:, :3], w[:3]), keep), dim=2)), dim=1)


def _orthonormal(A: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Q and log|diag R| of A = Q R, for rows of whatever different sizes.

    Householder QR would lose rows 16 decades below the largest (saturated units): its errors are
    relative to columns. Elimination keeps every row's errors relative to that row, so A = P L U
    first; L has entries of at most 1 and P L = Q R', hence R = R' U.

    size: (b, n) the terms of which the entries of each row were summed up; a pivot that is lost in
    their rounding errors is unknown (NaN), and so are those after it.
    """
    P, L, U = _lu(A)
    pivots = U.diagonal(dim1=-2, dim2=-1).abs()
    count = pivots.shape[-1]
    terms = (L[:, :count].abs() * U.abs().mT).sum(dim=-1)
    terms = terms + (P.mT @ size.unsqueeze(2))[:, :count, 0]
    unknown = ((pivots <= LOST * terms) & (terms > 0)).cummax(dim=1).values
    R = torch.linalg.qr(L, mode="r").R
    # by substitution and not from the reflections: small entries of a row are right relative to
    # what stands before them, and the next factor may need them
    Q = torch.linalg.solve_triangular(R, P @ L, upper=True, left=False)
    growth = R.diagonal(dim1=-2, dim2=-1).abs().log() + pivots.log()
    return Q, growth.masked_fill(unknown, torch.nan)


def _lu(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """torch.linalg.lu, of one matrix after the other on a CPU.

    There torch gives every thread some of a batch, and MKL's elimination is not made for that: from
    some 150 rows on it never returns, or is wrong (github.com/pytorch/pytorch/issues/141358).
    """
    if A.device.type != "cpu":
        return tuple(torch.linalg.lu(A))
    P, L, U = (torch.stack(part) for part in zip(*map(torch.linalg.lu, A), strict=True))
    return P, L, U


def _directions(size: int, count: int) -> Tensor:
    """Orthonormal, in general position and the same every time: unit vectors would miss exponents
    of networks whose units do not talk to each other."""
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(
        torch.randn(size, count, dtype=torch.float64, generator=generator)
    ).Q.contiguous()
