"""An LSTM whose hidden state is h = o sigmoid(c), as one of the tutorials draws it.

torch has no such module. In the notation of `rnngrad.probe.cells`:

    c = f c_{t-1} + i g,   h = o s(c)         through = o s'(c),   mix_o = s(c) o'
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnngrad.probe.cells import LSTM, DerivativeForms, OneStep
from rnngrad.probe.forward_pass import Trajectory
from rnngrad.probe.problem import Problem


@dataclass(frozen=True)
class SigmoidStateLSTM(LSTM):
    """The probe's LSTM with ``h = o sigmoid(c)`` in place of ``h = o tanh(c)``."""

    def run(self, x: Tensor, h: Tensor, c: Tensor | None) -> Trajectory:
        assert c is not None
        a = x @ self.weight_ih.T + (self.bias_ih + self.bias_hh)
        hs, cs = [h], [c]
        for t in range(len(x)):
            a[t].addmm_(hs[-1], self.weight_hh.T)
            i, f, g, o = a[t].chunk(4, dim=-1)
            cs.append(f.sigmoid() * cs[-1] + i.sigmoid() * g.tanh())
            hs.append(o.sigmoid() * cs[-1].sigmoid())
        return Trajectory(torch.stack(hs), torch.stack(cs), a, None)

    def one_step(self, path: Trajectory, steps: slice, forms: DerivativeForms) -> OneStep:
        assert path.c is not None
        one = super().one_step(path, steps, forms)
        c = forms.sigmoid(path.c[1:][steps])
        o = forms.sigmoid(path.a[steps].chunk(4, dim=-1)[3])
        mix = torch.cat([one.mix[..., :3, :], (c.value * o.derivative).unsqueeze(2)], 2)
        return OneStep(mix, mix, one.keep, o.value * c.derivative)


def with_sigmoid_state(problem: Problem) -> Problem:
    """The problem of an LSTM with every layer's tanh(c) replaced by sigmoid(c)."""
    cells = tuple(
        SigmoidStateLSTM(c.weight_ih, c.weight_hh, c.bias_ih, c.bias_hh) for c in problem.cells
    )
    return replace(problem, cells=cells)
