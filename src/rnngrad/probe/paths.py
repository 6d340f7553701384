"""The paths of an LSTM's cell state: through the forget gates alone, and through h.

    d c_t / d c_0 = diag(prod_t f_t) + (everything that passes through some h at least once)

The first part is the *cell path*, the second the *hidden path*. At t = 1 there is no hidden path:
h_0 is no function of c_0.
"""

import math

import torch
from torch import Tensor

from rnngrad.probe.scaled import LOG10_2
from rnngrad.probe.tangents import Tangents


class CellPath:
    """log of f_t ... f_1 of the examples in their slots, (n, H) float64."""

    def __init__(self, like: Tensor) -> None:
        self.log = torch.zeros_like(like)

    def arrange(self, source: list[int]) -> None:
        """Slot s takes over what slot source[s] holds."""
        self.log = self.log[source]

    def advance(self, f: Tensor) -> Tensor:
        """After each step of a block: (t, n, H), from the forget gates (t, n, H) of n slots."""
        log_f = f.log()
        log_f[0] += self.log[: f.shape[1]]
        log_f.cumsum_(dim=0)
        self.log = log_f[-1]
        return log_f


def log10_cell_path(log_product: Tensor) -> Tensor:
    """log10 || diag(prod f) ||_F, (..., n), from logs (..., n, H)."""
    return torch.logsumexp(2 * log_product, dim=-1) / (2 * math.log(10))


def log10_hidden_path(now: Tangents, log_product: Tensor) -> Tensor:
    """log10 || J - diag(prod f) ||_F, (n,), from J = d c_t / d c_0 and logs (n, H)."""
    J, exponent = now.J, now.exponent.double()
    if now.basis is not None:
        J = J @ now.basis.to(J.dtype).mT
    cell = torch.exp(log_product - exponent.unsqueeze(1) * math.log(2))
    # in place and back again: a copy of J would cost more than its norm
    diagonal = J.diagonal(dim1=1, dim2=2)
    before = diagonal.clone()
    diagonal.copy_(before.double() - cell)
    norm = torch.linalg.vector_norm(J, dim=(1, 2)).double()
    diagonal.copy_(before)
    return norm.log10() + exponent * LOG10_2
