"""Lyapunov exponents of a driven recurrent module."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import scipy.linalg
from torch import Tensor, nn

from rnngrad.errors import InputError, check_memory
from rnngrad.plot import Exponents
from rnngrad.probe import _compiled
from rnngrad.probe._problem import problem_of
from rnngrad.probe._scaled import Array
from rnngrad.probe._settings import bar, prepared, stop_if_ended, threads
from rnngrad.probe._tangents import BLOCK_STEPS
from rnngrad.probe.cells import Cell, StepMaps

linalg: Any = scipy.linalg  # its types are those of all options together
_qr = partial(linalg.qr, mode="economic", check_finite=False)  # NumPy's takes longer

LOST = 1e-12  # a pivot that is smaller beside its terms has lost all but four digits
MAX_CANCELLATION = 1e6  # a column so large beside its new part leaves it ten digits


@prepared()
def lyapunov_exponents(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    count: int | None = None,
    warmup: int = 0,
    layer: int = -1,
    lengths: Sequence[int] | Array | Tensor | None = None,
    mask: Array | Tensor | None = None,
) -> Exponents:
    """Mean logarithmic growth rates of tangents along the trajectory that the inputs drive.

    Args:
        module, inputs, initial_state, lengths, mask: as in `rnngrad.jacobian_curves`.
        count: how many exponents, from the largest; None means all (H, for an LSTM 2H).
        warmup: steps at the start that turn the tangents but are not counted.
        layer: whose recurrence; its state is h, for an LSTM (h, c).

    Returns:
        An array (batch, count) with `plot`, float64, nats per step, largest first. A dead or unread
        unit gives -inf. All sum to the mean of log|det M_t| over the counted steps. Exponents made
        of rounding errors (a weight matrix nearly singular, gates that all but close) are NaN, at
        the end. With weights in the tens, exponents beyond the first lose digits.

    Source: tangents renormalised by QR, Benettin et al. (1980); for recurrent networks Engelken,
    Wolf and Abbott (2023). The singular values of J_t are another thing, see `jacobian_curves`. A
    QR is taken as seldom as ten digits of every exponent allow, on the CPU.
    Memory: some steps of the trajectory and a few (S, S) matrices per thread.

    Raises:
        InputError: count or warmup out of range, and whatever `jacobian_curves` refuses.
        TypeError: count or warmup that are no integers.

    Examples:
        >>> import torch, rnngrad
        >>> rnn, x = torch.nn.RNN(3, 4, batch_first=True), torch.zeros(2, 50, 3)
        >>> rnngrad.lyapunov_exponents(rnn, x, count=2).shape
        (2, 2)
    """
    problem = problem_of(module, inputs, initial_state, lengths, mask).on_cpu()
    index, size = problem.layer_index(layer), problem.hidden * len(problem.initial)
    count = size if count is None else count
    if not 1 <= count <= size:
        raise InputError(f"count={count}: the state has {size} exponents; use 1..{size}")
    shortest = int(problem.lengths.min())
    if not 0 <= warmup < shortest:
        raise InputError(f"warmup={warmup}: must lie in 0..{shortest - 1}")
    check_memory(8 * 4 * size * count, "the directions need", "ask for a smaller count")
    # unit vectors would miss exponents of networks whose units do not talk to each other
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((size, count)))[0]

    def run(example: int) -> Array:
        spectrum = _Spectrum(problem.cells[index], directions)
        length, states = int(problem.lengths[example]), problem.start([example], index + 1)
        cuts = [*range(0, warmup, BLOCK_STEPS), *range(warmup, length, BLOCK_STEPS), length]
        for start, stop in pairwise(cuts):
            if start == warmup:
                spectrum.growth = np.zeros(count)
            *_, (*_, maps) = problem.run([example], slice(start, stop), states)
            spectrum.advance(maps.each(itemgetter(0)), progress.update)
        return -np.sort(-spectrum.growth / (length - warmup))  # descending, NaN last

    steps = bar(total=int(problem.lengths.sum()), desc="Lyapunov exponents", unit="step")
    with threads() as pool, steps as progress:
        return np.stack(list(pool.map(run, range(problem.batch)))).view(Exponents)


class _Spectrum:
    """The directions Q (S, count) of one example, and the logarithms of their growth so far."""

    def __init__(self, cell: Cell, directions: Array) -> None:
        self.cell, self.Q, self.growth = cell, directions, np.zeros(directions.shape[1])
        self.stride = 1  # steps between two orthonormalisations

    def advance(self, maps: StepMaps, update: Callable[[int], Any]) -> None:
        """Take some steps, maps (t, ...), and say how many are taken as they are."""
        t = 0
        while t < len(maps.keep):
            stop_if_ended()
            some = maps.each(itemgetter(slice(t, t + self.stride)))
            if not self._quickly(some):
                if len(some.keep) > 1:
                    self.stride = len(some.keep) // 2
                    continue
                self._carefully(some.each(itemgetter(0)))
            t += len(some.keep)
            update(len(some.keep))

    def _quickly(self, maps: StepMaps) -> bool:
        """Take all steps and one QR; return False, and do nothing, if digits would be lost."""
        steps = len(maps.keep)
        taken, J, exponents, *_ = _compiled.tangent_steps(
            self.cell.W, maps.mix, maps.keep, maps.through, self.Q, 0, 0, 0, np.zeros(steps, bool)
        )
        Q, R = _qr(J)
        parts, sizes = np.abs(R.diagonal()), np.linalg.norm(R, axis=0)
        if taken < steps or not (parts * MAX_CANCELLATION > sizes).all():
            return False
        self._take(Q, np.log(parts) + exponents[-1] * math.log(2))
        if (parts * math.sqrt(MAX_CANCELLATION) > sizes).all():
            self.stride = min(2 * self.stride, BLOCK_STEPS)
        return True

    def _take(self, Q: Array, growth: Array) -> None:
        """Go on with Q; the growth of a direction that was lost before means nothing."""
        self.Q = np.ascontiguousarray(Q)
        self.growth = np.where(self.growth == -np.inf, self.growth, self.growth + growth)

    def _carefully(self, maps: StepMaps) -> None:
        """Take one step, and make the directions orthonormal between the factors of its map."""
        # the first scales rows by the sizes of the map's columns; an LSTM's last is through dc
        M = maps._replace(through=0 * maps.through).matrix(self.cell.W)
        columns = np.abs(M).max(axis=0)
        self._take(*_orthonormal(columns[:, None] * self.Q, columns))
        M = M / np.where(columns == 0, 1.0, columns)
        self._take(*_orthonormal(M @ self.Q, np.abs(M).sum(axis=1)))
        if len(maps.through):
            dh, dc = np.split(self.Q, 2)
            Q = np.concatenate((dh + maps.through[:, None] * dc, dc))
            self._take(*_orthonormal(Q, np.ones(len(Q))))


def _orthonormal(A: Array, size: Array) -> tuple[Array, Array]:
    """Return Q and log|diag R| of A = Q R, for rows of whatever different sizes.

    Householder QR, with errors relative to columns, would lose rows 16 decades below the largest.
    Elimination has errors relative to rows: first A = P L U, then P L = Q R' gives R = R' U. A
    pivot lost in the rounding of a row's terms, whose sum is `size` (n,), and those after, are NaN.
    """
    P, L, U = linalg.lu(A)
    pivots, count = np.abs(U.diagonal()), A.shape[1]
    terms = (np.abs(L[:count]) * np.abs(U.T)).sum(axis=1) + (P.T @ size)[:count]
    unknown = np.logical_or.accumulate((pivots <= LOST * terms) & (terms > 0))
    R = _qr(L)[1]
    # Substitution, unlike the reflections, gets small entries right relative to those before them
    # in the row. The next factor may need them.
    Q = linalg.solve_triangular(R.T, (P @ L).T, lower=True).T
    with np.errstate(divide="ignore"):
        growth = np.log(np.abs(R.diagonal())) + np.log(pivots)
    return Q, np.where(unknown, np.nan, growth)
