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
# A state rests if a stretch moves no entry by more units of rounding of the largest. That is
# less than half a unit a step, which the module itself would round away.
ROUNDING = 4
# A cotangent is dead below this part of a rounding unit of the largest one that was met.
DEAD = 1e-3


def state_after_padding(module: nn.RNNBase, steps: int, state: State = ()) -> State:
    """The state of one example after ``steps`` zero inputs, from ``state`` or else the zero state.

    Equal to running the module, one layer with ``batch_first=True``, over all of them.
    Differentiable with respect to the module's parameters and the state.
    """
    weights = tuple(weight for weight in module.parameters() if weight.requires_grad)
    zero = next(module.parameters()).new_zeros(1, 1, module.hidden_size)
    state = state or ((zero, zero) if isinstance(module, nn.LSTM) else (zero,))
    stretches, rest = divmod(steps, STRETCH)
    state = _run_zeros(module, rest, state) if rest else state
    return _Stretches.apply(module, stretches, len(state), *state, *weights) if stretches else state


def run_layer(module: nn.RNNBase, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """h (B, T, H) after every step, and the last state, for each kind of cell."""
    h, after = module(inputs, state if isinstance(module, nn.LSTM) else state[0])
    return h, after if isinstance(after, tuple) else (after,)


class _Stretches(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, module: nn.RNNBase, count: int, parts: int, *tensors: Tensor) -> State:
        state: State = tensors[:parts]
        ctx.save_for_backward(*tensors[parts:])
        ctx.count, ctx.runs = count, []
        unit = ROUNDING * torch.finfo(state[0].dtype).eps
        for _ in range(count):
            with torch.enable_grad():
                before = tuple(part.detach().requires_grad_() for part in state)
                state = _run_zeros(module, STRETCH, before)
            ctx.runs.append((before, state))
            pairs = zip(before, state, strict=True)
            if all(torch.allclose(old, new, 0, unit * _size((new,))) for old, new in pairs):
                break
        return tuple(part.detach() for part in state)

    @staticmethod
    def backward(ctx: Any, *cotangent: Tensor) -> tuple[Tensor | None, ...]:
        weights = ctx.saved_tensors  # raises an error if a weight has changed since
        dead, largest = DEAD * torch.finfo(cotangent[0].dtype).eps, _size(cotangent)
        gradients = [torch.zeros_like(weight) for weight in weights]
        for k in reversed(range(ctx.count)):
            before, after = ctx.runs[min(k, len(ctx.runs) - 1)]
            found = torch.autograd.grad(after, before + weights, cotangent, retain_graph=True)
            cotangent = found[: len(before)]
            for gradient, part in zip(gradients, found[len(before) :], strict=True):
                gradient += part
            largest = max(size := _size(cotangent), largest)
            if size <= dead * largest:
                cotangent = tuple(torch.zeros_like(part) for part in cotangent)
                break
        return None, None, None, *cotangent, *gradients


def _size(state: State) -> float:
    return max(float(part.abs().max()) for part in state)


def _run_zeros(module: nn.RNNBase, steps: int, state: State) -> State:
    return run_layer(module, state[0].new_zeros(1, steps, module.input_size), state)[1]
