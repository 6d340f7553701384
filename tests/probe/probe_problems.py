"""Small problems as data, and the routes that the probe is held against."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CELLS: dict[str, tuple[Callable[..., nn.RNNBase], dict[str, Any]]] = {
    "rnn_tanh": (nn.RNN, {}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
}
FEATURES = 3


@dataclass(frozen=True)
class Case:
    cell: str
    layers: int = 1
    bias: bool = True
    batch_first: bool = True
    seed: int = 0
    steps: int = 24
    hidden: int = 4
    batch: int = 2

    def __str__(self) -> str:
        return "-".join(str(v) for v in vars(self).values())


@dataclass(frozen=True)
class Instance:
    """Float64 module, inputs in its layout, non-zero initial states (layer, b, H)."""

    module: nn.RNNBase
    inputs: Tensor
    h: Tensor
    c: Tensor

    @property
    def initial_state(self) -> Any:
        return (self.h, self.c) if isinstance(self.module, nn.LSTM) else self.h

    @property
    def time_first(self) -> Tensor:
        return self.inputs.transpose(0, 1) if self.module.batch_first else self.inputs


def make(case: Case, dtype: torch.dtype = torch.float64) -> Instance:
    generator = torch.Generator().manual_seed(case.seed)
    kind, options = CELLS[case.cell]
    with torch.random.fork_rng():
        torch.manual_seed(case.seed)
        module = kind(
            FEATURES,
            case.hidden,
            num_layers=case.layers,
            bias=case.bias,
            batch_first=case.batch_first,
            **options,
        ).to(dtype)
    x = torch.randn(case.steps, case.batch, FEATURES, generator=generator, dtype=torch.float64)
    shape = (case.layers, case.batch, case.hidden)
    h = torch.randn(shape, generator=generator, dtype=torch.float64)
    c = torch.randn(shape, generator=generator, dtype=torch.float64)
    inputs = x.transpose(0, 1) if case.batch_first else x
    return Instance(module, inputs.to(dtype), h.to(dtype), c.to(dtype))


def autograd_jacobians(instance: Instance, state: str, layer: int = -1) -> Tensor:
    """d s_t / d s_0 of the module itself, run step by step: (b, t, rows, columns)."""
    lstm = isinstance(instance.module, nn.LSTM)
    hidden = instance.module.hidden_size
    x = instance.time_first

    def states(s0: Tensor) -> Tensor:
        h, c = instance.h.clone(), instance.c.clone()
        if state in ("h", "full"):
            h[layer] = s0[:, :hidden]
        if state in ("c", "full") and lstm:
            c[layer] = s0[:, -hidden:]
        found = []
        for t in range(len(x)):
            xt = x[t : t + 1]
            xt = xt.transpose(0, 1) if instance.module.batch_first else xt
            if lstm:
                h, c = instance.module(xt, (h, c))[1]
                parts = {"h": h[layer], "c": c[layer], "full": torch.cat((h[layer], c[layer]), -1)}
                found.append(parts[state])
            else:
                h = instance.module(xt, h)[1]
                found.append(h[layer])
        # examples do not see each other: the sum over them keeps their Jacobians apart
        return torch.stack(found).sum(dim=1)

    parts = {"h": instance.h[layer], "c": instance.c[layer]}
    parts["full"] = torch.cat((parts["h"], parts["c"]), -1) if lstm else parts["h"]
    jacobian = torch.autograd.functional.jacobian(states, parts[state].clone(), vectorize=True)
    assert isinstance(jacobian, Tensor)
    return jacobian.permute(2, 0, 1, 3)


def log10_statistics(J: Tensor) -> dict[str, Tensor]:
    return {
        "log10_frobenius": torch.linalg.matrix_norm(J).log10(),
        "log10_column_sum": J.sum(dim=-2).abs().mean(dim=-1).log10(),
        "log10_spectral": torch.linalg.matrix_norm(J, ord=2).log10(),
    }


def weights(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters())


def set_weights(module: nn.RNNBase, **values: Tensor | float) -> None:
    """Zero everything, then fill the parameters named."""
    with torch.no_grad():
        for name, parameter in weights(module).items():
            parameter.zero_()
            if name in values:
                parameter += torch.as_tensor(values[name], dtype=parameter.dtype)


ZERO = -(2**40)  # the exponent of a row of zeros
Array = np.ndarray


def times_scaled(M: Array, J: Array, exponent: Array) -> tuple[Array, Array]:
    """M times the rows J[i] 2**exponent[i]; every row of the product has its own scale again."""
    size = np.where(M == 0, ZERO, np.frexp(M)[1].astype(np.int64)) + exponent
    top = size.max(axis=1)
    J = np.ldexp(M, (exponent - top[:, None]).clip(-5000, 5000)) @ J
    size = np.abs(J).max(axis=1)
    shift = np.frexp(size)[1]
    return np.ldexp(J, -shift[:, None]), np.where(size == 0, ZERO, top + shift)


def scaled_log10(value: Any, exponent: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log10(value) + exponent * math.log10(2)


def product_curves(jacobians: Iterable[Array], rows: slice) -> dict[str, Array]:
    """The statistics of M_t ... M_1 for every t, log10: no direction dropped, no row lost."""
    found, J, exponent = [], np.empty(0), np.empty(0)
    for M in jacobians:
        if not len(J):
            J, exponent = np.eye(len(M))[:, rows], np.zeros(len(M), dtype=int)
        J, exponent = times_scaled(M, J, exponent)
        top = exponent[rows].max()
        whole = np.ldexp(J[rows], (exponent[rows] - top).clip(-5000)[:, None])
        sums = np.abs(whole.sum(axis=0)).mean()
        norms = np.linalg.norm(whole), np.linalg.norm(whole, ord=2)
        found.append(scaled_log10(np.array([norms[0], sums, norms[1]]), top))
    names = ("log10_frobenius", "log10_column_sum", "log10_spectral")
    return dict(zip(names, np.transpose(found), strict=True))


def states_of(module: nn.Module) -> tuple[str, ...]:
    return ("h", "c", "full") if isinstance(module, nn.LSTM) else ("h",)


def rows_of(module: nn.RNNBase, state: str) -> slice:
    """Tell where a state stands in (h, c)."""
    H = module.hidden_size
    return {"h": slice(0, H), "c": slice(H, 2 * H), "full": slice(None)}[state]


GRADIENT_CASES = [
    Case(cell, layers, bias, batch_first, steps=9)
    for cell in CELLS
    for layers, bias, batch_first in ((1, True, True), (3, False, False), (2, True, False))
]


def output_gradients(instance: Instance) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    shape = (*instance.inputs.shape[:2], instance.module.hidden_size)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def states_with_gradients(
    instance: Instance, G: Tensor, final: tuple[Tensor, ...] = ()
) -> list[list[tuple[Tensor, ...]]]:
    """[layer][t] states of a loop of torch's cells, after backward through all of it."""
    module, lstm = instance.module, isinstance(instance.module, nn.LSTM)
    functional: Any = {nn.LSTM: torch.lstm_cell, nn.GRU: torch.gru_cell}.get(type(module))
    if functional is None:
        functional = torch.rnn_tanh_cell if module.nonlinearity == "tanh" else torch.rnn_relu_cell
    layers = range(module.num_layers)
    now: list[tuple[Tensor, ...]] = [
        (instance.h[i], instance.c[i]) if lstm else (instance.h[i],) for i in layers
    ]
    found: list[list[tuple[Tensor, ...]]] = [[] for _ in layers]
    loss = torch.zeros(())
    for t, x in enumerate(instance.time_first):
        for i in layers:
            own = [p for n, p in module.named_parameters() if n.endswith(f"_l{i}")]
            new = functional(x, now[i] if lstm else now[i][0], *own)
            now[i] = new if lstm else (new,)
            for state in now[i]:
                state.retain_grad()
            found[i].append(now[i])
            x = now[i][0]
        loss = loss + (x * (G[:, t] if module.batch_first else G[t])).sum()
    for k, gradient in enumerate(final):
        loss = loss + sum((now[i][k] * gradient[i]).sum() for i in layers)
    loss.backward()
    return found
