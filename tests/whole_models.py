"""A small whole model, its inputs and a loss on them."""

from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_packed_sequence

STEPS, BATCH = 9, 3


class Reader(nn.Module):
    """Embedding, a recurrent module, a head on its output and on its last states."""

    def __init__(self, recurrent: nn.Module, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 3)
        self.encoder = nn.ModuleDict({"core": recurrent})
        self.options = options

    def forward(self, tokens: Tensor) -> tuple[Tensor, Any]:
        return self.encoder["core"](self.embedding(tokens), **self.options)


def everything(output: tuple[Tensor, Any]) -> Tensor:
    """A loss that looks at all outputs and at the last states."""
    h, states = output
    h = pad_packed_sequence(h, batch_first=True)[0] if not isinstance(h, Tensor) else h
    parts = [h, *(states if isinstance(states, tuple) else [states])]
    return sum(((i + part).square() * (i + 1)).sum() for i, part in enumerate(parts))  # type: ignore


def tokens() -> Tensor:
    return torch.randint(20, (BATCH, STEPS))


def close(a: Any, b: Any) -> None:
    """All curves of two reaches, whatever their layers are called."""
    for one, other in zip(a.layers.values(), b.layers.values(), strict=True):
        for name in ("log10_frobenius", "log10_cell_path", "log10_spectral"):
            found = getattr(one.curves, name), getattr(other.curves, name)
            if found[0] is not None:
                np.testing.assert_allclose(*found, atol=1e-9)
        np.testing.assert_allclose(one.learned_at, other.learned_at, atol=1e-9)
        np.testing.assert_allclose(
            one.loss_gradients.log10_h, other.loss_gradients.log10_h, atol=1e-9
        )
