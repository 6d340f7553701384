"""The way of one layer through its inputs: states, gates and one-step Jacobians of every step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.probe._problem import problem_of
from rnngrad.probe._settings import exact_arithmetic, probing
from rnngrad.probe.cells import Cell, GRUFactors, LSTMFactors, RNNFactors
from rnngrad.probe.curves import MaybeNone

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Trajectory:
    """States, gates and factors of one layer, float64 arrays with (batch, time) in front.

    h: (batch, time + 1, H), from the initial state on; c likewise, None without a cell state.
    gates: activations (batch, time, H) by torch's letters: i, f, g, o of an LSTM; r, z, n of a GRU;
    none of an RNN.
    factors: those of the one-step Jacobian, see `rnngrad.probe.cells`.
    Values beyond an example's length mean nothing.
    """

    layer: int
    h: Array
    c: Array | MaybeNone
    gates: dict[str, Array]
    factors: RNNFactors | GRUFactors | LSTMFactors
    weight_hh: Array  # (G, H, H)

    def jacobians(self, example: int | None = None) -> Iterator[Array]:
        """d s_t / d s_(t-1) for t = 1, 2, ...: (batch, S, S), or (S, S) of one example.

        s is h, of an LSTM (h, c). One step at a time: all at once they may take gigabytes.
        """
        maps = self.factors.maps()
        if example is not None:
            maps = maps.each(lambda v: v[example : example + 1])
        H = self.weight_hh.shape[-1]
        for t in range(maps.keep.shape[1]):
            mix, _, keep, through = (v[:, t] for v in maps)
            keep = keep[:, :, None] * np.eye(H)
            V = mix[..., None] * self.weight_hh
            if through.shape[1]:
                dc = np.concatenate((V[:, :-1].sum(axis=1), keep), axis=2)
                dh = through[:, :, None] * dc
                dh[:, :, :H] += V[:, -1]
                M = np.concatenate((dh, dc), axis=1)
            else:
                M = V.sum(axis=1) + keep
            yield M if example is None else M[0]


@probing
def trajectory(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    layer: int = -1,
    lengths: Sequence[int] | Array | Tensor | None = None,
) -> Trajectory:
    """What one layer goes through: states, gates and the factors of its one-step Jacobians.

    Args:
        module, inputs, initial_state, layer, lengths: as in `rnngrad.jacobian_curves`.

    Computed in float64 on the CPU, wherever the module is. Memory: 8 to 14 arrays (batch, time, H).

    Raises:
        InputError: the forward pass overflows, and whatever `jacobian_curves` refuses.

    Example:
        >>> import torch, rnngrad
        >>> lstm, x = torch.nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
        >>> path = rnngrad.trajectory(lstm, x)
        >>> path.h.shape, path.gates["f"].shape, next(path.jacobians()).shape
        ((2, 6, 4), (2, 5, 4), (2, 8, 8))
    """
    problem = problem_of(module, inputs, initial_state, lengths).on_cpu()
    index, everyone = problem.layer_index(layer), list(range(problem.batch))
    with exact_arithmetic(problem.inputs.device):
        # the compiled loop refuses what overflows, and makes what the layer reads
        runs = list(
            problem.run(everyone, slice(0, problem.steps), problem.start(everyone, index + 1))
        )
        cell = problem.cells[index]
        states = [torch.from_numpy(s) for s in problem.start(everyone, index + 1)[index]]
        path = cell.run(torch.from_numpy(runs[-1].x).transpose(0, 1), *states)
        c = _batch_first(path.c) if "c" in cell.states else None
        factors = type(runs[-1].factors)(*map(_batch_first, cell.factors(path)))
        return Trajectory(index, _batch_first(path.h), c, _gates(cell, path.a), factors, cell.W)


def _batch_first(x: Tensor) -> Array:
    return np.ascontiguousarray(x.transpose(0, 1).numpy())


def _gates(cell: Cell, a: Tensor) -> dict[str, Array]:
    names = {1: "", 3: "rzn", 4: "ifgo"}[cell.gates]
    parts = a.chunk(max(len(names), 1), dim=-1)
    return {
        name: _batch_first(torch.tanh(part) if name in "gn" else torch.sigmoid(part))
        for name, part in zip(names, parts, strict=False)
    }
