"""dL/dh_t and dL/dc_t at every step from one reverse pass, whatever their size."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from rnngrad.plot import Pictured, draw_losses, long_form
from rnngrad.probe._cotangents import TOO_SMALL, Arriving, Cotangents, scaled_back, swept_together
from rnngrad.probe._problem import Problem, problem_of
from rnngrad.probe._scaled import Array, ScaledRows, log10_of
from rnngrad.probe._settings import in_threads, prepared, stop_if_ended
from rnngrad.probe.curves import ABSENT

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class LossGradientCurves(Pictured):
    """log10 of the norms of dL/dh_t and dL/dc_t, (batch, time) float64; step t is column t-1.

    These are total derivatives: through the output at t, layers above and later steps; dL/dc_t
    through h_t as well. -inf where the gradient is exactly zero, NaN beyond an example's length.
    Where a mask keeps the state it keeps the value. Without a cell state log10_c is None.

    Examples:
        >>> import torch, rnngrad
        >>> gru, x, dL_dh = torch.nn.GRU(3, 4), torch.zeros(5, 2, 3), torch.ones(5, 2, 4)
        >>> rnngrad.loss_gradient_curves(gru, x, dL_dh)
        LossGradientCurves(layer=0, log10_h=2x5)
    """

    layer: int
    log10_h: Array
    log10_c: Array = ABSENT

    plot = draw_losses

    def _columns(self) -> dict[str, Array]:
        return {"h": self.log10_h} | ({} if self.log10_c is None else {"c": self.log10_c})

    def to_frame(self) -> "pd.DataFrame":
        """Long form: example, step (from 1), state, log10; only where there is a value."""
        return long_form("state", self._columns())


@prepared()
def loss_gradient_curves(
    module: nn.Module,
    inputs: Tensor,
    output_gradient: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    layer: int = -1,
    lengths: Sequence[int] | Array | Tensor | None = None,
    mask: Array | Tensor | None = None,
    final_state_gradient: Tensor | tuple[Tensor, Tensor] | None = None,
) -> LossGradientCurves:
    """How large the gradient of a loss is at every step on its way back.

    Args:
        module, inputs, initial_state, lengths, mask: as in `rnngrad.jacobian_curves`.
        output_gradient: dL/d output, shaped like the module's output. It is zero where the loss
            does not look (all steps but the last, say). Steps that do not count may hold anything.
        layer: whose states.
        final_state_gradient: dL/dh_n, for an LSTM (dL/dh_n, dL/dc_n), shaped as the module returns
            these states. It serves a loss that also looks at an example's last states.

    Everything is float64 with scales kept apart, per unit where units differ by more than 150
    decades. A step's factors are those of `jacobian_curves`. Computed on the CPU.

    Source: the adjoint of the one-step maps in `rnngrad.probe.cells`.
    Memory: float64 trajectories of a few examples (300 MiB per thread) and (batch, H) cotangents.

    Raises:
        InputError: a gradient that does not fit the output, and whatever `jacobian_curves` refuses.

    Examples:
        >>> import torch, rnngrad
        >>> lstm, x = torch.nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
        >>> gradient = torch.zeros(2, 5, 4)
        >>> gradient[:, -1] = 1
        >>> rnngrad.loss_gradient_curves(lstm, x, gradient).log10_h.shape
        (2, 5)
    """
    problem = problem_of(module, inputs, initial_state, lengths, mask).on_cpu()
    arriving = Arriving.of(problem, output_gradient, "output_gradient", final_state_gradient)
    sweep = _Sweep(problem, arriving, problem.layer_index(layer))
    in_threads(sweep.run, swept_together(problem), "loss gradients")
    found = (problem.counts.over_time(each[:, 1:], each[:, 0]) for each in sweep.found)
    return LossGradientCurves(sweep.layer, *found)


class _Sweep:
    """log10 of dL/dh and dL/dc: found (states, batch, time + 1), of the initial state first.

    Beyond an example's length they mean nothing.
    """

    def __init__(self, problem: Problem, arriving: Arriving, layer: int) -> None:
        self.problem, self.arriving, self.layer = problem, arriving, layer
        self.cells = problem.cells[layer:]  # those that the gradient passes, the wanted one first
        self.found = np.full((len(problem.initial), problem.batch, problem.steps + 1), np.nan)
        # products with such a weight could underflow where nothing tells
        weights = [cell.weight_hh for cell in self.cells] + [c.weight_ih for c in self.cells[1:]]
        self.tiny = any(((w != 0) & (w.abs() < TOO_SMALL)).any() for w in weights)

    def run(self, examples: Array) -> None:
        """Sweep some examples from their last steps to the first."""
        maps = [maps for *_, maps in self.problem.whole(examples)[self.layer :]]
        cotangents = Cotangents(self.cells, maps, len(examples))
        everyone, lost = slice(0, len(examples)), cotangents.lost
        for t in reversed(range(int(self.problem.lengths[examples].max()))):
            cotangents.add(self.arriving.at(t, examples, self.layer), everyone)
            for layer, h, c, delta in cotangents.back(t, everyone):
                if layer == 0:  # this is the wanted one, for those below are left out
                    norms = np.linalg.norm(cotangents.by_layer[0], axis=2)
                    self.found[:, examples, t + 1] = log10_of(norms, cotangents.exponent[0])
                lost |= _underflown(h, c, delta[0], maps[layer].mix[:, t])
            size = np.abs(cotangents.by_layer)
            lost |= (((size > 0) & (size < TOO_SMALL)) | ~np.isfinite(size)).any(axis=(0, 1, 3))
        norms = np.linalg.norm(cotangents.by_layer[0], axis=2)
        self.found[:, examples, 0] = log10_of(norms, cotangents.exponent[0])
        for example in examples[lost | self.tiny]:
            self._scaled(int(example))

    def _scaled(self, example: int) -> None:
        """One example again, with a scale per unit."""
        every = [run[2].each(itemgetter(0)) for run in self.problem.whole([example])[self.layer :]]
        final = self.arriving.final[self.layer :, :, example, :, None]
        states = [[ScaledRows.of(part) for part in parts] for parts in final]
        for t in reversed(range(int(self.problem.lengths[example]))):
            stop_if_ended()
            arriving, total = ScaledRows.of(self.arriving.output[example, t][:, None]), []
            for layer in reversed(range(len(states))):
                (h, *c), maps = states[layer], every[layer].each(itemgetter(t))
                total, arriving, states[layer] = scaled_back(
                    self.cells[layer], maps, [h + arriving, *c]
                )
            self.found[:, example, t + 1] = [part.log10_norm() for part in total]
        self.found[:, example, 0] = [part.log10_norm() for part in states[0]]


def _underflown(h: Array, c: Array, delta: Array, mix: Array) -> Array:
    """Say of which losses a product in delta (r, GH) may have underflown, (r,) bool."""
    of_states = np.stack([c] * (mix.shape[1] - 1) + [h], axis=1)
    there = (of_states != 0) & (mix != 0)
    return (there & (np.abs(delta.reshape(there.shape)) < TOO_SMALL)).any(axis=(1, 2))
