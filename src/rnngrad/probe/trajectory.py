"""The way of one layer through its inputs: states, gates and one-step Jacobians of every step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.errors import check_memory
from rnngrad.plot import Pictured, columns_of_trajectory, draw_trajectory
from rnngrad.probe._problem import problem_of
from rnngrad.probe._scaled import Array
from rnngrad.probe._settings import exact_products, prepared
from rnngrad.probe.cells import GRUFactors, LSTMFactors, RNNFactors
from rnngrad.probe.curves import ABSENT


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory(Pictured):
    """States, gates and factors of one layer, float64 arrays with (batch, time) in front.

    - h: (batch, time + 1, H), from the initial state on, NaN beyond an example's length.
    - c: the same; None without a cell state.
    - gates: activations (batch, time, H) by torch's letters. LSTM i, f, g, o; GRU r, z, n.
    - factors: those of the one-step Jacobian, see `rnngrad.probe.cells`.
    - real: (batch, time) bool, the steps that count. Elsewhere gates and factors mean nothing, and
        the one-step Jacobian is the identity.

    Examples:
        >>> import torch, rnngrad
        >>> path = rnngrad.trajectory(torch.nn.LSTM(3, 4), torch.zeros(5, 2, 3))
        >>> path.h.shape, path.c.shape, path.gates["f"].shape
        ((2, 6, 4), (2, 6, 4), (2, 5, 4))
    """

    layer: int
    h: Array
    c: Array
    gates: dict[str, Array]
    factors: RNNFactors[Array] | GRUFactors[Array] | LSTMFactors[Array]
    weight_hh: Array  # (G, H, H)
    real: Array

    _title = "activations, medians over units and examples"
    plot = draw_trajectory
    _columns = columns_of_trajectory

    def jacobians(self, example: int | None = None) -> Iterator[Array]:
        """d s_t / d s_(t-1) for t = 1, 2, ...: (batch, S, S), or (S, S) of one example.

        s is h, of an LSTM (h, c). One step at a time: all at once they may take gigabytes.
        """
        chosen: Any = slice(None) if example is None else [example]
        maps = self.factors.maps().each(lambda v: v[chosen])
        for t in range(self.real.shape[1]):
            M = maps.each(lambda v, t=t: v[:, t]).matrix(self.weight_hh)
            M[~self.real[chosen, t]] = np.eye(M.shape[-1])
            yield M if example is None else M[0]


@prepared()
def trajectory(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    layer: int = -1,
    lengths: Sequence[int] | Array | Tensor | None = None,
    mask: Array | Tensor | None = None,
) -> Trajectory:
    """Follow one layer: states, gates and the factors of its one-step Jacobians.

    Args:
        module, inputs, initial_state, layer, lengths, mask: as in `rnngrad.jacobian_curves`.

    Computed in float64 on the CPU, wherever the module is. Memory: 14 to 38 times (batch, time, H).

    Raises:
        InputError: the forward pass overflows, and whatever `jacobian_curves` refuses.

    Examples:
        >>> import torch, rnngrad
        >>> lstm, x = torch.nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
        >>> path = rnngrad.trajectory(lstm, x)
        >>> path.h.shape, path.gates["f"].shape, next(path.jacobians()).shape
        ((2, 6, 4), (2, 5, 4), (2, 8, 8))
    """
    problem = problem_of(module, inputs, initial_state, lengths, mask).on_cpu()
    index, everyone = problem.layer_index(layer), list(range(problem.batch))
    cell, steps = problem.cells[index], slice(0, problem.steps)
    each = (8 * cell.gate_count + 6) * cell.hidden + problem.inputs.shape[2]
    needed = 8 * problem.batch * problem.steps * each
    check_memory(needed, "the trajectory needs", "pass fewer examples or steps")
    with exact_products():
        below = [h for _, h, _ in problem.run(everyone, steps, problem.start(everyone, index))]
        x = torch.from_numpy(below[-1]) if below else problem.inputs.double()
        path = cell.run(x.transpose(0, 1), *(s[index] for s in problem.initial))
        if not all(part.isfinite().all() for part in (*path.states, *path.factors)):
            list(problem.run(everyone, steps, problem.start(everyone, index + 1)))  # says where

    def over_time(x: Tensor, start: Any = 0.0) -> Array:
        values = np.ascontiguousarray(x.transpose(0, 1).numpy())
        return problem.counts.over_time(values, start)

    h, *c = (np.concatenate((s[0][:, None], over_time(s[1:], s[0])), axis=1) for s in path.states)
    gates = {name: over_time(gate) for name, gate in path.gates.items()}
    kind: Any = type(path.factors)  # of arrays in place of tensors
    factors = kind(*map(over_time, path.factors))
    real = problem.counts.real.numpy()
    return Trajectory(index, h, c[0] if c else ABSENT, gates, factors, cell.W.copy(), real)
