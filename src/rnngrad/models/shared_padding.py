"""Padding in front of a batch, which nobody masks: one example runs through it for all.

The zeros take every comment through the same states. They run in stretches of equally many steps,
until one ends in the state where it began: all later steps rest there. On the way back, the
Jacobian of a resting step takes the cotangent through all of them. Then it passes stretch after
stretch, until nothing is left of it. One run of the stretches it met, as one batch, gives the
gradient of the weights.
"""

from typing import Any

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]  # h, and c for an LSTM, each (1, B, H)

STRETCH = 32  # steps between two looks at the state, or at the cotangent
# A stretch that moves the state by so many units of rounding has not moved it. That is less than
# half a unit a step, which the module itself would round away.
ROUNDING = 4
# A cotangent that has fallen to this share of a unit of rounding is dead. The share is for earlier
# steps, which might let it grow again.
DEAD = 1e-3


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
    if steps >= STRETCH:
        *parts, steps = _Stretches.apply(module, steps, len(state), *state, *weights)
        state = tuple(parts)
    return _run_zeros(module, steps, state) if steps else state


def run_layer(module: nn.RNNBase, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """h (B, T, H) after every step, and the last state, for each kind of cell."""
    h, after = module(inputs, state if isinstance(module, nn.LSTM) else state[0])
    return h, after if isinstance(after, tuple) else (after,)


class _Stretches(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, module: nn.RNNBase, steps: int, parts: int, *tensors: Tensor) -> Any:
        """The state, and how many steps are left to run."""
        state: State = tensors[:parts]
        ctx.save_for_backward(*tensors[parts:])
        ctx.module, ctx.runs, ctx.rests, ctx.period = module, [], 0, 1
        while steps >= STRETCH:
            with torch.enable_grad():
                before = tuple(part.detach().requires_grad_() for part in state)
                state = _run_zeros(module, STRETCH, before)
            ctx.runs.append((before, state))
            steps -= STRETCH
            if _at_rest(before, state):
                if not _at_rest(state, _run_zeros(module, 1, state)):
                    ctx.period = STRETCH  # it moves, and comes back
                ctx.rests, steps = divmod(steps, ctx.period)
                break
        return *(part.detach() for part in state), steps

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        weights = ctx.saved_tensors  # raises an error if a weight has changed since
        cotangent: State = gradients[:-1]
        dead = DEAD * torch.finfo(weights[0].dtype).eps * _size(cotangent)
        parts: list[tuple[int, State, State]] = []  # steps, states before them, cotangents after
        if ctx.rests:
            rest = tuple(part.detach() for part in ctx.runs[-1][1])
            jacobian = _jacobian(ctx.module, ctx.period, rest)
            total, cotangent = _through_rest(jacobian, ctx.rests, cotangent, dead)
            parts.append((ctx.period, rest, total))
        met: list[tuple[State, State]] = []
        for before, after in reversed(ctx.runs):
            if (met or parts) and _size(cotangent) <= dead:
                cotangent = tuple(torch.zeros_like(part) for part in cotangent)
                break
            met.append((before, cotangent))
            cotangent = torch.autograd.grad(after, before, cotangent, retain_graph=True)
        if met:
            states, cotangents = (
                tuple(torch.cat(part, dim=1) for part in zip(*one, strict=True))
                for one in zip(*met, strict=True)
            )
            parts.append((STRETCH, states, cotangents))
        with torch.enable_grad():
            ends = [end for n, state, _ in parts for end in _run_zeros(ctx.module, n, state)]
        given = [part for *_, after in parts for part in after]
        return None, None, None, *cotangent, *torch.autograd.grad(ends, weights, given)


def _jacobian(module: nn.RNNBase, steps: int, state: State) -> Tensor:
    """(n, n), of the n entries of the state after some zeros with respect to those before."""
    H, n = module.hidden_size, module.hidden_size * len(state)
    with torch.enable_grad():
        before = tuple(part.repeat(1, n, 1).requires_grad_() for part in state)
        after = _run_zeros(module, steps, before)
    each = torch.eye(n).to(state[0]).view(1, n, n).split(H, dim=2)
    return torch.cat(torch.autograd.grad(after, before, each), dim=2)[0]


def _through_rest(
    jacobian: Tensor, times: int, cotangent: State, dead: float
) -> tuple[State, State]:
    """The sum of the cotangents that come after each period of rest, and the one before all."""
    now = torch.cat(cotangent, dim=2)
    total = torch.zeros_like(now)
    for k in range(times):
        total += now
        now = now @ jacobian
        if k % STRETCH == 0 and _size((now,)) <= dead:
            break
    H = cotangent[0].shape[2]
    return total.split(H, dim=2), now.split(H, dim=2)


def _size(state: State) -> float:
    return max(float(part.abs().max()) for part in state)


def _run_zeros(module: nn.RNNBase, steps: int, state: State) -> State:
    zeros = state[0].new_zeros(state[0].shape[1], steps, module.input_size)
    return run_layer(module, zeros, state)[1]


def _at_rest(before: State, after: State) -> bool:
    pairs = list(zip(before, after, strict=True))
    unit = ROUNDING * torch.finfo(pairs[0][1].dtype).eps
    return all(bool(((b - a).abs() <= unit * b.abs().clamp(min=1)).all()) for a, b in pairs)
