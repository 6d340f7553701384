"""Record what recurrent modules read in one forward pass, and what a loss sends back to them.

During the pass an equal forward replaces each of theirs, layer by layer, in float64 on the CPU.
"""

import inspect
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import get_gradient_edge
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.optim.swa_utils import AveragedModel
from torch.utils import _pytree as pytree

from rnngrad._left_as_it_was import left_as_it_was
from rnngrad.errors import InputError, check_memory, full_name
from rnngrad.probe import steps_of
from rnngrad.saved import KINDS, module_of

SHOWN = 4  # modules that a line names
MANY = 8  # calls of one module, each a layer of its own
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
States = tuple[Tensor, ...]  # h, and c of an LSTM
OF_STEP = "rnngrad.jacobian_curves_of_step"
GENERATOR = "_checkpoint_without_reentrant_generator"
SCRIPTED = {f"{kind.__name__}{cell}" for kind in KINDS.values() for cell in ("", "Cell")}
_one_at_a_time = threading.RLock()  # random states and thread counts are the process's


@dataclass(eq=False)
class Layer:
    """Keep what one direction of a layer read and returned in calls that continue one another.

    tail ends its weights' names, such as _l1_reverse. module is the layer alone, with W_hr in
    weight_hh. Steps are in the order in which the layer reads. start, end and cells are
    (1, b, units) each. Other modules read outputs (b, t, units) and cells.
    The layer's next call reads end instead, so their gradients hold nothing of its later steps.
    sent, sent_to_cells: these gradients of a loss, if it depends on any of these tensors.
    They arrive at a module's last layer in the dtype arrives. What goes on to earlier layers, if
    there may be any, does so in the dtype sends. nested: was each backward pass a part of the loss?
    followed: did autograd follow all calls? makes_weights: are other modules' weights made of it?
    """

    name: str
    tail: str
    module: nn.RNNBase
    W_hr: Tensor | None
    weights: dict[str, Tensor]  # the module's own, in float64
    start: States
    end: States
    arrives: torch.dtype | None
    sends: torch.dtype | None
    returned: States = ()  # by the last call
    lengths: Any = 0
    nested: list[bool] = field(default_factory=list)
    read: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    cells: tuple[Tensor, ...] = ()
    depends: bool = False
    followed: bool = True
    makes_weights: bool = False
    sent: tuple[Tensor, ...] = ()
    sent_to_cells: tuple[Tensor, ...] = ()

    def advance(self, x: Tensor, real: Tensor) -> Tensor:
        """Go on through the real steps (b, t) of x (b, t, d); give the output (b, t, units)."""
        back, before = self.tail.endswith("_reverse"), self.end[0][0][:, None]
        x, real = (x.flip(1), real.flip(1)) if back else (x, real)
        lengths = real.sum(dim=1)
        order = torch.argsort(~real, dim=1, stable=True)[:, : int(lengths.max())]
        x, outputs = x.take_along_dim(order[:, :, None], dim=1), list[Tensor]()
        # packed, 1,403 steps would take a hundred times as long in the backward pass
        edges = [0, *lengths.unique().tolist()]
        for first, part in zip(edges, x.split(np.diff(edges).tolist(), dim=1), strict=False):
            rows = (lengths > first).nonzero().flatten()
            h, hx = self.module(part[rows], hx_of(tuple(s[:, rows] for s in self.end)))
            outputs.append(h.new_zeros(len(x), *h.shape[1:]).index_copy(0, rows, h))
            # examples that have ended keep their states
            both = zip(self.end, states_of_hx(hx), strict=True)
            self.end = tuple(s.index_copy(1, rows, new) for s, new in both)
        output = torch.cat(outputs, dim=1).requires_grad_()
        # the gradients of these copies hold nothing of the next call
        cells = tuple(c.clone().requires_grad_() for c in self.end[1:])
        self.lengths = self.lengths + lengths
        beyond = torch.arange(x.shape[1], device="cpu") >= lengths[:, None]
        self.read += (x.detach().masked_fill(beyond[:, :, None], 0.0),)
        self.outputs += (output,)
        self.cells += cells
        nested = self.nested  # a hook that held the layer would never be freed
        for node in (output, *cells):  # create_graph=True keeps gradients on
            node.register_hook(lambda _: nested.append(torch.is_grad_enabled()))
        # where a step does not count, the state is kept
        output = torch.cat((before, output), dim=1)
        output = output.take_along_dim(real.cumsum(dim=1)[:, :, None], dim=1)
        if self.W_hr is not None:
            output = output @ self.W_hr.T
        self.returned = (output[None, :, -1], *cells)
        return output.flip(1) if back else output


@dataclass(eq=False)
class Recording:
    """One run of a model.

    model: its class. taken: which of lengths and mask its forward takes. layers: in the order in
    which they ran. not_asked: recurrent modules of other kinds, and those that did not run. needed:
    bytes of all that waits for the backward pass. of_model: how many of the layers ran before the
    loss. time: the last one's steps. computed: weights that the model has made of other tensors.
    """

    model: str
    with_loss: bool
    taken: list[str] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    not_asked: list[str] = field(default_factory=list)
    needed: float = 0.0
    of_model: int = 0
    time: int = 0
    computed: list[Tensor] = field(default_factory=list)


def record(
    model: Any, inputs: tuple[Any, ...], options: Any, loss: Any, counting: dict[str, Any]
) -> Recording:
    """Run the model once.

    counting: lengths and mask by name. forward gets those that it takes, all layers the others.
    """
    if not isinstance(model, nn.Module):
        what = "the class " if isinstance(model, type) else ""
        cure = "; rnngrad.from_keras makes one of a layer" if hasattr(model, "get_weights") else ""
        raise TypeError(f"model must be an nn.Module, got {what}{full_name(model)}{cure}")
    if not (loss is None or callable(loss)):
        raise TypeError("loss must be a function of the model's output, such as torch.mean")
    device, found = None, Recording(type(model).__name__, loss is not None)
    while isinstance(model, WRAPPERS) or hasattr(model, "_orig_mod"):
        # the threads of several devices would mix their calls
        device = (getattr(model, "device_ids", None) or [device])[0]
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module

    def usable(x: Tensor) -> Tensor:
        x = x.clone() if x.is_inference() else x  # autograd refuses such a tensor
        return x.to(device=device)

    with (
        _one_at_a_time,
        left_as_it_was(model),
        ExitStack() as back,
        torch.inference_mode(False),
        torch.set_grad_enabled(loss is not None),
        torch.compiler.set_stance("force_eager"),  # nothing is compiled again
    ):
        for module in model.modules():
            # what forward logs is training's; each of Lightning's two packages has such a class
            if any(kind.__name__ == "LightningModule" for kind in type(module).__mro__):
                vars(module).update(dict.fromkeys(("log", "log_dict"), lambda *_, **__: None))
        # a checkpoint would run its part of the model without autograd, or again
        for name, plain in ("CheckpointFunction.apply", _run), (GENERATOR, _run_within):
            back.enter_context(patch(f"torch.utils.checkpoint.{name}", plain))
        modules = _asked(model, found)
        for name in [*counting]:
            if takes(model.forward, name):
                options[name] = counting.pop(name)
                found.taken.append(name)
        calls: dict[str, list[bool]] = {}
        notes: dict[int, Callable[..., Any]] = {}
        for name, module in modules.items():
            name = name or type(module).__name__.lower()
            calls[name] = []
            notes[id(module)] = _recorded(name, module, found, counting, calls[name])
        for kind in KINDS.values():
            back.callback(setattr, kind, "forward", kind.forward)
            kind.forward = _noted(kind.forward, notes)
        args, kwargs = pytree.tree_map_only(Tensor, usable, (inputs, options))
        output = model(*args, **kwargs)
        found.of_model = len(found.layers)
        scalar = loss and found.layers and loss(output)
        # what a backward pass runs again is no new call
        layers = [replace(layer) for layer in found.layers]
        idle = [f".{name}, whose torch forward did not run" for name in calls if not calls[name]]
        if not layers:
            raise InputError(
                f"the forward pass runs none of the model's modules: {'; '.join(idle[:SHOWN])}; "
                f"for a step function use {OF_STEP}"
            )
        if loss is not None:
            _note_gradients(layers, scalar, found.computed)
        # nor is a backward pass within the loss
        of_loss = [layer for layer in layers[found.of_model :] if layer.depends]
        loops = [
            f".{name} as one loop of {sum(given)} calls, between which its state or weights were "
            f"changed or copied (use {OF_STEP})"
            for name, given in calls.items()
            if sum(given) > MANY
        ]
        found.not_asked += idle + loops
        layers = layers[: found.of_model] + of_loss
        for layer in layers:  # with them the model's graph would stay
            for name in ("start", "end", "returned", "outputs", "cells"):
                setattr(layer, name, tuple(s.detach() for s in getattr(layer, name)))
        return replace(found, layers=layers, computed=[])


def _run(function: Callable[..., Any], _: bool, *args: Any) -> Any:
    return function(*args)


def _run_within(_: Any, __: bool, contexts: Callable[[], Any], *___: Any, **____: Any) -> Any:
    with contexts()[0]:  # torch runs the function when this yields
        yield


def _asked(model: nn.Module, found: Recording) -> dict[str, Any]:
    """Find the modules to ask by name; note others; raise InputError if there is none."""
    # what is compiled goes by the name of its wrapper, which comes first
    named = model.named_modules()
    own = {re.sub(r"\._orig_mod(?=\.|$)", "", name): part for name, part in named}
    modules = {n: part for n, part in own.items() if isinstance(part, tuple(KINDS.values()))}
    for name, part in own.items():
        known = isinstance(part, nn.RNNCellBase | nn.RNNBase)
        known |= getattr(part, "original_name", "") in SCRIPTED
        known |= type(part).__module__.startswith("torch.ao.nn.") and hasattr(part, "hidden_size")
        if known and name and name not in modules:
            found.not_asked.append(f".{name}, a {full_name(part)}")
    if modules:
        return modules
    but = f", but {found.not_asked[0]}" if found.not_asked else ""
    raise InputError(
        f"{full_name(model)} holds no nn.RNN, nn.LSTM or nn.GRU{but}: use {OF_STEP} for a step, "
        "rnngrad.from_keras for Keras, and what a quantised or traced model was made of"
    )


def _recorded(
    name: str, module: Any, found: Recording, counting: dict[str, Any], given: list[bool]
) -> Callable[..., Any]:
    """Make torch's forward of the module anew, so that it notes its calls.

    given: whether each call so far was given a state; those that go on from one are none.
    """
    plain = next(kind.forward for kind in KINDS.values() if isinstance(module, kind))
    ways, ended = 1 + module.bidirectional, dict[States, list[Layer]]()
    units = module.hidden_size * ways * module.num_layers

    def forward(input: Any, hx: Any = None) -> Any:  # noqa: A002  torch's names
        if module.training and module.dropout:
            raise InputError(f"{name} drops out in eval mode, too: set its dropout to 0")
        if module.weight_hh_l0.is_meta:
            raise InputError(f"{name} is on the meta device: load its weights")
        if found.of_model and not torch.is_grad_enabled():  # a loss's target is no part of it
            return plain(module, input, hx)
        packed = isinstance(input, PackedSequence)
        if not isinstance(input, PackedSequence | Tensor):
            raise InputError(f"{name} must read a tensor or PackedSequence, got {full_name(input)}")
        if not packed and input.dim() not in (2, 3):
            return plain(module, input, hx)  # torch refuses it
        if packed and counting:
            raise InputError(f"{name} reads packed inputs: leave {' and '.join(counting)} out")
        flat = not packed and input.dim() == 2
        if not all(input.data.shape[:2]):
            raise InputError(f"{name} reads no example or no step: {tuple(input.data.shape)}")
        time_first, steps = not (module.batch_first or flat or packed), counting
        if packed:
            x, lengths = pad_packed_sequence(input, batch_first=True)
            steps = {"lengths": lengths}
        else:
            x = input[None] if flat else input
            x = x.transpose(0, 1) if time_first else x
        if counting and found.time not in (0, x.shape[1]):
            raise InputError(
                f"{name} reads {x.shape[1]} steps: {' and '.join(counting)} of the {found.time} "
                "steps that a layer before it reads do not fit; pack inputs"
            )
        found.time = x.shape[1]
        try:
            counts = steps_of(len(x), x.shape[1], **steps)
            # measured: up to 14 arrays of a layer's size
            found.needed += 8 * x.shape[0] * x.shape[1] * (3 * x.shape[2] + 14 * units)
            check_memory(
                found.needed, "what is read up to here takes", "use fewer examples or steps"
            )
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        with torch.no_grad():  # torch refuses what does not fit
            _, end = plain(module, input, hx)
        # a model may squeeze a state and unsqueeze it
        bases = tuple(s if s is None or s._base is None else s._base for s in states_of_hx(hx))
        run = None if steps else ended.pop(bases, None)
        if not (run and _goes_on(run, module, states_of_hx(hx))):
            title = f"{name} (call {len(given) + 1})" if given else name
            given.append(hx is not None)
            start = [torch.zeros_like(s) for s in states_of_hx(end)] if hx is None else hx
            run = _layers(title, module, states_of_hx(start))
            found.layers.extend(run)
        found.computed += [w for w in module._flat_weights if w.grad_fn]
        if x.requires_grad or any(s.requires_grad for s in states_of_hx(hx) if s is not None):
            for layer in run[:ways]:
                layer.sends = x.dtype
        x = _wide(x)
        for layer in run:
            layer.followed &= torch.is_grad_enabled()
        for n in range(0, len(run), ways):
            x = torch.cat([layer.advance(x, counts.real) for layer in run[n : n + ways]], dim=2)
        like = {"device": input[0].device, "dtype": module.weight_hh_l0.dtype, "copy": True}
        ends = map(torch.cat, zip(*(layer.returned for layer in run), strict=True))
        # no views: the model may detach them in place
        states = tuple((end[:, 0] if flat else end).to(**like) for end in ends)
        if packed:
            order = slice(None) if input.sorted_indices is None else input.sorted_indices.cpu()
            data = pack_padded_sequence(x[order], counts.ends[order], batch_first=True).data
            return input._replace(data=data.to(**like)), hx_of(states)
        # as torch lays it out: models call .view
        x = x.transpose(0, 1).contiguous()
        x = x if time_first else x.transpose(0, 1)
        output = (x[0] if flat else x).to(**like)
        if not module.bidirectional:
            ended[states] = run
        return output, hx_of(states)

    forward.__qualname__ = f"{type(module).__name__}.forward"  # Python's own errors name it
    return forward


def _noted(torchs: Callable[..., Any], notes: dict[int, Callable[..., Any]]) -> Any:
    """Replace torch's forward for the modules that are asked; subclasses may call it, too."""

    @wraps(torchs)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return notes.get(id(self), partial(torchs, self))(*args, **kwargs)

    vars(forward)["torchs"] = torchs  # by which another thread's probe knows it
    return forward


def _goes_on(run: list[Layer], module: Any, states: States) -> bool:
    """Does a call go on with the weights and the states that a run ended with, as autograd sees it?

    The model may have written to either, also behind autograd's back.
    """
    followed = torch.is_grad_enabled()
    if followed and not all(map(_sends_back, states)):
        return False
    ends = map(torch.cat, zip(*(layer.returned for layer in run), strict=True))
    pairs = [(s.flatten(), end.flatten().to(s)) for s, end in zip(states, ends, strict=True)]
    for layer, weights in zip(run, _weights(module), strict=True):
        pairs += [(layer.weights[name], weight) for name, weight in weights.items()]
    return followed == run[0].followed and all(torch.equal(*pair) for pair in pairs)


def _sends_back(state: Tensor) -> bool:
    """Does what a loss sends to a state arrive unchanged at the tensor that it is a view of?"""
    node, base = state.grad_fn, state if state._base is None else state._base
    if not (state.requires_grad and base.requires_grad) or state._version:
        return False
    while node != base.grad_fn:
        if isinstance(node, BackwardCFunction) or not (node and node.next_functions):
            return False  # a function of one's own may do anything
        node = node.next_functions[0][0]
    # a hook may turn or clip gradients
    sent = torch.logspace(-3, 3, state.numel()).to(state).reshape(state.shape)
    (back,) = torch.autograd.grad(state, base, sent, retain_graph=True)
    return torch.equal(back.flatten(), sent.flatten())


def _weights(module: Any) -> list[dict[str, Tensor]]:
    """By layer and direction, the weights that count now, named as in a module of one layer."""
    flat = dict(zip(module._flat_weights_names, module._flat_weights, strict=True))  # torch's own
    tails = [names[0].removeprefix("weight_ih") for names in module._all_weights]
    return [
        {name.replace(tail, "_l0"): _wide(flat[name].detach()) for name in names}
        for names, tail in zip(module._all_weights, tails, strict=True)
    ]


def _layers(run: str, module: Any, start: Iterable[Tensor]) -> list[Layer]:
    """Make each direction of each layer a module of its own, with the weights that count now."""
    # states stay attached: what a loss sends through them belongs to whatever made them
    states = [_wide(s if s.dim() == 3 else s[:, None]) for s in start]
    kind, layers = module.mode.removeprefix("RNN_").lower(), []
    for row, weights in enumerate(_weights(module)):
        n, way = divmod(row, 1 + module.bidirectional)
        name = run + (f".{n}" if module.num_layers > 1 else "")
        name += (".forward", ".backward")[way] if module.bidirectional else ""
        tail = module._all_weights[row][0].removeprefix("weight_ih")
        h, *c = (s[[row]] for s in states)
        own, W_hr = {**weights}, weights.get("weight_hr_l0")
        if W_hr is not None:
            own["weight_hh_l0"] = own["weight_hh_l0"] @ own.pop("weight_hr_l0")
            given_h, h = h, h @ torch.linalg.pinv(W_hr).T  # the smallest that W_hr projects to it
            if given_h.isfinite().all() and not torch.allclose(h @ W_hr.T, given_h):
                raise InputError(
                    f"{name}: weight_hr lacks rank: no state makes the given h_0 of it"
                )
        alone = module_of(own, kind, name).requires_grad_(False).eval()
        arrives = module.weight_hh_l0.dtype if n == module.num_layers - 1 else None
        sends = torch.float64 if n else None  # the first layer's is known once it reads
        layers.append(Layer(name, tail, alone, W_hr, weights, (h, *c), (h, *c), arrives, sends))
    return layers


def _note_gradients(layers: list[Layer], loss: Any, computed: list[Tensor]) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.is_complex():
        got = (
            f"{loss.dtype} of shape {tuple(loss.shape)}"
            if isinstance(loss, Tensor)
            else full_name(loss)
        )
        raise InputError(f"loss must make a scalar tensor of the model's output, got {got}")
    nodes = [x for layer in layers for x in (*layer.outputs, *layer.cells)]
    made_of, waiting = set[Any](), [weight.grad_fn for weight in computed]
    while waiting:
        if (node := waiting.pop()) and node not in made_of:
            made_of.add(node)
            waiting += [before for before, _ in node.next_functions]
    for layer in layers:
        own = [get_gradient_edge(x).node for x in (*layer.outputs, *layer.cells) if made_of]
        layer.makes_weights = not made_of.isdisjoint(own)
    found = torch.autograd.grad(loss.sum(), nodes, allow_unused=True) if loss.requires_grad else ()
    known = {x: g for x, g in zip(nodes, found, strict=False) if g is not None}
    for layer in layers:
        layer.depends = any(x in known for x in (*layer.outputs, *layer.cells))
        layer.sent = tuple(known.get(x, torch.zeros_like(x)) for x in layer.outputs)
        layer.sent_to_cells = tuple(known.get(c, torch.zeros_like(c)) for c in layer.cells)
    if not known and not any(any(layer.nested) for layer in layers):
        raise InputError(
            "the loss does not depend on what the recurrent modules return, or autograd is "
            "stopped on the way, by detach() or torch.no_grad()"
        )


def takes(function: Callable[..., Any], name: str) -> bool:
    """Say whether a function may be called with an argument of that name."""
    with suppress(TypeError):
        inspect.signature(function).bind_partial(**{name: None})
        return True
    return False


def hx_of(states: States) -> Any:
    """Give h, or (h, c), as a module takes them."""
    first, *others = states
    return states if others else first


def states_of_hx(state: Any) -> States:
    """Give h, or (h, c), as a tuple in any case."""
    return tuple(state) if isinstance(state, tuple | list) else (state,)


def _wide(x: Tensor) -> Tensor:
    return x.to("cpu", torch.float64, copy=True)  # the model may write to x later
