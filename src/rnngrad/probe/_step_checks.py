"""Checks of a step that somebody else wrote: its arguments, its memory, its derivative."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnngrad.errors import InputError

INPUT_NAME = re.compile(r"xs?|x_?t|inp|inputs?|inputs?_.*|.*_inputs?")
STATE_NAME = re.compile(r"[hs]|hx|hc|hs|[hs]_?(t|0|prev.*)|prev.*|carry|.*(hidden|state|mem).*")
CLOSE = 0.01  # a derivative that is further off is wrong, and no matter of rounding

UNLIKE_RESULTS = (
    "the derivative of step is more than 1 % off a central difference of its results, at step {}: "
    "TorchScript with weights that require grad loses it (call requires_grad_(False), or use "
    "torch.jit.freeze or torch.jit.trace), and .detach(), .item() or .tolist() of the state or of "
    "a gate leaves it out: does it detach the state? Take that away if it is not meant"
)
UNLIKE_AUTOGRAD = (
    "the derivative of step is more than 1 % off autograd's, at step {}: torch.func.jvp goes "
    "through torch.no_grad inside a step, where autograd stops; write .detach() in its place for "
    "autograd's numbers, or take it away"
)


def refuse_swapped_arguments(step: Callable[..., Any]) -> None:
    """A cell takes (input, state); it fits as well where both have one size."""
    names = [name.lower() for name in _argument_names(step)[:2]]
    if len(names) == 2 and INPUT_NAME.fullmatch(names[0]) and STATE_NAME.fullmatch(names[1]):
        raise InputError(
            f"step takes ({', '.join(names)}), and is called with (state, x): hand over "
            "lambda state, x: cell(x, state), with cell for what you handed over"
        )


def _argument_names(step: Callable[..., Any]) -> list[str]:
    step = getattr(step, "_orig_mod", step)  # of torch.compile
    function = getattr(step, "forward", step)
    schema = getattr(function, "schema", None)  # of TorchScript
    if schema is not None:
        return [argument.name for argument in schema.arguments if argument.name != "self"]
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def same(a: Tensor, b: Tensor, digits: float = 0.6) -> bool:
    """In this part of their digits (4e-10 of the largest entry in float64); NaN is no difference.

    The largest entry counts, for each of them may be a difference of larger numbers.
    """
    tolerance = torch.finfo(a.dtype).eps ** digits
    largest = b.detach().abs().nan_to_num(0.0, 0.0).amax().item()
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * largest, equal_nan=True)


def random_directions(like: Tensor, seed: int) -> Tensor:
    """Like a state (b, S), and no entry near zero."""
    generator = torch.Generator().manual_seed(seed)
    signed = torch.rand(like.shape, generator=generator, dtype=torch.float64) - 0.5
    return (signed + signed.sign() / 2).to(like)


def mixed_example(M: Tensor, directions: Tensor, tangents: Tensor, eps: float) -> int | None:
    """An example whose tangent depends on another's.

    Args:
        M: (b, S, S), row sums over the examples that a new state depends on.
        directions: (2, b, S): one that is other for every example, and one that is common to all.
        tangents: (2, b, S), what the step makes of them.

    Where examples do not mix, M alone gives the tangent of any direction. Where they do, it gives
    that of the common one only: what is missing there is rounding.
    """
    missing = (tangents - torch.einsum("bik,nbk->nbi", M, directions)).abs().amax(dim=-1)
    size = torch.einsum("bik,bk->bi", M.abs(), directions[0].abs()).amax(dim=-1)
    mixed = (missing[0] > eps**0.6 * size + 32 * missing[1]).nonzero()
    return int(mixed[0]) if len(mixed) else None


Function = Callable[[Tensor], Tensor]


def unlike_results(function: Function, s: Tensor, M: Tensor) -> Tensor:
    """Which entries (b, S) of the derivative in a random direction are not that of the results.

    A difference that depends on its own length is rounding, or a bend near the state.
    """
    eps = torch.finfo(s.dtype).eps
    length = eps ** (1 / 3)
    direction = random_directions(s, 1) * (1 + s.abs())
    ends = [function(s + direction * e) for e in (length, -length, length / 4, -length / 4)]
    ends = [end.double().cpu() for end in ends]
    wide, narrow = (ends[0] - ends[1]) / (2 * length), (ends[2] - ends[3]) / (length / 2)
    found = torch.einsum("bik,bk->bi", M, direction.double().cpu())
    off = (wide - found).abs()
    largest = torch.maximum(ends[0].abs(), s.double().cpu().abs()).amax(dim=-1, keepdim=True)
    rounding = 8 * eps * largest / length
    sure = (off > rounding) & (off > 10 * (wide - narrow).abs())
    return sure & (off > CLOSE * torch.maximum(wide.abs(), found.abs()))


def unlike_autograd(function: Function, s: Tensor, M: Tensor) -> Tensor:
    """Which entries (b, S) of a random cotangent, pushed back, are not autograd's.

    None where autograd cannot go through the step, or is switched off in all of it.
    """
    s = s.clone().requires_grad_()
    cotangent = random_directions(s, 2)
    try:
        with torch.enable_grad():
            new = function(s)
        if not new.requires_grad:
            return torch.zeros(s.shape, dtype=torch.bool)
        found = torch.autograd.grad(new, s, cotangent, materialize_grads=True)[0].double().cpu()
    except Exception:  # whatever somebody else's code raises: the step need not have a backward
        return torch.zeros(s.shape, dtype=torch.bool)
    cotangent = cotangent.double().cpu()
    expected = torch.einsum("bik,bi->bk", M, cotangent)
    size = torch.einsum("bik,bi->bk", M.abs(), cotangent.abs())
    eps = torch.finfo(s.dtype).eps
    rounding = eps**0.3 * size.amax(dim=-1, keepdim=True)
    off = (found - expected).abs()
    return (off > rounding) & (off > CLOSE * torch.maximum(found.abs(), expected.abs()))
