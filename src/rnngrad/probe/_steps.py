"""Which steps of a batch count: lengths and mask, checked.

Below the door nobody knows a mask. The steps that count stand one after another, and what was found
at them is put back to where they were.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnngrad.errors import InputError

Array = np.ndarray


@dataclass(frozen=True)
class Steps:
    """The steps of a batch, (b, time) as given.

    real: (b, time) bool, those that count. ends: (b,) lengths as given. masked: is there a mask?
    """

    real: Tensor
    ends: Tensor
    masked: bool

    @property
    def lengths(self) -> Tensor:
        """The number of steps that count, (b,)."""
        return self.real.sum(dim=1)

    def cleared(self, x: Tensor) -> Tensor:
        """x (b, time, ...) with zeros where anything may stand."""
        if self.real.all():
            return x
        return x.masked_fill(~self.real.to(x.device)[(..., *(None,) * (x.dim() - 2))], 0.0)

    def counted(self, x: Tensor) -> Tensor:
        """The steps of x (b, time, d) that count, one after another."""
        if not self.masked:
            return x
        order = torch.argsort(~self.real, dim=1, stable=True)[:, : int(self.lengths.max())]
        return x[torch.arange(len(x))[:, None], order]

    def counted_at(self, chosen: Array) -> Array:
        """The steps that count at which the state is that of steps chosen (time,): (t,) bool."""
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


def steps_of(lengths: Any, mask: Any, batch: int, time: int) -> Steps:
    """The steps that `lengths` (b,) and `mask` (b, time) let count; all of them for None."""
    ends = torch.full((batch,), time) if lengths is None else _ends(lengths, batch, time)
    real = torch.arange(time) < ends[:, None]
    if mask is None:
        return Steps(real, ends, masked=False)
    given = _tensor(mask, "mask must be bool, (batch, time)")
    if given.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True where a step counts, got {given.dtype}")
    check_shape(given, "mask", (batch, time))
    real &= given
    for b in (~real.any(dim=1)).nonzero().flatten().tolist():
        raise InputError(f"mask counts no step of example {b}: leave the example out")
    return Steps(real, ends, masked=True)


def _ends(lengths: Any, batch: int, time: int) -> Tensor:
    tensor = _tensor(lengths, "lengths must be integers up to 64 bits, one per example")
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"lengths must be integers, got {tensor.dtype}")
    check_shape(tensor, "lengths", (batch,))
    tensor = tensor.long()
    for b in ((tensor < 1) | (tensor > time)).nonzero().flatten().tolist():
        raise InputError(f"lengths[{b}] = {int(tensor[b])}: must lie in 1..{time}")
    return tensor


def check_shape(tensor: Tensor, name: str, expected: tuple[int, ...], where: str = "") -> None:
    if tensor.shape != expected:
        raise InputError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}{where}")


def _tensor(values: Any, expected: str) -> Tensor:
    try:  # torch takes no negative strides, NumPy no tensors of a GPU
        return torch.as_tensor(values if isinstance(values, Tensor) else np.array(values)).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"{expected}, and not {type(values).__name__}") from None
