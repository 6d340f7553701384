"""Which step does a weight's gradient come from?

The gradient of one loss L_T with respect to a weight W is a sum over the steps t <= T at which W is
used: dL_T/dW = sum_t delta_(T,t) (x) input_t, with delta the cotangent of the gates. All losses are
swept back through time together, so the whole T x T triangle costs one sweep. For the norms alone
see `rnngrad.probe.part_norms`.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.errors import InputError
from rnngrad.probe.arithmetic import exact_arithmetic, probing
from rnngrad.probe.cells import STABLE, Cell, Cotangent
from rnngrad.probe.part_norms import Norms, part_norms
from rnngrad.probe.problem import Problem, problem_of
from rnngrad.probe.scaled import LOG10_2, ScaledRows, exponent_of, power_of_two
from rnngrad.probe.trajectory import Chunk, LayerRun, chunks, run_layers, trajectory_bytes

REDUCTIONS = ("norm", "log10_norm", "none")
NORMAL = 2.0**-960  # a norm above it has all its digits
PARTS_LIMIT = 4 * 2**30  # bytes of reduce="none"


@probing
def weight_gradient_parts(
    module: nn.Module,
    inputs: Tensor,
    output_gradients: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    reduce: str = "norm",
) -> dict[str, np.ndarray]:
    """The part of dL_T/dW that enters at each step t, for every loss L_T at once.

    Args:
        module, inputs, initial_state: as in `rnngrad.jacobian_curves`.
        output_gradients: dL_T/dh_T, shaped like the module's output: the entry at step T is the
            gradient of the loss at step T with respect to the output of the last layer at T.
        reduce: "norm": the Frobenius norm of each part. "log10_norm": its log10, which does not
            underflow (-inf where a part is zero). "none": the parts themselves.

    Returns:
        For each weight of the module, by torch's flat name (weight_ih_l0, bias_hh_l1, ...), a
        float64 array (batch, T_loss, T_step), followed by the weight's shape for "none". It is zero
        above the diagonal (T_step > T_loss). The sum of the parts over both step axes is autograd's
        gradient of sum_T L_T. Of a parametrized module (weight_norm, orthogonal) it is the gradient
        with respect to the effective weight, `module.weight_hh_l0`, not to what that is made of.

    Memory: one array (batch, time, time) of float64 per weight is returned; computing norms takes
    two to four more for some examples at a time, and their float64 trajectory.
    Cost: time^2 / 2 products of a vector with W_hh per example, layer and state (gate, for "none").
    Of the norms, losses far ahead are pushed back in the directions that still matter, where these
    are few; norms are then known to about 1e-9 of themselves. Cotangents have a scale per loss;
    units of one layer may be 300 decades apart.

    Source: backpropagation through time; the norm of an outer product is the product of the norms.

    Raises:
        InputError: an unknown reduction, gradients that do not fit the output, parts that would not
            fit into 4 GiB, norms that do not fit into memory, and whatever `jacobian_curves`
            refuses.
    """
    problem = problem_of(module, inputs, initial_state)
    gradients = problem.like_output(output_gradients, "output_gradients").detach()
    if reduce not in REDUCTIONS:
        raise InputError(f"reduce={reduce!r}: use one of {', '.join(REDUCTIONS)}")
    out = _empty(problem, problem.weight_shapes, reduce)
    layers = len(problem.cells)
    held = trajectory_bytes(problem, problem.steps) * 4 * layers
    if reduce != "none":
        held += 16 * problem.steps**2 * layers
    with exact_arithmetic(problem.inputs.device):
        for chunk in chunks(problem, layers, held):
            if reduce == "none":
                _fill_parts(out, problem, chunk, gradients)
            else:
                _fill_norms(out, problem, chunk, gradients, reduce)
    return out


def _fill_norms(
    out: dict[str, np.ndarray], problem: Problem, chunk: Chunk, gradients: Tensor, reduce: str
) -> None:
    of_layers = part_norms(problem, chunk, gradients[chunk.rows])
    for layer, ((_, x, path), norms) in enumerate(of_layers):
        hidden = _Reduced.of(norms.hidden, reduce)
        same = norms.inputs is norms.hidden
        inputs = hidden if same else _Reduced.of(norms.inputs, reduce)
        for name, delta, entering in (
            (f"weight_ih_l{layer}", inputs, x),
            (f"weight_hh_l{layer}", hidden, path.h[:-1]),
            (f"bias_ih_l{layer}", inputs, None),
            (f"bias_hh_l{layer}", hidden, None),
        ):
            if name in out:  # a module without biases has no parts of theirs
                part = delta.values if entering is None else delta.times(entering, reduce)
                out[name][chunk.rows.numpy()] = part.mT.cpu().numpy()


class _Reduced(NamedTuple):
    """The norms of delta (b, step, loss), and what they are once they are reduced."""

    norms: Norms
    values: Tensor

    @classmethod
    def of(cls, norms: Norms, reduce: str) -> "_Reduced":
        if reduce == "log10_norm":
            return cls(norms, norms.mantissa.log10() + norms.exponent.double() * LOG10_2)
        return cls(norms, _times_power(*norms))

    def times(self, entering: Tensor, reduce: str) -> Tensor:
        """With what delta meets at every step, (step, b, d)."""
        zero = self.norms.exponent.new_zeros(entering.shape[1], entering.shape[0])
        rows = ScaledRows.of(entering.transpose(0, 1), zero)
        norm = torch.linalg.vector_norm(rows.mantissa, dim=-1, keepdim=True)
        exponent = rows.exponent.unsqueeze(-1)
        if reduce == "log10_norm":
            return self.values + (norm.log10() + exponent.double() * LOG10_2)
        part = self.values * _times_power(norm, exponent)
        sure = (part > NORMAL) & (self.values > NORMAL) & torch.isfinite(part)
        rest = (~sure & (self.norms.mantissa > 0)).nonzero(as_tuple=True)
        norm = norm.expand_as(part)[rest] * self.norms.mantissa[rest]
        exponent = exponent.expand_as(part)[rest] + self.norms.exponent[rest]
        part[rest] = _times_power(norm, exponent)
        return part


def _fill_parts(
    out: dict[str, np.ndarray], problem: Problem, chunk: Chunk, gradients: Tensor
) -> None:
    sweep = _Sweep(problem, chunk, gradients)
    for t in reversed(range(problem.steps)):
        for name, delta, entering in sweep.step(t):
            if name in out:
                part = _outer_product(delta, entering, sweep.exponent[:, t:])
                out[name][chunk.rows.numpy(), t:, t] = part.cpu().numpy()


def _empty(problem: Problem, shapes: dict[str, tuple[int, ...]], reduce: str):
    triangle = (problem.batch, problem.steps, problem.steps)
    if reduce == "none":
        size = 8 * int(np.prod(triangle)) * sum(int(np.prod(s)) for s in shapes.values())
        if size > PARTS_LIMIT:
            raise InputError(f'reduce="none" would need {size / 2**30:.0f} GiB; use reduce="norm"')
        return {name: np.zeros((*triangle, *shape)) for name, shape in shapes.items()}
    try:
        return {name: np.empty(triangle) for name in shapes}
    except MemoryError as error:
        size = 8 * int(np.prod(triangle)) * len(shapes)
        raise InputError(
            f"the norms would need {size / 2**30:.0f} GiB: pass fewer examples or steps at a time"
        ) from error


class _Part(NamedTuple):
    """delta (b, loss, gates) and what it meets (b, d); None for a bias."""

    name: str
    delta: Tensor
    entering: Tensor | None


class _Sweep:
    """Cotangents of all losses, pushed back one step at a time through all layers.

    h[layer] and c[layer] are (b, loss, H) with exponents (b, loss) common to all layers.
    """

    def __init__(self, problem: Problem, chunk: Chunk, gradients: Tensor) -> None:
        self.runs: list[LayerRun] = list(run_layers(problem, chunk, len(problem.cells) - 1))
        self.gradients = gradients[chunk.rows].double()
        shape = (len(chunk.rows), problem.steps, problem.hidden)
        self.h = [self.gradients.new_zeros(shape) for _ in self.runs]
        self.c = [self.gradients.new_zeros(shape) for _ in self.runs]
        self.exponent = torch.zeros(shape[:2], dtype=torch.int64, device=gradients.device)

    def step(self, t: int) -> list[_Part]:
        """The parts that enter at step t; leaves the cotangents at step t - 1."""
        self._rescale(t)
        self.h[-1][:, t] += self.gradients[:, t]
        parts = []
        for layer in reversed(range(len(self.runs))):
            cell, x, path = self.runs[layer]
            inputs, hidden = self._through(layer, cell, t)
            if layer:
                self.h[layer - 1][:, t:] += inputs @ cell.weight_ih
            parts += [
                _Part(f"weight_ih_l{layer}", inputs, x[t]),
                _Part(f"weight_hh_l{layer}", hidden, path.h[t]),
                _Part(f"bias_ih_l{layer}", inputs, None),
                _Part(f"bias_hh_l{layer}", hidden, None),
            ]
        return parts

    def _through(self, layer: int, cell: Cell, t: int) -> tuple[Tensor, Tensor]:
        one = cell.one_step(self.runs[layer].path, slice(t, t + 1), STABLE).at(0)
        at_t = Cotangent(self.h[layer][:, t:], self.c[layer][:, t:])
        inputs, hidden, back = cell.cotangents(one, at_t)
        self.h[layer][:, t:] = back.h
        if back.c is not None:
            self.c[layer][:, t:] = back.c
        return inputs, hidden

    def _rescale(self, t: int) -> None:
        """The largest cotangent of every loss of order 1."""
        later = [v[:, t:] for v in (*self.h, *self.c)]
        top = torch.stack([v.abs().amax(dim=-1) for v in later]).amax(dim=0)
        shift = torch.where(top == 0, 0, exponent_of(top))
        self.exponent[:, t:] += shift
        for v in later:
            v *= power_of_two(-shift).unsqueeze(-1)


def _outer_product(delta: Tensor, entering: Tensor | None, exponent: Tensor) -> Tensor:
    # a loss's gates may lie 300 decades below its scale: their products would be lost
    part, exponent = ScaledRows.of(delta, exponent)
    if entering is not None:
        met = ScaledRows.of(entering.unsqueeze(1), exponent.new_zeros(len(entering), 1))
        part = torch.einsum("bTi,bj->bTij", part, met.mantissa.squeeze(1))
        exponent = exponent + met.exponent
    return _times_power(part, exponent.reshape(*exponent.shape, *(1,) * (part.dim() - 2)))


def _times_power(x: Tensor, exponent: Tensor) -> Tensor:
    """x * 2**exponent wherever that is a float64, though 2**exponent alone may not be one."""
    total = (exponent_of(x) + exponent).clamp(-2000, 2000)
    half = total.div(2, rounding_mode="floor")
    return torch.frexp(x).mantissa * power_of_two(half) * power_of_two(total - half)
