"""The user's module and batch, checked and brought into one form.

Everything downstream sees batches (b, t, d), float64 weights, one cell per layer and lengths.
Weights and initial states are copied to float64 here; inputs are converted block by block.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree

from rnngrad.errors import InputError, check_memory, full_name
from rnngrad.probe import _compiled
from rnngrad.probe._batch import (
    Steps,
    batch_first,
    check_finite,
    check_floating,
    check_shape,
    states_of,
    steps_of,
)
from rnngrad.probe._scaled import Array
from rnngrad.probe.cells import GRU, LSTM, RNN, WEIGHTS, Cell, SigmoidStateLSTM, StepMaps

Examples = Sequence[int] | Array
States = list[tuple[Array, ...]]  # by layer: h, and c of an LSTM, (b, H) each
LayerRun = tuple[Array, Array, StepMaps]  # inputs of a layer (b, t, d), its h (b, t, H), its maps

CELLS = {nn.RNN: RNN, nn.GRU: GRU, nn.LSTM: LSTM}
FORWARD = (*(kind.forward for kind in CELLS), SigmoidStateLSTM.forward)
OF_STEP, OF_MODEL = "rnngrad.jacobian_curves_of_step", "rnngrad.gradient_reach"


@dataclass(frozen=True)
class Problem:
    cells: tuple[Cell, ...]  # by layer
    inputs: Tensor  # (b, t, d)
    initial: tuple[Tensor, ...]  # h, and c of an LSTM: (layer, b, H) float64 each
    counts: Steps  # which of the steps as given count
    lengths: Tensor  # (b,) numbers of steps that count
    weight_shapes: dict[str, tuple[int, ...]]  # by torch's flat names
    batched: bool
    batch_first: bool

    def on_cpu(self) -> "Problem":
        cells, initial = (tuple(v.to("cpu") for v in vs) for vs in (self.cells, self.initial))
        return replace(self, cells=cells, inputs=self.inputs.cpu(), initial=initial)

    @property
    def batch(self) -> int:
        return self.inputs.shape[0]

    @property
    def steps(self) -> int:
        return self.inputs.shape[1]

    @property
    def hidden(self) -> int:
        return self.cells[0].hidden

    def start(self, examples: Examples, layers: int) -> States:
        """A copy of the initial states of the first layers."""
        parts = [s[:layers, examples].numpy() for s in self.initial]
        return [tuple(part[layer].copy() for part in parts) for layer in range(layers)]

    def run(self, examples: Examples, steps: slice, states: States) -> Iterator[LayerRun]:
        """Yield as many layers as there are states; the states move on in place."""
        x = self.inputs[examples, steps].double().numpy()
        here = np.arange(steps.start, steps.stop) < self.lengths.numpy()[examples][:, None]
        for layer, own in enumerate(states):
            with np.errstate(all="ignore"):
                h, maps = self.cells[layer].advance(x, own)
            finite = np.all(np.isfinite(h), axis=2) & np.all(np.isfinite(maps.mix), axis=(2, 3))
            finite[:, -1] &= np.isfinite(own[-1]).all(axis=1)
            for t, at in np.argwhere((here & ~finite).T):
                step = int(self.counts.real[examples[at]].nonzero()[steps.start + t])
                raise InputError(
                    f"the forward pass overflows float64 in layer {layer}, example {examples[at]}, "
                    f"step {step + 1} (steps from 1): there is no state to take a "
                    "derivative of; scale weights, inputs or initial state down"
                )
            yield x, h, maps
            x = h

    def whole(self, examples: Examples) -> list[LayerRun]:
        """All layers over all steps of some examples."""
        steps = slice(0, int(self.lengths[examples].max()))
        return list(self.run(examples, steps, self.start(examples, len(self.cells))))

    def layer_index(self, layer: int) -> int:
        """Count a layer from 0, which may be counted from the last."""
        count = len(self.cells)
        if layer not in range(-count, count):
            raise InputError(f"layer={layer!r}: the module has {count} layer(s), 0..{count - 1}")
        return layer % count

    def state_rows(self, state: str) -> slice:
        """Say which of the rows [h; c] of a Jacobian the name `state` means."""
        H, kind = self.hidden, type(self.cells[0]).__name__
        rows = {"h": slice(0, H), "c": slice(H, 2 * H), "full": slice(0, H * len(self.initial))}
        if str(state) not in rows:
            raise InputError(f'state={state!r}: use "h", "c" (LSTM) or "full"')
        if state == "c" and len(self.initial) == 1:
            raise InputError(f'state="c": the {kind} has no cell state; use state="h"')
        return rows[state]


def problem_of(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    lengths: Sequence[int] | Array | Tensor | None = None,
    mask: Array | Tensor | None = None,
) -> Problem:
    """Check everything; raise one clear line otherwise."""
    rnn = _supported(module)
    own = ("weight_", "bias_", "parametrizations.")
    sizes = [w.numel() for name, w in rnn.named_parameters() if name.startswith(own)]
    copies = 24 * sum(sizes)  # float64, three of each
    check_memory(copies, "copies of the weights need", "use a module with fewer units")
    with _unchanged(rnn):
        weights = _weights(rnn)
    device = weights["weight_hh_l0"].device
    x, batched = batch_first(inputs, (2, 3), rnn.batch_first, "inputs"), inputs.dim() == 3
    if not all(x.shape[:2]):
        raise InputError(f"inputs of shape {tuple(inputs.shape)} hold no example or no step")
    if x.shape[2] != rnn.input_size:
        raise InputError(f"inputs have {x.shape[2]} features, the module expects {rnn.input_size}")
    if x.device != device:
        raise InputError(f"inputs are on {x.device}, the module on {device}")
    counts = steps_of(len(x), x.shape[1], lengths, mask)
    shape = 1 + isinstance(rnn, nn.LSTM), rnn.num_layers, len(x), rnn.hidden_size
    # measured: five in float64
    check_memory(40 * math.prod(shape), "initial states need", "pass fewer examples")
    x = counts.counted(counts.cleared(x.detach(), "inputs", "feature"))
    of_kind = f"initial_state of a {type(rnn).__name__}"
    initial = states_of(initial_state, of_kind, shape, batched, "h_0", "c_0")
    _check_hooks(module, rnn, x, initial)
    home = device
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):  # mps has no float64
        home = torch.device("cpu")
    return Problem(
        cells=_cells(rnn, {name: w.detach().to(home).double() for name, w in weights.items()}),
        inputs=x.to(home),
        initial=tuple(s.to(home).double() for s in initial),
        counts=counts,
        lengths=counts.lengths,
        weight_shapes={name: tuple(weight.shape) for name, weight in weights.items()},
        batched=batched,
        batch_first=rnn.batch_first,
    )


def _supported(given: nn.Module) -> nn.RNNBase:
    module = getattr(given, "_orig_mod", given)  # torch.compile wraps the module
    if not isinstance(module, nn.RNN | nn.LSTM | nn.GRU):
        if isinstance(module, type):
            raise TypeError(f"module is the class {full_name(module)}: hand over one made of it")
        name = full_name(module)
        raise TypeError(f"module is a {name}, not nn.RNN, nn.LSTM or nn.GRU; {instead(module)}")
    kind = type(module)
    # torch.compile writes a forward to the module that it returns, and marks it
    replaced = module is not given and not hasattr(given.forward, "_torchdynamo_orig_callable")
    own = getattr(kind.forward, "torchs", kind.forward) not in FORWARD  # gradient_reach marks it
    if own or kind.__call__ is not nn.Module.__call__ or "forward" in vars(module) or replaced:
        raise TypeError(
            f"{kind.__name__} has a forward of its own, which may do anything: write it as "
            f"a step and use {OF_STEP}"
        )
    refusals = {
        f"a bidirectional module is two networks: use {OF_MODEL}": module.bidirectional,
        f"a module with proj_size > 0 has two states h: use {OF_MODEL}": module.proj_size,
        "the module drops out between layers: call module.eval() first": (
            module.dropout and module.training and module.num_layers > 1
        ),
        "the module has a forward_pre_hook, which may change its weights or inputs: take it "
        "away (torch.nn.utils.remove_weight_norm, remove_spectral_norm or prune.remove; "
        "torch.nn.utils.parametrizations works without hooks)": module._forward_pre_hooks,
    }
    for message, applies in refusals.items():
        if applies:
            raise InputError(message)
    return module


def instead(module: object) -> str:
    """Say what to do with something that is no module of torch's own."""
    parts = dict(module.named_modules()) if isinstance(module, nn.Module) else {"": module}
    if names := [f".{name}" for name, part in parts.items() if isinstance(part, tuple(CELLS))]:
        which = "that" if len(names) == 1 else "one of them"
        return f"it has {', '.join(names)}: pass {which}, or use {OF_MODEL}"
    if hasattr(module, "get_weights"):
        return "rnngrad.from_keras makes one of a layer of Keras"
    for name, part in parts.items():
        if "quantiz" in type(part).__module__ or isinstance(part, torch.jit.ScriptModule):
            what = f".{name}, a {full_name(part)}," if name else "it"
            return f"pass the module that {what} was quantised or scripted from"
    return f"for a step function use {OF_STEP}, for files the command `rnngrad probe`"


def _check_hooks(module: nn.Module, rnn: nn.RNNBase, x: Tensor, initial: list[Tensor]) -> None:
    """Hooks may look at what the module returns, and not change it."""
    every: Any = nn.modules.module
    own = (hooks for m in (module, rnn) for hooks in (m._forward_hooks, m._forward_pre_hooks))
    if not any((*own, every._global_forward_hooks, every._global_forward_pre_hooks)):
        return
    with torch.no_grad(), _unchanged(rnn):
        like: Any = rnn.weight_hh_l0
        x, *states = (v.to(like) for v in (x if rnn.batch_first else x.transpose(0, 1), *initial))
        state: Any = tuple(states) if len(states) == 2 else states[0]
        plain = pytree.tree_leaves(type(rnn).forward(rnn, x, state))
        copies = pytree.tree_map(torch.clone, (x, state))  # a hook may write to what it is given
        hooked = pytree.tree_leaves(module(*copies))
    digits = torch.finfo(x.dtype).eps ** 0.5
    try:
        torch.testing.assert_close(hooked, plain, rtol=digits, atol=digits, equal_nan=True)
    except (AssertionError, TypeError):
        raise InputError(
            "a forward hook of the module, or a global one, changes what it returns: take it away, "
            f"or write the module as a step and use {OF_STEP}"
        ) from None


def _cells(rnn: nn.RNNBase, weights: dict[str, Tensor]) -> tuple[Cell, ...]:
    cell = next(cell for kind, cell in CELLS.items() if isinstance(rnn, kind))
    # an RNN's forward reads the mode, and not what the module was made with
    mode = "LSTM_SIGMOID" if isinstance(rnn, SigmoidStateLSTM) else rnn.mode
    if (kind := getattr(_compiled, mode, None)) is None:
        raise InputError(f"the module's mode is {rnn.mode!r}: use RNN_TANH or RNN_RELU")
    zero = torch.zeros_like(weights["weight_hh_l0"][:, 0])
    layers = [[weights.get(f"{w}_l{n}", zero) for w in WEIGHTS] for n in range(rnn.num_layers)]
    return tuple(cell(*layer, kind=kind) for layer in layers)


@contextmanager
def _unchanged(rnn: nn.RNNBase) -> Iterator[None]:
    """Compute parametrized weights once, and put back what that changes: buffers, random states."""
    before = [(buffer, buffer.clone()) for buffer in rnn.buffers()]
    gpus = {p.device.index for p in rnn.parameters() if p.is_cuda}
    computed = parametrize.is_parametrized(rnn)
    once = parametrize.cached() if computed else nullcontext()  # other threads see the cache
    try:
        with torch.random.fork_rng(gpus, enabled=computed), once:
            yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def _weights(rnn: nn.RNNBase) -> dict[str, Tensor]:
    """The weights that the module multiplies with, by torch's flat names.

    The parameters are something else in a parametrized module (weight_norm).
    """
    gates = next(cell.gate_count for kind, cell in CELLS.items() if isinstance(rnn, kind))
    rows, weights = gates * rnn.hidden_size, dict[str, Tensor]()
    for n, layer in enumerate(rnn.all_weights):
        columns = rnn.hidden_size if n else rnn.input_size
        shapes = (rows, columns), (rows, rnn.hidden_size), (rows,), (rows,)
        for kind, weight, shape in zip(WEIGHTS, layer, shapes, strict=False):
            name = f"{kind}_l{n}"
            check_floating(weight, name)
            check_shape(weight, name, shape)
            check_finite(weight, name, ("row", "column"))
            weights[name] = weight
    return weights
