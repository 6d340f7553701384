"""How far back the loss reaches, against autograd."""

import numpy as np
import pytest
import torch
from ready import ready, words_alone
from torch import nn

from rnngrad.models.classifier import RECURRENT
from rnngrad.study.measures.reach import reach

B, T, D, H = 3, 6, 2, 4


@pytest.mark.parametrize("cell", list(RECURRENT))
def test_the_loss_reaches_as_far_as_autograd_says(cell: str) -> None:
    torch.manual_seed(1)
    module = RECURRENT[cell](D, H, batch_first=True, dtype=torch.float64)
    head, x = nn.Linear(H, 1, dtype=torch.float64), torch.randn(B, T, D, dtype=torch.float64)
    h, c = torch.randn(2, 1, B, H, dtype=torch.float64)
    state = (h, c) if cell == "lstm" else h
    table = reach(ready(module, words_alone(x), state, head)).set_index(["state", "distance"])
    logs: dict[tuple[str, int], list[float]] = {}
    for step in range(T):
        # a nudge of h and c beside what the step makes of them
        with torch.no_grad():
            _, after = module(x[:, : step + 1], state)
        parts = [s.requires_grad_() for s in (after if cell == "lstm" else (after,))]
        later = x[:, step + 1 :]
        last = (
            module(later, tuple(parts) if cell == "lstm" else parts[0])[0][:, -1]
            if (step < T - 1)
            else parts[0][0]
        )
        found = torch.autograd.grad(head(last).sum(), parts, allow_unused=True)
        by_h = found[0][0].norm(dim=1)
        logs["h", T - 1 - step] = by_h.log10().tolist()
        if cell == "lstm":
            # what comes through h_t = o tanh(c_t) belongs to c_t
            o = parts[0].detach() / parts[1].detach().tanh()
            through = found[0] * o * (1 - parts[1].detach().tanh() ** 2)
            by_c = through + (found[1] if found[1] is not None else 0)
            logs["c", T - 1 - step] = by_c[0].norm(dim=1).log10().tolist()
    assert {*table.index} == {*logs}
    for (name, distance), values in logs.items():
        expected = np.median(np.subtract(values, logs[name, 0]))
        assert table["log10"][name, distance] == pytest.approx(expected, abs=1e-9)
