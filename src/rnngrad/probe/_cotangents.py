"""Backward: cotangents of the states of all layers, of many losses at once, one step at a time.

It serves the curves of one loss, the weight gradients of all, and autograd's own result. The last
has no scales; in the others every loss has its own power of two in every layer.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from torch import Tensor

from rnngrad.errors import InputError, check_memory
from rnngrad.probe._batch import batch_first, check_shape, states_of
from rnngrad.probe._problem import Problem
from rnngrad.probe._scaled import ZERO, Array, ScaledRows, exponent_of, times_power
from rnngrad.probe._settings import stop_if_ended
from rnngrad.probe.cells import Cell, StepMaps

CHUNK_BYTES = 2**28  # for the trajectories that a thread holds
# Parts of the batch, for as many threads. With fewer gates at a step NumPy's calls take longest.
PARTS, LEAST_GATES = 16, 2**14
TOO_SMALL = 2.0**-500  # beside numbers of order 1: its square loses digits in a norm


def chunks(problem: Problem, layers: int, parts: int) -> list[Array]:
    """The examples, similar lengths together, in about so many parts that fit into memory."""
    cell = problem.cells[0]
    bytes_each = 8 * problem.steps * layers * ((2 * cell.gate_count + 3) * problem.hidden)
    check_memory(bytes_each, "the states of an example need", "pass fewer steps")
    order = np.argsort(-problem.lengths.numpy(), kind="stable")
    size = max(1, min(CHUNK_BYTES // bytes_each, -(-len(order) // parts)))
    return [order[start : start + size] for start in range(0, len(order), size)]


def swept_together(problem: Problem) -> list[Array]:
    """The examples in chunks that are worth a thread when all of a chunk are swept at once."""
    gates = problem.batch * problem.cells[0].gate_count * problem.hidden
    return chunks(problem, len(problem.cells), max(1, min(PARTS, gates // LEAST_GATES)))


class Arriving(NamedTuple):
    """Where a loss looks: dL/d output (b, t, H), and at the last states (layers, states, b, H)."""

    output: Array
    final: Array
    lengths: Array

    @classmethod
    def of(cls, problem: Problem, output: Tensor, name: str, final: Any) -> Self:
        """Take gradients shaped as torch returns output and final states, and check them."""
        chunks(problem, len(problem.cells), 1)  # the trajectory of an example is checked as well
        needed = 16 * math.prod((*problem.counts.real.shape, problem.hidden))
        check_memory(needed, f"copies of {name} need", "pass fewer examples or steps")
        of_states = len(problem.initial), *problem.initial[0].shape
        of_kind = f"final_state_gradient of a {type(problem.cells[0]).__name__}"
        at_end = states_of(final, of_kind, of_states, problem.batched, "dL/dh_n", "dL/dc_n")
        counts, axes = problem.counts, (2 + problem.batched,)
        given = batch_first(output, axes, problem.batch_first, name).detach().cpu()
        shape = *counts.real.shape, problem.hidden
        check_shape(given, name, shape, " (batch, time, hidden), like the module's output")
        real = counts.cleared(given, name, "unit")
        unseen = given.flatten(1).any(dim=1) & ~real.flatten(1).any(dim=1)
        for b in unseen.nonzero().flatten().tolist() if final is None else ():
            raise InputError(
                f"{name} of example {b} is zero at every step that counts: does the loss look at "
                "padding? Take the output at the last step that counts, or final_state_gradient"
            )
        real = counts.counted(real).double().numpy()
        ends = np.stack([part.cpu().double().numpy() for part in at_end], axis=1)
        return cls(real, ends, problem.lengths.numpy())

    def at(self, t: int, examples: Array, layer: int = 0) -> Array:
        """Return what joins at step t (from 0), from a layer on: (layers, states, r, H)."""
        ends = self.lengths[examples] == t + 1
        found = np.where(ends[:, None], self.final[layer:, :, examples], 0.0)
        found[-1, 0] += self.output[examples, t]
        return found


class Cotangents:
    """dL/d(states)_t of `count` losses (r), for t from the last step down.

    maps: by layer, those of every step, (r or 1, t, ...). The results have their dtype. smallest:
    results below are flushed to zero. lost (r,): some became too small beside others. by_layer
    (layers, states, r, H): dL/dh and an LSTM's dL/dc, times 2**-exponent (layers, r).
    """

    def __init__(
        self, cells: Sequence[Cell], maps: list[StepMaps], count: int, smallest: float = 0.0
    ) -> None:
        self.cells, self.maps, dtype = cells, maps, maps[0].keep.dtype
        H, G, states = cells[0].hidden, cells[0].gate_count, 1 + (maps[0].through.shape[-1] > 0)
        self.by_layer = np.zeros((len(cells), states, count, H), dtype=dtype)
        self.exponent = np.zeros((len(cells), count), dtype=np.int64)
        self.lost = np.zeros(count, dtype=bool)
        for v in (v for own in maps for v in own[1:]):
            self.lost |= ((v != 0) & (np.abs(v) < TOO_SMALL)).reshape(len(v), -1).any(axis=1)
        self.far = 0 if self.lost.any() else 100  # such a factor needs a scale that keeps up
        self.smallest = dtype.type(smallest)
        with np.errstate(over="ignore"):  # as in the dtype that is judged
            self.weights = [cell.weight_hh.numpy().astype(dtype) for cell in cells]
        # the sides of the gates differ in the GRU only
        self.deltas = np.empty((2 if G == 3 else 1, count, G * H), dtype=dtype)

    def add(self, gradient: Array, losses: slice) -> None:
        """Add the gradients that join at a step, (layers, states, r, H); losses may begin there."""
        for layer, part in enumerate(gradient):
            self._join(layer, part, np.zeros(part.shape[1], dtype=np.int64), losses)

    def _join(self, layer: int, part: Array, power: Array, losses: slice) -> None:
        """Add part (states, r, H) times 2**power (r,) to a layer's own."""
        values, exponent = self.by_layer[layer], self.exponent[layer]
        arriving, new = np.full(len(exponent), ZERO), exponent_of(np.abs(part).max(axis=(0, 2)))
        arriving[losses] = np.where(new == ZERO, ZERO, new + power)
        # a loss far from order 1 is put there before anything is added
        held = exponent_of(np.abs(values).max(axis=2).max(axis=0))
        begins = held == ZERO
        exponent[begins] = arriving[begins].clip(-(2**30))
        shift = np.maximum(held, arriving - exponent)
        moved = ~begins & ((np.abs(held) > self.far) | (arriving > exponent + 100))
        if moved.any():
            exponent[moved] += shift[moved]
            values[:, moved] = self._times_power(values[:, moved], -shift[moved], moved)
        values[: len(part), losses] += self._times_power(part, power - exponent[losses], losses)

    def _times_power(self, v: Array, power: Array, losses: slice | Array) -> Array:
        found = times_power(v, power[:, None])
        self.lost[losses] |= ((v != 0) & (np.abs(found) < TOO_SMALL)).any(axis=(0, 2))
        return found

    def back(self, t: int, losses: slice) -> Iterator[tuple[int, Array, Array, Array]]:
        """Push some losses from step t (from 0) to t - 1, layer by layer from the last.

        Yields the layer, dL/dh_t and dL/dc_t (r, H), and delta (sides, r, GH). Without a cell state
        dL/dc_t is dL/dh_t. In delta the cotangents of the gates' hidden side come first.
        All hold until the next layer is asked for.
        """
        stop_if_ended()
        for layer in reversed(range(len(self.cells))):
            mix, mix_input, keep, through = (v[:, t] for v in self.maps[layer])
            states, delta = self.by_layer[layer][:, losses], self.deltas[:, losses]
            h, c, lstm = states[0], states[-1], len(states) > 1
            with np.errstate(all="ignore"):  # autograd's result may overflow
                if lstm:
                    c += h * through
                for side, factors in zip(delta, (mix, mix_input), strict=False):
                    gates = side.reshape(-1, *mix.shape[1:])
                    np.multiply(c[:, None], factors[:, :-1], out=gates[:, :-1])
                    np.multiply(h, factors[:, -1], out=gates[:, -1])
                    if self.smallest:
                        gates[np.abs(gates) < self.smallest] = 0
            yield layer, h, c, delta
            with np.errstate(all="ignore"):
                if layer:
                    below = delta[-1] @ self.cells[layer].weight_ih.numpy()
                    self._join(layer - 1, below[None], self.exponent[layer, losses], losses)
                kept = np.multiply(c, keep, out=c if lstm else None)
                np.matmul(delta[0], self.weights[layer], out=h)
                if not lstm and mix.shape[1] > 1:  # an RNN keeps nothing, not even an infinity
                    np.add(h, kept, out=h)
                if self.smallest:
                    states[np.abs(states) < self.smallest] = 0


def scaled_back(
    cell: Cell, maps: StepMaps, states: list[ScaledRows]
) -> tuple[list[ScaledRows], ScaledRows, list[ScaledRows]]:
    """One step back, a scale per unit: dL/d(states), dL/d(layer below), dL/d(states before)."""
    h, *c = states
    c = [own + h.times(maps.through) for own in c]
    last = [h, *c][-1]

    def pushed(weight: Tensor, mix: Array) -> ScaledRows:
        parts = (*(last.times(factor) for factor in mix[:-1]), h.times(mix[-1]))
        return ScaledRows.join(*parts).multiplied_by(weight.numpy().T)

    before, kept = pushed(cell.weight_hh, maps.mix), last.times(maps.keep)
    below = pushed(cell.weight_ih, maps.mix_input)
    return [h, *c], below, [before, kept] if c else [before + kept]
