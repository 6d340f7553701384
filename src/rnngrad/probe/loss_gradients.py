"""dL/dh_t and dL/dc_t at every step from one reverse pass, whatever their size."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.probe.arithmetic import exact_arithmetic, probing
from rnngrad.probe.cells import STABLE, Cotangent, OneStep, ScaledCotangent
from rnngrad.probe.curves import MaybeNone
from rnngrad.probe.problem import Problem, problem_of
from rnngrad.probe.scaled import LOG10_2, ZERO, ScaledRows, exponent_of, power_of_two
from rnngrad.probe.trajectory import Chunk, LayerRun, chunks, run_layers

if TYPE_CHECKING:
    import pandas as pd

# A unit this far (in powers of two) below the largest one leaves plain float64, which ends at 1022.
SPREAD_LIMIT = 500


@dataclass(frozen=True, eq=False)
class LossGradientCurves:
    """log10 of the norms of dL/dh_t and dL/dc_t, (batch, time) float64; step t is column t-1.

    Total derivatives, as autograd's for the states on the way: dL/dh_t holds what comes through the
    output at t, the layers above and all later steps; dL/dc_t what comes through h_t as well.
    -inf where the gradient is exactly zero; log10_c is None without a cell state.
    """

    layer: int
    log10_h: np.ndarray
    log10_c: np.ndarray | MaybeNone = None

    def to_frame(self) -> "pd.DataFrame":
        """Long form: example, step (from 1), state, log10."""
        import pandas as pd

        frames = []
        for name in ("h", "c"):
            values = getattr(self, f"log10_{name}")
            if values is not None:
                b, t = np.indices(values.shape).reshape(2, -1)
                columns = {"example": b, "step": t + 1, "state": name, "log10": values[b, t]}
                frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True)


@probing
def loss_gradient_curves(
    module: nn.Module,
    inputs: Tensor,
    output_gradient: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    layer: int = -1,
) -> LossGradientCurves:
    """How large the gradient of a loss is at every step on its way back.

    Args:
        module, inputs, initial_state: as in `rnngrad.jacobian_curves`.
        output_gradient: dL/d output, shaped like the module's output; zero where the loss does not
            look (all steps but the last, say).
        layer: whose states.

    Returns:
        Norms per example, in log10. Everything is float64 with scales kept apart, per unit where
        units differ by more than 150 decades.

    Source: the adjoint of the one-step maps in `rnngrad.probe.cells`.
    Memory: the float64 trajectory of a few examples (256 MiB) and (batch, H) cotangents.

    Raises:
        InputError: a gradient that does not fit the output, and whatever `jacobian_curves` refuses.
    """
    problem = problem_of(module, inputs, initial_state)
    gradient = problem.like_output(output_gradient, "output_gradient").detach()
    index = problem.layer_index(layer)
    found = {name: np.empty((problem.batch, problem.steps)) for name in problem.states}
    layers = len(problem.cells)
    with exact_arithmetic(problem.inputs.device):
        for chunk in chunks(problem, layers, 8 * problem.hidden * (problem.hidden + 8) * layers):
            sweep = _Sweep(problem, chunk)
            at = gradient[chunk.rows].double()
            for t in reversed(range(problem.steps)):
                norms = sweep.step(t, at[:, t], index)
                for name, norm in zip(problem.states, norms, strict=True):
                    found[name][chunk.rows.numpy(), t] = norm.cpu().numpy()
    return LossGradientCurves(index, found["h"], found.get("c"))


class _Sweep:
    """Cotangents of all layers' states, pushed back one step at a time.

    As in `rnngrad.probe.tangents`: one scale per example as long as that does, otherwise the step
    is taken again with one scale per unit.
    """

    def __init__(self, problem: Problem, chunk: Chunk) -> None:
        self.runs: list[LayerRun] = list(run_layers(problem, chunk, len(problem.cells) - 1))
        zero = problem.h.new_zeros(len(chunk.rows), 1, problem.hidden)
        c = zero if "c" in problem.states else None
        self.back = [Cotangent(zero, c) for _ in self.runs]
        self.exponent = torch.zeros(len(zero), dtype=torch.int64, device=zero.device)
        self.rows: list[ScaledCotangent] | None = None

    def step(self, t: int, output_gradient: Tensor, layer: int) -> list[Tensor]:
        """log10 norms of one layer's cotangents at step t; leaves all of them at step t - 1."""
        ones = [r.cell.one_step(r.path, slice(t, t + 1), STABLE).at(0) for r in self.runs]
        if self.rows is None:
            norms = self._quick(ones, output_gradient, layer)
            if norms is not None:
                return norms
            self.rows = [_scaled_cotangent(back, self.exponent) for back in self.back]
        return self._scaled(ones, output_gradient, layer, self.rows)

    def _quick(self, ones: list[OneStep], gradient: Tensor, layer: int) -> list[Tensor] | None:
        before = exponent_of(_largest(self.back)) + self.exponent
        top = torch.maximum(before, exponent_of(gradient.abs().amax(dim=1)))
        top = torch.where(top <= ZERO // 2, 0, top)
        scale = power_of_two(self.exponent - top)[:, None, None]
        arriving, norms = (gradient * power_of_two(-top).unsqueeze(1)).unsqueeze(1), []
        new: list[Cotangent] = []
        for index in reversed(range(len(self.runs))):
            cell, back = self.runs[index].cell, self.back[index]
            at_t = Cotangent(back.h * scale + arriving, None if back.c is None else back.c * scale)
            inputs, _, back = cell.cotangents(ones[index], at_t)
            if index == layer:
                total = cell.total(ones[index], at_t)
                norms = [_log10_norm(part, top) for part in total if part is not None]
            arriving = inputs @ cell.weight_ih
            new.insert(0, back)
        if not _comparable(new):
            return None
        self.back, self.exponent = new, top
        return norms

    def _scaled(
        self, ones: list[OneStep], gradient: Tensor, layer: int, rows: list[ScaledCotangent]
    ) -> list[Tensor]:
        arriving = _column(gradient, torch.zeros_like(self.exponent))
        norms: list[Tensor] = []
        for index in reversed(range(len(self.runs))):
            cell, back = self.runs[index].cell, rows[index]
            total, delta, rows[index] = cell.scaled_cotangents(
                ones[index], ScaledCotangent(back.h + arriving, back.c)
            )
            if index == layer:
                norms = [_log10_norm(*part.aligned()) for part in total if part is not None]
            arriving = delta.multiplied_by(cell.weight_ih.T.unsqueeze(0))
        self._return_to_quick(rows)
        return norms

    def _return_to_quick(self, rows: list[ScaledCotangent]) -> None:
        parts = [part for layer in rows for part in layer if part is not None]
        top = torch.stack([part.exponent.amax(dim=1) for part in parts]).amax(dim=0)
        lowest = torch.stack([part.exponent.amin(dim=1) for part in parts]).amin(dim=0)
        if bool((top - lowest < SPREAD_LIMIT // 2).all()):
            self.back = [_cotangent(layer, top) for layer in rows]
            self.exponent, self.rows = torch.where(top <= ZERO // 2, 0, top), None


def _scaled_cotangent(back: Cotangent, exponent: Tensor) -> ScaledCotangent:
    c = None if back.c is None else _column(back.c.squeeze(1), exponent)
    return ScaledCotangent(_column(back.h.squeeze(1), exponent), c)


def _cotangent(rows: ScaledCotangent, exponent: Tensor) -> Cotangent:
    at = exponent.unsqueeze(1)
    return Cotangent(rows.h.down_to(at).mT, None if rows.c is None else rows.c.down_to(at).mT)


def _column(x: Tensor, exponent: Tensor) -> ScaledRows:
    """(b, H) at a common exponent (b,) as H rows of one entry."""
    return ScaledRows.of(x.unsqueeze(-1), exponent.unsqueeze(1).expand(x.shape))


def _largest(parts: list[Cotangent]) -> Tensor:
    """The largest entry of all layers, (b,)."""
    return torch.stack([v.abs().amax(dim=(1, 2)) for p in parts for v in p if v is not None]).amax(
        0
    )


def _comparable(parts: list[Cotangent]) -> bool:
    """No unit is so small beside the others that the next step could lose it."""
    top = _largest(parts)
    lowest = torch.stack(
        [v.abs().amin(dim=(1, 2)) for p in parts for v in p if v is not None]
    ).amin(0)
    return bool((torch.isfinite(top) & (lowest >= top * 2.0**-SPREAD_LIMIT)).all())


def _log10_norm(x: Tensor, exponent: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x.flatten(1), dim=1).log10()
    return torch.where(norm == -torch.inf, norm, norm + exponent.double() * LOG10_2)
