"""What a model's recurrent modules read in one forward pass, and what a loss sends back to them.

During the pass their forwards are replaced by the same ones layer by layer, in float64 on the CPU.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from rnngrad.errors import InputError

KINDS = (nn.RNN, nn.LSTM, nn.GRU)
States = tuple[Tensor, ...]  # h, and c of an LSTM


@dataclass(eq=False)
class Layer:
    """A layer in calls that go on from one another: what it read and returned in each of them.

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
        """Go on through x (b, t, d): the output, h and c at the end."""
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, end = self.module(packed, given(self.end))
        self.end = end if isinstance(end, tuple) else (end,)
        # copies, since what comes back through the next call counts as the layer's own
        output = pad_packed_sequence(output, batch_first=True)[0].clone().requires_grad_()
        cells = [c.clone().requires_grad_() for c in self.end[1:]]
        self.read.append(x.detach())
        self.outputs.append(output)
        self.cells += cells
        forward, *backward = output.chunk(len(self.start[0]), dim=2)
        last = [
            forward[torch.arange(len(x), device="cpu"), lengths - 1],
            *(h[:, 0] for h in backward),
        ]
        return output, (torch.stack(last), *cells)


@dataclass(eq=False)
class Run:
    """The calls of a module that go on from one another."""

    name: str
    owner: nn.RNNBase
    layers: list[Layer]
    lengths: Any = 0
    returned: tuple[Any, States] = (None, ())

    def ends_in(self, state: Any) -> bool:
        """Is it the state after the last call, and has nobody written to it?"""
        if (
            state is None
            or self.owner.bidirectional
            or isinstance(self.returned[0], PackedSequence)
        ):
            return False
        pairs = zip(_states(state), self.returned[1], strict=False)
        return all(s is end and end._version == 0 for s, end in pairs)

    def nodes(self) -> list[Tensor]:
        """All that gradients are asked for."""
        return [x for layer in self.layers for x in (*layer.outputs, *layer.cells)]


def record(model: Any, inputs: tuple[Any, ...], options: Any, loss: Any) -> tuple[list[Run], Any]:
    """Run the model once: what it ran, and the loss's gradients by `Run.nodes` of all.

    `rnngrad.gradient_reach` says what is left as it was.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    device, runs = None, list[Run]()
    while True:  # the threads of several devices would mix their calls
        device = next(iter(getattr(model, "device_ids", None) or []), device)
        parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        if not parallel and not hasattr(model, "_orig_mod"):
            break
        model = model.module if parallel else model._orig_mod

    def usable(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        x = x.clone() if x.is_inference() else x  # which autograd refuses
        return x if device is None else x.to(device)

    with (
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
        args, kwargs = pytree.tree_map(usable, (inputs, options))
        output = model(*args, **kwargs)
        if not runs:
            raise InputError(f"the forward pass runs none of {', '.join(modules)}")
        return runs, None if loss is None else _gradients(runs, loss(output))


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """In eval mode; attributes, modes, buffers and random states are put back."""
    modules = list(model.modules())
    before = [(vars(m), vars(m).copy()) for m in modules]
    before += [(m._buffers, m._buffers.copy()) for m in modules]
    buffers = [(b, b.clone()) for b in model.buffers()]
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
        for mapping, old in before:
            mapping.clear()
            mapping.update(old)
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def _recorded(name: str, module: Any, runs: list[Run]) -> Callable[..., Any]:
    """The module's forward, which notes its calls."""
    plain = any(type(module).forward is kind.forward for kind in KINDS)
    own = not plain or "forward" in vars(module)

    def forward(input: Any, hx: Any = None) -> Any:  # noqa: A002  torch's names
        if own or (module.training and module.dropout):
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
            output = input._replace(data=data.to(**like))
        else:
            output = (x[0] if flat else x if module.batch_first else x.transpose(0, 1)).to(**like)
            states = tuple(s[:, 0] for s in states) if flat else states
        run.returned = output, states
        return output, given(states)

    return forward


def _layers(module: Any, state: Any, batch: int) -> list[Layer]:
    """Each as a frozen float64 module of its own, with the weights that count now."""
    ways, weights = (
        1 + module.bidirectional,
        {n: getattr(module, n) for n in module._flat_weights_names},
    )
    options = {"bidirectional": module.bidirectional}
    options |= {"proj_size": module.proj_size} if module.proj_size else {}
    if state is None:
        sizes = (module.proj_size or module.hidden_size, module.hidden_size)
        lstm = isinstance(module, nn.LSTM)
        rows = ways * module.num_layers
        state = [torch.zeros(rows, batch, n, device="cpu") for n in sizes[: 1 + lstm]]
    states = [_wide(s if s.dim() == 3 else s[:, None]).detach() for s in _states(state)]
    layers = []
    for n in range(module.num_layers):
        tails = (f"_l{n}", f"_l{n}_reverse")
        own = {w.replace(tails[0], "_l0"): v for w, v in weights.items() if w.endswith(tails)}
        start = tuple(s[ways * n : ways * (n + 1)] for s in states)
        layers.append(Layer(like(module, own, **options), start, start))
    return layers


def like(module: Any, weights: dict[str, Tensor], **options: Any) -> nn.RNNBase:
    """A frozen float64 module of torch's own class and of one layer, with these weights."""
    kind: Any = next(kind for kind in KINDS if isinstance(module, kind))
    if kind is nn.RNN:
        options["nonlinearity"] = module.mode[4:].lower()
    options |= {"bias": bool(module.bias), "batch_first": True, "device": "meta"}
    made = kind(weights["weight_ih_l0"].shape[1], module.hidden_size, **options)
    wide = {name: _wide(w).detach().clone() for name, w in weights.items()}
    made.load_state_dict(wide, assign=True)
    return made.requires_grad_(False).eval()


def _gradients(runs: list[Run], loss: Any) -> Iterator[Tensor]:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise InputError("loss must make a scalar tensor of the model's output")
    nodes = [node for run in runs for node in run.nodes()]
    found: Any = [None]
    if loss.requires_grad:
        found = torch.autograd.grad(loss.sum(), nodes, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise InputError(
            "the loss does not depend on what the recurrent modules return, or autograd is "
            "stopped on the way, by detach() or torch.no_grad()"
        )
    if not all(g is None or torch.isfinite(g).all() for g in found):
        raise InputError(
            "the gradient of the loss by what the recurrent modules return is not finite: "
            "it explodes in the model's own arithmetic, model.double() may keep it"
        )
    return iter(
        [torch.zeros_like(x) if g is None else g for g, x in zip(found, nodes, strict=True)]
    )


def given(states: States) -> Any:
    """As a module takes them."""
    return states if len(states) > 1 else states[0]


def _states(state: Any) -> States:
    return tuple(state) if isinstance(state, tuple | list) else (state,)


def _wide(x: Tensor) -> Tensor:
    return x.to("cpu", torch.float64)
