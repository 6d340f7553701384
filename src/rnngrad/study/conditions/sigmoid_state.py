"""An LSTM whose hidden state is h = o sigmoid(c), as one of the tutorials draws it.

No torch module computes it, so neither does the probe in closed form: the question's statistic is
taken by reverse mode at chosen steps, in float64, which it does not leave here.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnngrad.errors import InputError


class SigmoidStateLSTM(nn.LSTM):
    """nn.LSTM's weights with ``h = o sigmoid(c)`` in place of ``h = o tanh(c)``."""

    def cell_states(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> list[Tensor]:
        """c_1 .. c_T, (B, H) each, in the dtype of ``inputs`` (B, T, D)."""
        W_ih, W_hh, b_ih, b_hh = (
            cast("Tensor", getattr(self, name)).detach().to(inputs.dtype)
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        )
        h, c = (s.squeeze(0) for s in state)
        states = []
        for x in (inputs @ W_ih.T + b_ih + b_hh).unbind(1):
            i, f, g, o = (x + h @ W_hh.T).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.sigmoid()
            states.append(c)
        return states

    def column_sums(
        self,
        inputs: Tensor,
        state: Tensor | tuple[Tensor, Tensor],
        at: Sequence[int],
        dtype: torch.dtype = torch.float64,
    ) -> NDArray[np.float64]:
        """mean_j |sum_i d c_t[i] / d c_0[j]| by reverse mode, (B, len(at)); steps from 1."""
        h, c = (s.detach().to(dtype) for s in state)
        c.requires_grad_()
        states = self.cell_states(inputs[:, : max(at)].to(dtype), (h, c))
        sums = [
            torch.autograd.grad(states[t - 1].sum(), c, retain_graph=True)[0].abs().double()
            for t in at
        ]
        return torch.stack([s.squeeze(0).mean(dim=1) for s in sums], dim=1).numpy()

    def first_zero_step(
        self, inputs: Tensor, state: Tensor | tuple[Tensor, Tensor], near: int
    ) -> int | None:
        """First step from which float32 with flush-to-zero gives zero everywhere; None if never.

        The search takes the result to stay zero once it is.

        Raises:
            InputError: this processor cannot flush subnormal numbers.
        """
        if not torch.set_flush_denormal(True):
            raise InputError("this processor cannot flush subnormal numbers to zero")
        try:
            return self._search(inputs, state, near)
        finally:
            torch.set_flush_denormal(False)

    def _search(
        self, inputs: Tensor, state: Tensor | tuple[Tensor, Tensor], near: int
    ) -> int | None:
        def zero(step: int) -> bool:
            return not self.column_sums(inputs, state, [step], torch.float32).any()

        low, high = 0, inputs.shape[1]
        if not zero(high):
            return None
        while high - low > 1:
            step = near if low < near < high else (low + high) // 2
            low, high = (low, step) if zero(step) else (step, high)
            near += 8 if low == near else -8 if high == near else 0
        return high
