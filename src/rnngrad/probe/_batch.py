"""This module checks the user's arrays and says which steps of a batch count.

The computations know no mask: they get the steps that count one after another. This module then
puts their results back to where those steps were.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from rnngrad.errors import InputError, check_memory
from rnngrad.probe._scaled import Array


@dataclass(frozen=True)
class Steps:
    """The steps of a batch as given: which count, (b, time) bool, and the lengths (b,)."""

    real: Tensor
    ends: Tensor

    @cached_property
    def masked(self) -> bool:
        """Does a mask leave out steps within the lengths?"""
        return not torch.equal(self.lengths, self.ends)

    @cached_property
    def lengths(self) -> Tensor:
        """The number of steps that count, (b,)."""
        return self.real.sum(dim=1)

    def cleared(self, x: Tensor, name: str, entry: str) -> Tensor:
        """Put zeros where x (b, time, ...) may hold anything; the rest must be finite."""
        if not self.real.all():
            check_memory(2 * x.nbytes, f"copies of {name} need", "pass fewer examples or steps")
            x = x.masked_fill(~self.real.to(x.device)[(..., *(None,) * (x.dim() - 2))], 0.0)
        check_finite(x, name, ("example", "step", entry))
        return x

    def counted(self, x: Tensor) -> Tensor:
        """The steps of x (b, time, d) that count, one after another."""
        if not self.masked:
            return x
        order = torch.argsort(~self.real, dim=1, stable=True)[:, : int(self.lengths.max())]
        return x[torch.arange(len(x))[:, None], order]

    def counted_at(self, chosen: Array) -> Array:
        """The counted steps (t,) bool whose state holds at the chosen ones of all (time,)."""
        if not self.masked:
            return chosen
        return np.isin(np.arange(int(self.lengths.max())), self._last()[:, chosen])

    def over_time(self, values: Array, start: Any) -> Array:
        """Spread (b, t, ...) of the steps that count over (b, time, ...), all steps.

        A value stays where the state is kept. `start`, a number or (b, ...), stands before the
        first step that counts, NaN beyond the ends.
        """
        if self.masked:
            first, last = np.broadcast_to(start, values[:, 0].shape)[:, None], self._last()
            values = np.concatenate((first, values), axis=1)
            values = values[np.arange(len(last))[:, None], last + 1]
        return self.ended(values)

    def ended(self, values: Array) -> Array:
        """The same values (b, time, ...), NaN beyond the ends now."""
        values[np.arange(values.shape[1]) >= self.ends.numpy()[:, None]] = np.nan
        return values

    def _last(self) -> Array:
        """The last of the steps that count at every step (b, time), from 0; -1 before them."""
        return self.real.numpy().cumsum(axis=1) - 1


def batch_first(tensor: Tensor, dims: tuple[int, ...], first: bool, name: str) -> Tensor:
    """(b, t, d) from what module.forward takes or returns, which may have `dims` axes."""
    if isinstance(tensor, PackedSequence):
        raise TypeError(
            f"{name} is a PackedSequence: unpack it with torch.nn.utils.rnn.pad_packed_sequence "
            "and pass lengths="
        )
    check_floating(tensor, name)
    if tensor.dim() not in dims:
        raise InputError(
            f"{name} has {tensor.dim()} dimensions; expected (batch, time, features), "
            "(time, batch, features) or unbatched (time, features), like the module"
        )
    single = tensor.dim() == 2
    return tensor.unsqueeze(0) if single else tensor if first else tensor.transpose(0, 1)


def states_of(
    given: Any, what: str, shape: tuple[int, ...], batched: bool, *names: str
) -> list[Tensor]:
    """(layer, b, H) each from states as the module takes and returns them; zeros for None."""
    count, *each = shape
    if given is None:
        return [torch.zeros(each, dtype=torch.float64)] * count
    parts = given if isinstance(given, tuple | list) else [given]
    if (parts is given) != (count == 2) or len(parts) != count:
        wanted = f"a pair ({', '.join(names)})" if count == 2 else f"one tensor {names[0]}"
        raise TypeError(f"{what} is {wanted}")
    axes = ("layer", "example", "unit") if batched else ("layer", "unit")
    for part, name in zip(parts, names, strict=False):
        check_floating(part, name)
        check_shape(part, name, tuple(each) if batched else (each[0], each[2]))
        check_finite(part, name, axes)
    return [part.detach().reshape(each) for part in parts]


def steps_of(batch: int, time: int, lengths: Any = None, mask: Any = None) -> Steps:
    """The steps that `lengths` (b,) and `mask` (b, time) let count; all of them for None."""
    check_memory(32 * batch * time, "curves of all steps need", "pass fewer examples or steps")
    ends = torch.full((batch,), time, device="cpu")
    if lengths is not None:
        ends = _tensor(lengths, "lengths must be integers up to 64 bits, one per example")
        if ends.is_floating_point() or ends.is_complex() or ends.dtype == torch.bool:
            raise TypeError(f"lengths must be integers, got {ends.dtype}")
        check_shape(ends, "lengths", (batch,))
        ends = ends.long()
        for b in ((ends < 1) | (ends > time)).nonzero().flatten().tolist():
            raise InputError(f"lengths[{b}] = {int(ends[b])}: must lie in 1..{time}")
    real = torch.arange(time, device="cpu") < ends[:, None]
    if mask is None:
        return Steps(real, ends)
    given = _tensor(mask, "mask must be bool, (batch, time)")
    if given.dtype != torch.bool:
        raise TypeError(f"mask must be bool (.bool()), True where steps count, got {given.dtype}")
    check_shape(given, "mask", (batch, time))
    real &= given
    for b in (~real.any(dim=1)).nonzero().flatten().tolist():
        raise InputError(f"mask counts no step of example {b}: leave the example out")
    return Steps(real, ends)


def _tensor(values: Any, expected: str) -> Tensor:
    try:  # torch takes no negative strides, NumPy no tensors of a GPU
        given = values if isinstance(values, Tensor) else np.array(values)
        return torch.as_tensor(given, device="cpu").to_dense()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"{expected}, and not {type(values).__name__}") from None


def check_shape(tensor: Tensor, name: str, expected: tuple[int, ...], where: str = "") -> None:
    if tensor.shape != expected:
        raise InputError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}{where}")


def check_floating(tensor: Tensor, name: str) -> None:
    """Raise a TypeError unless it is a dense tensor of numbers with 16 bits or more."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
    if tensor.is_meta:
        raise InputError(f"{name} is on the meta device, which holds no numbers")
    if tensor.is_nested or tensor.layout != torch.strided:
        raise TypeError(f"{name} is a nested or sparse tensor: make it dense")
    if not tensor.is_floating_point() or tensor.itemsize < 2:
        cure = "pass torch.view_as_real" if tensor.is_complex() else "embed or convert it first"
        must = "must be floating point of 16 bits or more"
        raise TypeError(f"{name} {must}, got {tensor.dtype}: {cure}")


def check_finite(tensor: Tensor, name: str, axes: tuple[str, ...]) -> None:
    """Raise at the first NaN or inf; axes are the names of its indices."""
    tensor = tensor.detach()
    if math.isfinite(tensor.sum()):
        return  # one inf or NaN would be left in the sum
    for where in (~torch.isfinite(tensor)).nonzero()[:1].tolist():
        place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, where, strict=False))
        raise InputError(f"{name} contains {tensor[tuple(where)]} at {place}; clean it first")
