"""Memory that is used again: fresh memory costs a fault per page, as much as what it is for."""

import math

from torch import Tensor


class Workspace:
    """Tensors by name, of the dtype and device of `like`; a name's last one is written over."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.held: dict[str, Tensor] = {}

    def empty(self, name: str, *shape: int) -> Tensor:
        size = math.prod(shape)
        if name not in self.held or len(self.held[name]) < size:
            self.held[name] = self.like.new_empty(size)
        return self.held[name][:size].view(shape)
