"""The tangents of many steps at once, where single steps are too small to keep the processor busy.

J_t = V_t dh_(t-1) + kept_t ds_(t-1) still takes a step after the other, but V, kept, the row norms
and what is read off them are made for all steps together, and the scale is looked at once for all.
That is safe while no row comes near the ends of the dtype's range. If one does, the steps are taken
again in halves, and those in which it does in the end one by one (`Propagation.step`).
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rnngrad.probe.cells import OneStep, StepMap
from rnngrad.probe.forward_pass import fits_numpy
from rnngrad.probe.processor import bytes_at_once
from rnngrad.probe.products import numpy_is_quicker
from rnngrad.probe.scaled import power_of_two
from rnngrad.probe.tangents import Propagation, Tangents, moderate, row_norms

# Of the tangents and maps of the steps that are taken together: they are read again at once.
BLOCK_BYTES = 6 * 2**20
FEW_MAPS = 16
FEW_ALONE = 24  # directions that are few for a single map, which is quickly made
FEWEST = 3  # steps; fewer are no quicker together
# Row norms stay within 2**ROWS_SPREAD of the scale: their squares are normal, and in float64 their
# fourth powers, in the sketch. Rows times three factors stay normal.
ROWS_SPREAD = {torch.float32: 50, torch.float64: 200}
FACTOR_SPREAD = {torch.float32: 25, torch.float64: 100}


def advance(run: Propagation, one: OneStep, running: list[int]) -> Iterator[tuple[slice, Tangents]]:
    """Consecutive steps of a block, and the tangents after each of them.

    one: the factors of the block (t, b, ...); running: how many slots have each of the steps. The
    tangents are those of the first step's running slots, then the second's, and so on; they hold
    until the next are asked for.
    """
    start = 0
    while start < len(running):
        n = running[start]
        stop = start + running[start : start + _most(run, n)].count(n)
        yield from _advance(run, one, slice(start, stop), n)
        start = stop


def _most(run: Propagation, n: int) -> int:
    """How many steps of n slots to take together."""
    rows, columns = run.J.shape[1:]
    matrix = run.w.shape[-1] if _in_maps(run, n) else 0
    most = bytes_at_once(run.J.device, BLOCK_BYTES)
    return max(1, most // (run.J.itemsize * n * rows * (columns + matrix)))


def _in_maps(run: Propagation, n: int) -> bool:
    """By the maps of the steps? Not where few directions are multiplied by a few large maps."""
    rows, columns = run.J.shape[1:]
    map_bytes = run.J.itemsize * n * rows * run.w.shape[-1]
    few = run.by_gate and (n > 1 or columns <= FEW_ALONE)
    return not few or map_bytes * FEW_MAPS <= BLOCK_BYTES


def _advance(
    run: Propagation, one: OneStep, steps: slice, n: int
) -> Iterator[tuple[slice, Tangents]]:
    """All at once, or else in halves, or else one by one."""
    count = steps.stop - steps.start
    if count >= FEWEST and run.rows is None:
        now = _together(run, one.each(lambda v: v[steps, :n]))
        if now is not None:
            yield steps, now
            return
    if count == 1:
        yield steps, run.step(one.at(steps.start), n)
        return
    middle = steps.start + count // 2
    yield from _advance(run, one, slice(steps.start, middle), n)
    yield from _advance(run, one, slice(middle, steps.stop), n)


def _together(run: Propagation, one: OneStep) -> Tangents | None:
    """All steps of `one` (t, n, ...), or None where one scale per example is not enough."""
    steps, n = one.mix.shape[:2]
    rows, columns = run.J.shape[1:]
    lost, taken = run.lost, run.taken
    rounded, dither = run.rounded_block(one)
    maps = _in_maps(run, n)
    shape = (rows, columns) if maps else (columns, rows)
    J = run.workspace.empty("J", steps + 1, n, *shape)
    J = J if maps else J.mT
    scale = power_of_two(-run.shift[:n]).to(run.dtype)
    torch.mul(run.J[:n], scale[:, None, None], out=J[0])
    if maps:
        _multiply(run, rounded, J)
    else:
        for t, (before, after) in enumerate(pairwise(J)):
            run.cell.few_tangents(rounded.at(t), run.W_T, before, run.work[:n], after)
    after = J[1:].flatten(0, 1)
    norms = row_norms(after)
    if not _nothing_lost(run, one, after, norms):
        run.lost, run.taken = lost, taken
        return None
    run.J[:n] = J[-1]
    run.exponent[:n] += run.shift[:n]
    run.shift[:n] = torch.frexp(norms[-n:].amax(dim=1)).exponent
    run.dither = float(dither[-1])
    exponent = (run.exponent[:n].double() - dither.log2().unsqueeze(1)).flatten()
    basis = run.basis
    if basis is not None:
        basis = basis[:n].expand(steps, *basis[:n].shape).flatten(0, 1)
    return Tangents(after, norms, exponent, basis)


def _multiply(run: Propagation, one: OneStep, J: Tensor) -> None:
    """Fill J (t + 1, n, rows, k) from J[0] on, with steps (t, n, ...)."""
    steps, n = one.mix.shape[:2]
    V = run.workspace.empty("V", steps * n, J.shape[2], run.w.shape[-1])
    maps = run.cell.step_map(one.each(lambda v: v.flatten(0, 1)), run.w, V)
    if fits_numpy(J) and numpy_is_quicker(*maps.V.shape[1:], J.shape[-1]):
        _multiply_in_numpy(maps, J, run.workspace.empty("kept", *J[1:].shape))
    else:
        _multiply_in_torch(maps, J)


@np.errstate(all="ignore")  # `_nothing_lost` looks
def _multiply_in_numpy(step: StepMap, J: Tensor, kept: Tensor) -> None:
    """A product of one matrix, or few columns, takes torch twice as long."""
    n, H = J.shape[1], step.V.shape[-1]
    maps = step.V.unflatten(0, (-1, n)).numpy(), J[:-1, :, :H].numpy(), J[1:].numpy()
    product = np.matmul
    if n == 1:
        maps, product = [v[:, 0] for v in maps], np.ndarray.dot
    if step.kept is None:
        for V, dh, after in zip(*maps, strict=True):
            product(V, dh, after)
        return
    # with all columns: NumPy repeats no number along the last axis as fast as torch
    kept.unflatten(2, (-1, H))[:] = step.kept.unflatten(0, (-1, n)).unsqueeze(-1)
    by_state = J.unflatten(2, (-1, H)).numpy()
    last = kept.unflatten(2, (-1, H)).numpy(), by_state[:-1, :, -1:], by_state[1:]
    term = np.empty_like(last[-1][0])
    for V, dh, after, kept_t, ds, by_state_t in zip(*maps, *last, strict=True):
        product(V, dh, after)
        np.add(by_state_t, np.multiply(kept_t, ds, term), by_state_t)


def _multiply_in_torch(step: StepMap, J: Tensor) -> None:
    n, H = J.shape[1], step.V.shape[-1]
    before, after = J[:-1], J[1:]
    V, dh = step.V.unflatten(0, (-1, n)), before[:, :, :H]
    if step.kept is None:
        for V_t, dh_t, new in zip(*(v.unbind() for v in (V, dh, after)), strict=True):
            torch.bmm(V_t, dh_t, out=new)
        return
    kept, ds = step.kept.unflatten(0, (-1, n)).unsqueeze(-1), before[:, :, None, -H:]
    by_state = after.unflatten(2, (-1, H))
    every = (kept, ds, by_state, V, dh, after)
    for kept_t, ds_t, new_by_state, V_t, dh_t, new in zip(
        *(v.unbind() for v in every), strict=True
    ):
        torch.mul(kept_t, ds_t, out=new_by_state)
        torch.baddbmm(new, V_t, dh_t, out=new)


def _nothing_lost(run: Propagation, one: OneStep, J: Tensor, norms: Tensor) -> bool:
    """Are all rows of moderate size, or truly zero?"""
    spread = ROWS_SPREAD[run.dtype]
    low, high = (norm.item() for norm in norms.aminmax())
    if low >= 2.0**-spread and high <= 2.0**spread:
        return True
    small = norms < 2.0**-spread
    # NaN is not below the limit either
    if not high <= 2.0**spread or bool((J[small] != 0).any()):
        return False
    # nothing as large as the rows, factors and weights can be here multiplies to zero
    factors = (run.w, *(v for v in one if v is not None))
    return all(moderate(v, FACTOR_SPREAD[run.dtype]) for v in factors)
