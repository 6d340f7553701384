"""The norms of delta_(T,t), the cotangents of the gates, for all losses T at all steps t.

With V = sum_g diag(mix_g) W_g a step back is one product per state, and the norm over all gates is
one over the states, each unit times the norm of its mix_g.
"""

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from rnngrad.probe.cells import STABLE, OneStep, mixed
from rnngrad.probe.cotangents import Cotangents
from rnngrad.probe.problem import Problem
from rnngrad.probe.scaled import ScaledRows, exponent_of, power_of_two
from rnngrad.probe.trajectory import Chunk, LayerRun, run_layers

BLOCK = 64  # steps before more losses are written in directions
CANCELLED = 1e-3  # where directions cancel to less than this part, their sum is not believed
SCALE_LIMIT = 2.0**16  # of a row: beside it, factors of 1e-300 are still no zeros
SQUARES = 1e-120  # norms below this are taken on a scale of their own


class Norms(NamedTuple):
    """||delta_(T,t)|| as mantissas and exponents (b, step, loss); zero where T < t."""

    mantissa: Tensor
    exponent: Tensor


class LayerNorms(NamedTuple):
    """Of the gates' input side and hidden side; they differ in the GRU only."""

    inputs: Norms
    hidden: Norms


def part_norms(
    problem: Problem, chunk: Chunk, gradients: Tensor
) -> list[tuple[LayerRun, LayerNorms]]:
    """For every layer, from dL_T/dh_T (b, T, H) of the last layer's output."""
    sweep = _Sweep(problem, chunk, gradients)
    sweep.run()
    return list(zip(sweep.runs, sweep.norms, strict=True))


class _Sweep:
    """All losses of a chunk, from the last step to the first."""

    def __init__(self, problem: Problem, chunk: Chunk, gradients: Tensor) -> None:
        self.runs = list(run_layers(problem, chunk, len(problem.cells) - 1))
        self.gradients = gradients.double()
        self.units = len(problem.cells[0].states) * problem.hidden  # of a layer
        self.norms = [self._no_norms(run) for run in self.runs]

    def _no_norms(self, run: LayerRun) -> LayerNorms:
        b, steps, _ = self.gradients.shape
        zero = self.gradients.new_zeros(b, steps, steps)
        hidden = Norms(zero, torch.zeros_like(zero, dtype=torch.int64))
        if run.path.q is None:
            return LayerNorms(hidden, hidden)
        return LayerNorms(Norms(*(torch.zeros_like(v) for v in hidden)), hidden)

    def run(self) -> None:
        patience = BLOCK
        now = Cotangents.none(self.gradients, len(self.runs) * self.units)
        for stop in range(self.gradients.shape[1], 0, -BLOCK):
            if now.waiting >= patience:
                now = now.compressed()
                patience = BLOCK if now.directions else 2 * patience
            block = slice(max(stop - BLOCK, 0), stop)
            before, now = now, self._through(now, block)
            if now is None:
                now = self._through(before.expanded(), block)
                assert now is not None  # without directions nothing cancels

    def _through(self, now: Cotangents, block: slice) -> Cotangents | None:
        """The cotangents before the block, from those after it; None if they are not believed."""
        ones = [run.cell.one_step(run.path, block, STABLE) for run in self.runs]
        room = now.with_room(block.stop - block.start)
        for t in reversed(range(block.start, block.stop)):
            live = room.without(t - block.start)
            self._states(live, len(ones) - 1)[0][:, 0] = self.gradients[:, t]
            _rescale(live)
            for layer in reversed(range(len(ones))):
                one = ones[layer].at(t - block.start)
                if not self._step(live, layer, one, t):
                    return None
        return room

    def _step(self, live: Cotangents, layer: int, one: OneStep, t: int) -> bool:
        """Note the norms and push the layer's cotangents back, in place; False: not believed."""
        cell, (h, *c) = self.runs[layer].cell, self._states(live, layer)
        if one.through is not None:
            c[0].addcmul_(h, one.through.unsqueeze(1))
        both = self._units(live, layer)
        norms = self.norms[layer]
        believed = _note(norms.hidden, t, live, both * _sizes(one.mix).unsqueeze(1))
        if norms.inputs is not norms.hidden:
            believed &= _note(norms.inputs, t, live, both * _sizes(one.mix_input).unsqueeze(1))
        if layer:
            self._states(live, layer - 1)[0].add_(both @ _transfer(one.mix_input, cell.weight_ih))
        arriving = both @ _transfer(one.mix, cell.weight_hh)
        if one.keep is not None:
            (c or [h])[0].mul_(one.keep.unsqueeze(1))
        if one.keep is None or c:
            h.copy_(arriving)
        else:
            h.add_(arriving)
        return believed

    def _units(self, live: Cotangents, layer: int) -> Tensor:
        """The layer's part of the rows."""
        return live.rows[:, :, layer * self.units : (layer + 1) * self.units]

    def _states(self, live: Cotangents, layer: int) -> list[Tensor]:
        """dL/dh and, of an LSTM, dL/dc."""
        return list(self._units(live, layer).split(self.gradients.shape[-1], dim=-1))


def _of_states(mix: Tensor) -> list[Tensor]:
    """The mix of the gates through which h is left, and of those through which c is; (b, g, H)."""
    return [mix[:, 3:], mix[:, :3]] if mix.shape[1] == 4 else [mix]


def _sizes(mix: Tensor) -> Tensor:
    """||delta|| = ||cotangents * these||, (b, states * H)."""
    return torch.cat([reduce(torch.hypot, part.unbind(1)) for part in _of_states(mix)], dim=-1)


def _transfer(mix: Tensor, weight: Tensor) -> Tensor:
    """delta @ weight = cotangents @ this, (b, states * H, columns of weight)."""
    w = weight.unflatten(0, (mix.shape[1], -1))
    of_states = zip(_of_states(mix), _of_states(w.unsqueeze(0)), strict=True)
    return torch.cat([mixed(part, v[0]) for part, v in of_states], dim=1)


def _rescale(live: Cotangents) -> None:
    """Every row of order 1, the directions together, if any is far from it."""
    size = torch.linalg.vector_norm(live.rows, dim=-1)
    live.share(size)
    if bool(((size > 1 / SCALE_LIMIT) & (size < SCALE_LIMIT)).all()):
        return
    top = live.rows.abs().amax(dim=-1)
    live.share(top)
    shift = torch.where(top == 0, 0, exponent_of(top))
    live.exponent.add_(shift)
    live.rows.mul_(power_of_two(-shift).unsqueeze(-1))


def _note(norms: Norms, t: int, live: Cotangents, delta: Tensor) -> bool:
    """Write the norms at step t, of delta (b, rows, states * H); False: not believed."""
    k = live.single
    own, last = norms.mantissa[:, t, t : t + k], norms.mantissa[:, t, t + k :]
    rows = torch.linalg.vector_norm(delta[:, :k], dim=-1)
    exponent = live.exponent[:, :k]
    if bool((rows < SQUARES).any()):
        scaled = ScaledRows.of(delta[:, :k], exponent)
        rows, exponent = torch.linalg.vector_norm(scaled.mantissa, dim=-1), scaled.exponent
    own.copy_(rows)
    norms.exponent[:, t, t : t + k] = exponent
    if not live.directions:
        return True
    top = exponent_of(delta[:, k:].abs().amax(dim=(1, 2), keepdim=True)).clamp(min=-1022)
    scaled_delta = delta[:, k:] * power_of_two(-top)
    gram = scaled_delta @ scaled_delta.mT
    squares = torch.linalg.vecdot(live.coefficients @ gram, live.coefficients)
    torch.sqrt(squares.clamp_(min=0), out=last)
    norms.exponent[:, t, t + k :] = live.last_exponent + live.scale + top.squeeze(-1)
    whole = gram.diagonal(dim1=1, dim2=2).sum(dim=1, keepdim=True)
    # squares know half as many digits of what is left
    return not bool((squares < CANCELLED**2 * live.squares * whole).any())
