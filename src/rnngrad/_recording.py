"""Record what recurrent modules read in one forward pass, and what a loss sends back to them.

During the pass their forwards are replaced by the same ones layer by layer, in float64 on the CPU.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from rnngrad.errors import InputError
from rnngrad.saved import module_of

KINDS = (nn.RNN, nn.LSTM, nn.GRU)
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
States = tuple[Tensor, ...]  # h, and c of an LSTM
_one_at_a_time = threading.RLock()  # much of what is put aside belongs to the process


@dataclass(eq=False)
class Layer:
    """Keep what a layer read and returned in calls that go on from one another.

    module: of one layer, with all directions. start, end: (directions, b, units) each.
    outputs (b, t, units), cells (directions, b, units): as all but its own next call see them.
    """

    module: Any
    start: States
    end: States
    read: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    cells: list[Tensor] = field(default_factory=list)

    def advance(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, States]:
        """Go on through x (b, t, d); give the output, and h and c at the end."""
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, end = self.module(packed, given(self.end))
        self.end = states_of(end)
        output = pad_packed_sequence(output, batch_first=True)[0].requires_grad_()
        # copies, since what comes back through the next call counts as the layer's own
        cells = [c.clone().requires_grad_() for c in self.end[1:]]
        self.read.append(x.detach())
        self.outputs.append(output)
        self.cells += cells
        forward, *backward = output.chunk(len(self.start[0]), dim=2)
        last = [forward[range(len(x)), lengths - 1], *(h[:, 0] for h in backward)]
        return output, (torch.stack(last), *cells)


@dataclass(eq=False)
class Run:
    """Keep the calls of a module that go on from one another."""

    name: str
    owner: nn.RNNBase
    layers: list[Layer]
    lengths: Any = 0
    returned: States = ()  # by the last call

    def ends_in(self, state: Any) -> bool:
        """Tell whether it is the state after the last call, and nobody has written to it."""
        pairs = zip(states_of(state), self.returned, strict=False)
        return bool(self.returned) and all(s is end and end._version == 0 for s, end in pairs)


def record(
    model: Any, inputs: tuple[Any, ...], options: Any, loss: Any
) -> tuple[list[Run], dict[Tensor, Tensor]]:
    """Run the model once; give its runs and the loss's gradients by outputs and cells of layers."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    device, runs = None, list[Run]()
    while isinstance(model, WRAPPERS) or hasattr(model, "_orig_mod"):
        # the threads of several devices would mix their calls
        device = (getattr(model, "device_ids", None) or [device])[0]
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module

    def usable(x: Tensor) -> Tensor:
        x = x.clone() if x.is_inference() else x  # which autograd refuses
        return x if device is None else x.to(device)

    with (
        _one_at_a_time,
        _left_as_it_was(model),
        torch.inference_mode(False),
        torch.set_grad_enabled(loss is not None),
        torch.compiler.set_stance("force_eager"),  # nothing is compiled again
    ):
        modules = {n: m for n, m in model.named_modules() if isinstance(m, KINDS)}
        if not modules:
            raise InputError(
                f"{type(model).__name__} holds no nn.RNN, nn.LSTM or nn.GRU; for any other step "
                "function use rnngrad.jacobian_curves_of_step"
            )
        for name, module in modules.items():
            name = name.replace("_orig_mod.", "").removesuffix("._orig_mod")
            vars(module)["forward"] = _recorded(name or type(module).__name__.lower(), module, runs)
        args, kwargs = pytree.tree_map_only(Tensor, usable, (inputs, options))
        output = model(*args, **kwargs)
        if not runs:
            raise InputError(f"the forward pass runs none of {', '.join(modules)}")
        return runs, {} if loss is None else _gradients(runs, loss(output))


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Set eval mode; put attributes, modes, tensors and random states back."""
    modules, weights = list(model.modules()), [*model.parameters(), *model.buffers()]
    if any(map(is_lazy, weights)):
        raise InputError("the model has lazy modules: run it once before")
    modes = [(m, m.training) for m in modules]
    # TorchScript keeps the buffers of its modules, and their modes, to itself
    attributes = [
        (d, d.copy()) for m in modules for d in (vars(m), m._buffers) if isinstance(d, dict)
    ]
    held = [v for own, _ in attributes for v in own.values() if isinstance(v, Tensor)]
    plain = [x for x in (*weights, *held) if x.layout == torch.strided and not x.is_nested]
    plain = [x for x in plain if not (x.is_meta or (x.is_floating_point() and x.itemsize < 2))]
    tensors = [(x, x.detach().clone()) for x in {id(x): x for x in plain}.values()]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    gpus = {p.device.index for p in model.parameters() if p.is_cuda}
    try:
        with torch.random.fork_rng(devices=sorted(gpus)):
            for module in modules:
                module.training = False
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for module, mode in modes:
            module.training = mode
        for mapping, old in attributes:
            mapping.clear()
            mapping.update(old)
        for tensor, value in tensors:
            if not torch.equal(tensor.nan_to_num(), value.nan_to_num()):
                tensor.detach().copy_(value)


def _recorded(name: str, module: Any, runs: list[Run]) -> Callable[..., Any]:
    """Make the module's forward anew, so that it notes its calls."""
    plain = type(module).forward in [kind.forward for kind in KINDS]
    plain = plain and "forward" not in vars(module)

    def forward(input: Any, hx: Any = None) -> Any:  # noqa: A002  torch's names
        if not plain or (module.training and module.dropout):
            raise InputError(
                f"{name}: {type(module).__name__} has a forward of its own, or drops out in eval "
                "mode; write it as a step and use rnngrad.jacobian_curves_of_step"
            )
        packed, calls = isinstance(input, PackedSequence), [r for r in runs if r.owner is module]
        flat = not packed and input.dim() == 2
        if packed:
            x, lengths = pad_packed_sequence(input, batch_first=True)
        else:
            x = input[None] if flat else input if module.batch_first else input.transpose(0, 1)
            lengths = torch.full((len(x),), x.shape[1], device="cpu")
            if not all(x.shape[:2]):
                raise InputError(f"{name} reads no example or no step: {tuple(input.shape)}")
        run = next((run for run in calls if not packed and run.ends_in(hx)), None)
        if run is None:
            title = f"{name} (call {len(calls) + 1})" if calls else name
            run = Run(title, module, _layers(module, hx, len(x)))
            runs.append(run)
        run.lengths, x, ends = run.lengths + lengths, _wide(x), []
        for layer in run.layers:
            x, end = layer.advance(x, lengths)
            ends.append(end)
        like = {"device": input[0].device, "dtype": module.weight_hh_l0.dtype, "copy": True}
        states = tuple(torch.cat(parts).to(**like) for parts in zip(*ends, strict=True))
        if packed:
            order = slice(None) if input.sorted_indices is None else input.sorted_indices.cpu()
            data = pack_padded_sequence(x[order], lengths[order], batch_first=True).data
            return input._replace(data=data.to(**like)), given(states)
        output = (x[0] if flat else x if module.batch_first else x.transpose(0, 1)).to(**like)
        states = tuple(s[:, 0] for s in states) if flat else states
        run.returned = () if module.bidirectional else states
        return output, given(states)

    return forward


def _layers(module: Any, state: Any, batch: int) -> list[Layer]:
    """Make each a module of its own, with the weights that count now."""
    ways = 1 + module.bidirectional
    if state is None:
        sizes = (module.proj_size or module.hidden_size, module.hidden_size)
        rows = ways * module.num_layers
        state = [torch.zeros(rows, batch, n, device="cpu") for n in sizes]
        state = state[: 1 + isinstance(module, nn.LSTM)]
    # not detached: what a loss sends through them belongs to whatever made them
    states = [_wide(s if s.dim() == 3 else s[:, None]) for s in states_of(state)]
    layers = []
    for n in range(module.num_layers):
        names = [w for way in module._all_weights[ways * n : ways * (n + 1)] for w in way]
        own = {w.replace(f"_l{n}", "_l0"): getattr(module, w) for w in names}
        start = tuple(s[ways * n : ways * (n + 1)] for s in states)
        layers.append(Layer(like(module, own), start, start))
    return layers


def like(module: Any, weights: dict[str, Tensor]) -> nn.RNNBase:
    """Make a frozen float64 module of torch's own class and of one layer, with these weights."""
    wide = {n: w.detach().to("cpu", torch.float64, copy=True) for n, w in weights.items()}
    made = module_of(wide, module.mode.removeprefix("RNN_").lower(), type(module).__name__)
    return made.requires_grad_(False).eval()


def _gradients(runs: list[Run], loss: Any) -> dict[Tensor, Tensor]:
    """Give the loss's gradients by the outputs and cells of all layers."""
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.is_complex():
        raise InputError("loss must make a scalar tensor of the model's output")
    nodes = [x for run in runs for layer in run.layers for x in (*layer.outputs, *layer.cells)]
    backward = torch.autograd.grad
    found = backward(loss.sum(), nodes, allow_unused=True) if loss.requires_grad else ()
    if all(gradient is None for gradient in found):
        raise InputError(
            "the loss does not depend on what the recurrent modules return, or autograd is "
            "stopped on the way, by detach() or torch.no_grad()"
        )
    pairs = zip(nodes, found, strict=True)
    return {x: torch.zeros_like(x) if g is None else g for x, g in pairs}


def given(states: States) -> Any:
    """Give h, or (h, c), as a module takes them."""
    first, *others = states
    return states if others else first


def states_of(state: Any) -> States:
    """Give h, or (h, c), as a tuple in any case."""
    return tuple(state) if isinstance(state, tuple | list) else (state,)


def _wide(x: Tensor) -> Tensor:
    return x.to("cpu", torch.float64, copy=True)  # the model may write to x later
