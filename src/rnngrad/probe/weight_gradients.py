"""Which step does a weight's gradient come from?

The gradient of one loss L_T is a sum over steps t <= T, dL_T/dW = sum_t delta_(T,t) (x) input_t,
with delta the cotangent of the gates. One sweep back takes all losses: the whole T x T triangle.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
from torch import Tensor, nn

from rnngrad.errors import InputError, check_memory
from rnngrad.plot import Pictured, columns_of_parts, draw_parts
from rnngrad.probe._cotangents import Arriving, Cotangents, swept_together
from rnngrad.probe._problem import Problem, problem_of
from rnngrad.probe._scaled import Array, ScaledRows, log10_of, times_power
from rnngrad.probe._settings import in_threads, prepared

REDUCTIONS = ("norm", "log10_norm", "none", "curve")
# From this many steps * H^2 on, an example is cut: two threads take 0.6 of the time of one.
PARTS, MIN_WORK = 4, 2**22
SIDES = {"ih": -1, "hh": 0}  # where the gates' cotangents of each side stand
Span = tuple[int, int, int]  # an example, the first of its losses, and their end
ONE = ScaledRows.of(np.ones((1, 1)))


class WeightGradientParts(Pictured, dict[str, Array]):
    """An array for each weight, by torch's flat name (weight_ih_l0, bias_hh_l1, ...).

    Examples:
        >>> import torch, rnngrad
        >>> gru, x = torch.nn.GRU(3, 4, bias=False), torch.zeros(5, 2, 3)
        >>> rnngrad.weight_gradient_parts(gru, x, torch.ones(5, 2, 4))
        WeightGradientParts(weight_ih_l0=2x5x5, weight_hh_l0=2x5x5)
    """

    def __init__(self, parts: dict[str, Array], reduce: str) -> None:
        super().__init__(parts)
        self.reduce = reduce

    _title = "log10 of what a step adds to the gradient (of the last loss), medians over examples"
    plot = draw_parts
    _columns = columns_of_parts


@prepared()
def weight_gradient_parts(
    module: nn.Module,
    inputs: Tensor,
    output_gradients: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    reduce: Literal["norm", "log10_norm", "none", "curve"] = "norm",
    lengths: Sequence[int] | Array | Tensor | None = None,
    mask: Array | Tensor | None = None,
    final_state_gradient: Tensor | tuple[Tensor, Tensor] | None = None,
) -> WeightGradientParts:
    """The part of dL_T/dW that enters at each step t, for every loss L_T at once.

    Args:
        module, inputs, initial_state, lengths, mask: as in `rnngrad.jacobian_curves`.
        output_gradients: shaped like the module's output; the entry at step T is dL_T/dh_T of the
            last layer. Where steps do not count it may hold anything.
        reduce: "norm": the Frobenius norm of each part. "log10_norm": its log10, which does not
            underflow. "none": the parts themselves. "curve": log10 of the norm of what step t adds
            to sum_T L_T's gradient. It takes time steps, not time^2. Logarithms are -inf where a
            part is zero, or lies in units alone that went 300 decades below others of its loss.
        final_state_gradient: as in `rnngrad.loss_gradient_curves`, of the loss at the last step.

    Returns:
        A dict: for each weight a float64 array (batch, T_loss, T_step), followed by the weight's
        shape for "none". It is zero (log10: -inf) above the diagonal and where steps do not
        count. The sum of the parts over both step axes is autograd's gradient of sum_T L_T, in a
        parametrized module (weight_norm) that of the effective weight, `module.weight_hh_l0`.
        For "curve" the arrays are (batch, T_step), NaN beyond the lengths. The dict's
        `.plot(ax=None, weight="weight_hh_l0")` draws it.

    Memory: what is returned; each thread holds the float64 trajectory of one example.
    Cost: time^2 / 2 products of a vector with W_hh per example and layer, on the CPU.
    Source: backpropagation through time; the norm of an outer product is the product of the norms.

    Raises:
        InputError: an unknown reduction, gradients that do not fit the output, parts beyond the
            memory, and whatever `jacobian_curves` refuses.

    Examples:
        >>> import torch, rnngrad
        >>> gru, x = torch.nn.GRU(3, 4, batch_first=True), torch.zeros(2, 5, 3)
        >>> parts = rnngrad.weight_gradient_parts(gru, x, torch.ones(2, 5, 4))
        >>> parts["weight_hh_l0"].shape
        (2, 5, 5)
    """
    problem = problem_of(module, inputs, initial_state, lengths, mask).on_cpu()
    if reduce not in REDUCTIONS:
        raise InputError(f"reduce={reduce!r}: use one of {', '.join(REDUCTIONS)}")
    arriving = Arriving.of(problem, output_gradients, "output_gradients", final_state_gradient)
    if reduce == "curve":
        return WeightGradientParts(_curves(problem, arriving), reduce)
    out = _empty(problem, reduce)
    fill = partial(_fill, out, problem, arriving, reduce)
    in_threads(fill, _spans(problem), "weight gradients")
    return WeightGradientParts(out, reduce)


def _empty(problem: Problem, reduce: str) -> dict[str, Array]:
    time = problem.counts.real.shape[1]
    triangle = (problem.batch, time, time)
    shapes = {n: shape if reduce == "none" else () for n, shape in problem.weight_shapes.items()}
    size = 8 * math.prod(triangle) * sum(map(math.prod, shapes.values()))
    mend = 'use reduce="norm"' if reduce == "none" else "pass fewer examples or steps at a time"
    check_memory(size, "the parts need", mend)
    fill = -np.inf if reduce == "log10_norm" else 0.0
    return {name: np.full((*triangle, *shape), fill) for name, shape in shapes.items()}


def _spans(problem: Problem) -> list[Span]:
    """Cut the losses of every example into spans of about equal work."""
    whole = problem.steps * problem.hidden**2 < MIN_WORK
    count = 1 if whole else -(-PARTS // problem.batch)
    edges = np.sqrt(np.arange(count + 1) / count)  # a loss at T is swept back over T steps
    cuts = [np.unique(np.rint(edges * n).astype(int)).tolist() for n in problem.lengths.tolist()]
    return [(example, *span) for example, own in enumerate(cuts) for span in pairwise(own)]


def _fill(
    out: dict[str, Array], problem: Problem, arriving: Arriving, reduce: str, span: Span
) -> None:
    """Write a part of one example: out[name][example] is (T_loss, T_step, ...)."""
    example, earliest, end = span
    # the positions of the steps that count
    at = np.flatnonzero(problem.counts.real[example].numpy())[:end]
    whole = reduce == "none"
    of_size = log10_of if reduce == "log10_norm" else times_power
    runs = problem.whole([example])
    cotangents = Cotangents(problem.cells, [maps for *_, maps in runs], len(at))
    # delta meets the layer's inputs on its input side, the states before the step on the other
    entering = [
        {"ih": _entering(x[0], whole), "hh": _entering(np.vstack((h_0, h[0, :-1])), whole)}
        for (h_0, *_), (x, h, _) in zip(problem.start([example], len(runs)), runs, strict=True)
    ]
    for t in reversed(range(len(at))):
        losses = slice(max(t, earliest), len(at))  # those at t and later
        joins = slice(t, t + (t >= earliest))  # no loss joins before the part's first
        cotangents.add(arriving.at(t, np.array([example])), joins)
        for layer, _, _, sides in cotangents.back(t, losses):
            for kind, side in SIDES.items():
                gates = sides[side] if whole else _norms(sides[side])
                delta = ScaledRows.of(gates, cotangents.exponent[layer, losses])
                met = entering[layer][kind].read(slice(t, t + 1))
                for name, factor in (("weight", met), ("bias", ONE)):
                    target = out.get(f"{name}_{kind}_l{layer}")
                    if target is not None:  # a module without biases has no parts of theirs
                        outer = delta.mantissa[:, :, None] * factor.mantissa
                        part = of_size(outer, (delta.exponent + factor.exponent)[:, None, None])
                        target[example, at[losses], at[t]] = part.reshape(-1, *target.shape[3:])


def _curves(problem: Problem, arriving: Arriving) -> dict[str, Array]:
    """By weight, log10 norms (batch, time). All losses of an example are swept as one."""
    real, lengths = problem.counts.real.numpy(), problem.lengths.numpy()
    size = 8 * real.size * len(problem.weight_shapes)
    check_memory(size, "the curves need", "pass fewer examples or steps at a time")
    found = {name: np.full(real.shape, -np.inf) for name in problem.weight_shapes}

    def run(examples: Array) -> None:
        runs, count = problem.whole(examples), len(examples)
        cotangents = Cotangents(problem.cells, [maps for *_, maps in runs], count)
        steps = np.arange(lengths[examples].max())
        sizes = np.empty((len(cotangents.deltas), len(runs), count, len(steps)))
        exponents = np.empty(sizes.shape[1:], dtype=np.int64)
        for t in reversed(steps.tolist()):
            cotangents.add(arriving.at(t, examples), slice(0, count))
            for layer, _, _, sides in cotangents.back(t, slice(0, count)):
                exponents[layer, :, t] = cotangents.exponent[layer]
                for size, delta in zip(sizes, sides, strict=True):
                    size[layer, :, t] = _norms(delta)[:, 0]
        starts, counted = problem.start(examples, len(runs)), steps < lengths[examples, None]
        rows, at = real[examples].nonzero()
        for layer, ((h_0, *_), (x, h, _)) in enumerate(zip(starts, runs, strict=True)):
            before = np.concatenate((h_0[:, None], h[:, :-1]), axis=1)
            for kind, enters in (("ih", x), ("hh", before)):
                delta = log10_of(sizes[SIDES[kind], layer], exponents[layer])
                met = _entering(enters, whole=False)
                parts = {"weight": delta + log10_of(met.mantissa[..., 0], met.exponent)}
                for name, values in (parts | {"bias": delta}).items():
                    target = found.get(f"{name}_{kind}_l{layer}")
                    if target is not None:
                        target[examples[rows], at] = values[counted]

    in_threads(run, swept_together(problem), "weight gradients")
    return {name: problem.counts.ended(values) for name, values in found.items()}


def _norms(delta: Array) -> Array:
    """The norms (r, 1) of rows."""
    norms = np.sqrt(np.einsum("ri,ri->r", delta, delta))
    small = np.flatnonzero(norms < 2.0**-400)  # their squares may have underflown
    if len(small):
        rows = ScaledRows.of(delta[small])
        norms[small] = times_power(np.linalg.norm(rows.mantissa, axis=1), rows.exponent)
    return norms[:, None]


def _entering(x: Array, whole: bool) -> ScaledRows:
    """The rows that enter at every step (..., t, d), or their norms (..., t, 1)."""
    rows = ScaledRows.of(x)
    norms = np.linalg.norm(rows.mantissa, axis=-1, keepdims=True)
    return rows if whole else ScaledRows(norms, rows.exponent)
