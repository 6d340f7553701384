"""Padding in front of a batch, which nobody masks: one example runs through it for all.

The zeros take every comment through the same states. They run in stretches of equally many steps.
A stretch that ends in the state where it began stands for all that follow. On the way back, the
cotangent passes stretch after stretch until nothing is left of it.
"""

from typing import Any

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]  # h, and c for an LSTM, each (1, B, H)

STRETCH = 32  # steps between two looks at the state, or at the cotangent
# A stretch that moves the state by so many units of rounding has not moved it. That is less than
# half a unit a step, which the module itself would round away.
ROUNDING = 4
# A cotangent that shrinks and has fallen by this factor is dead. Float32 resolves 1e-7 of a sum;
# the rest is for earlier steps that would have let it grow again.
DEAD = 1e-13


def state_after_padding(module: nn.RNNBase, steps: int, state: State = ()) -> State:
    """The state of one example after zero inputs, equal to running the module over all of them.

    Differentiable with respect to the module's parameters and the state.

    Args:
        module: one layer with ``batch_first=True``.
        steps: how many zero inputs; there may be none.
        state: before them; the zero state where it is not given.
    """
    weights = tuple(module.parameters())
    zero = weights[0].new_zeros(1, 1, module.hidden_size)
    state = state or ((zero, zero) if isinstance(module, nn.LSTM) else (zero,))
    return _Padding.apply(module, steps, len(state), *state, *weights) if steps else state


def run_layer(module: nn.RNNBase, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """h (B, T, H) after every step, and the last state, for each kind of cell."""
    h, after = module(inputs, state if len(state) > 1 else state[0])
    return h, after if isinstance(after, tuple) else (after,)


class _Padding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, module: nn.RNNBase, steps: int, parts: int, *tensors: Tensor) -> State:
        state, weights = tensors[:parts], tensors[parts:]
        # the short stretch comes first, since only a full one can stand for others
        lengths = [n for n in (steps % STRETCH, *[STRETCH] * (steps // STRETCH)) if n]
        ctx.save_for_backward(*weights)
        ctx.stretches, ctx.runs = len(lengths), []
        for length in lengths:
            zeros = weights[0].new_zeros(1, length, module.input_size)
            with torch.enable_grad():
                before = tuple(part.detach().requires_grad_() for part in state)
                _, state = run_layer(module, zeros, before)
            ctx.runs.append((before, state))
            if length == STRETCH and _at_rest(before, state):
                break
        return tuple(part.detach() for part in state)

    @staticmethod
    def backward(ctx: Any, *cotangent: Tensor) -> tuple[Tensor | None, ...]:
        weights = ctx.saved_tensors  # raises an error if a weight has changed since
        sums = [torch.zeros_like(weight) for weight in weights]
        largest = last = 0.0
        for k in reversed(range(ctx.stretches)):
            size = max(float(part.abs().max()) for part in cotangent)
            largest = max(largest, size)
            if size <= min(last, DEAD * largest):
                return None, None, None, *(torch.zeros_like(part) for part in cotangent), *sums
            last = size
            before, after = ctx.runs[min(k, len(ctx.runs) - 1)]
            found = torch.autograd.grad(after, (*before, *weights), cotangent, retain_graph=True)
            cotangent = found[: len(before)]
            for total, part in zip(sums, found[len(before) :], strict=True):
                total += part
        return None, None, None, *cotangent, *sums


def _at_rest(before: State, after: State) -> bool:
    unit = ROUNDING * torch.finfo(after[0].dtype).eps
    pairs = zip(before, after, strict=True)
    return all(bool(((b - a).abs() <= unit * b.abs().clamp(min=1)).all()) for a, b in pairs)
