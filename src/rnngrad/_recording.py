"""What a model's recurrent modules read in one forward pass, and what a loss sends back to them."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from rnngrad.errors import InputError

KINDS = (nn.RNN, nn.LSTM, nn.GRU)
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
States = tuple[Tensor, ...]  # h, and c of an LSTM: (layers * directions, batch, units) each


@dataclass(eq=False)
class Run:
    """The calls of a module that go on from one another: float64 on the CPU, batch first.

    weights: those that it multiplied with, by torch's flat names.
    returned: of every call what the module gave; nodes: output and states, as all others see them.
    output_gradient, final_gradient: what a loss sends to the whole; None and 0 without one.
    """

    name: str
    module: Any
    weights: dict[str, Tensor]
    state: States
    inputs: Tensor
    lengths: Tensor
    returned: list[Any] = field(default_factory=list)
    nodes: list[list[Tensor]] = field(default_factory=list)
    handed: Any = None  # copies of the last nodes, which the model may write to
    output_gradient: Tensor | None = None
    final_gradient: States = ()

    def __post_init__(self) -> None:
        self.final_gradient = tuple(map(torch.zeros_like, self.state))

    def ends_in(self, state: Any) -> bool:
        """Is it the state after the last call, and did nobody write to it?"""
        packed = isinstance(self.handed[0], PackedSequence)
        if state is None or packed or self.module.bidirectional:
            return False
        pairs = zip(_states(state), _states(self.handed[1]), strict=False)
        return all(s is end and end._version == 0 for s, end in pairs)


def record(
    model: nn.Module, inputs: tuple[Any, ...], options: Mapping[str, Any], loss: Any
) -> list[Run]:
    """Run the model once; `rnngrad.gradient_reach` says what is left as it was."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    inner, device = model, None
    while isinstance(inner, WRAPPERS) or hasattr(inner, "_orig_mod"):
        # the threads of several devices would mix their calls
        device = next(iter(getattr(inner, "device_ids", None) or []), device)
        inner: Any = getattr(inner, "_orig_mod", None) or inner.module

    def usable(given: Any) -> Any:
        if not isinstance(given, Tensor):
            return given
        given = given.clone() if given.is_inference() else given  # which autograd refuses
        return given if device is None else given.to(device)

    with _left_as_it_was(inner), ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(loss is not None))
        # nothing is compiled again, for hooks or eval mode
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if loss is not None:  # cuDNN has no backward pass in eval mode
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        runs: list[Run] = []
        names = _listen(inner, runs, stack)
        args, kwargs = pytree.tree_map(usable, (inputs, dict(options)))
        output = inner(*args, **kwargs)
        if not runs:
            raise InputError(f"the forward pass runs none of {', '.join(names)}")
        if loss is not None:
            _differentiate(runs, loss(output))
    return runs


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """In eval mode; attributes, modes, buffers and random states are put back."""
    modules = list(model.modules())
    before = [(vars(m).copy(), m._buffers.copy()) for m in modules]
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
        for module, (attributes, named) in zip(modules, before, strict=True):
            for mapping, old in ((vars(module), attributes), (attributes["_buffers"], named)):
                mapping.clear()
                mapping.update(old)
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def _listen(model: nn.Module, runs: list[Run], stack: ExitStack) -> list[str]:
    """Hooks on every recurrent module, for as long as the stack stands."""
    names = []
    for name, module in model.named_modules():
        if isinstance(module, KINDS):
            name = name.replace("_orig_mod.", "").removesuffix("._orig_mod")
            names.append(name or type(module).__name__.lower())
            before, after = _hooks(names[-1], module, runs)
            # the last to see what goes in, the first to see what comes out: others may change it
            pre_hook = module.register_forward_pre_hook(before, with_kwargs=True)
            stack.callback(pre_hook.remove)
            stack.callback(module.register_forward_hook(after, prepend=True).remove)
    if not names:
        raise InputError(
            f"{type(model).__name__} holds no nn.RNN, nn.LSTM or nn.GRU; for any other step "
            "function use rnngrad.jacobian_curves_of_step"
        )
    return names


def _hooks(
    name: str, module: nn.RNNBase, runs: list[Run]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    current: list[Run] = []

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        x, state = _arguments(*args, **kwargs)
        _check_forward(name, module)
        (inputs, lengths), own = _batch_first(module, x), [r for r in runs if r.module is module]
        ended = [r for r in own if not isinstance(x, PackedSequence) and r.ends_in(state)]
        current[:] = ended[:1]
        if ended:
            run = ended[0]
            run.inputs, run.lengths = torch.cat((run.inputs, inputs), 1), run.lengths + lengths
            # others see copies: what comes back through the next call is not theirs
            return (x, run.returned[-1][1]), {}
        title = f"{name} (call {len(own) + 1})" if own else name
        weights = {n: wide(getattr(module, n)) for n in module._flat_weights_names}
        initial = _initial(module, state, len(inputs))
        current.append(Run(title, module, weights, initial, inputs, lengths))
        runs.append(current[0])
        return (x, state), {}

    def after(_: nn.Module, __: Any, returned: Any) -> Any:
        nodes = []

        def copy(x: Tensor) -> Tensor:
            nodes.append(x.clone().requires_grad_())
            return nodes[-1].clone()

        (output, state), run = returned, current[0]
        packed = isinstance(output, PackedSequence)
        output = output._replace(data=copy(output.data)) if packed else copy(output)
        run.handed = output, pytree.tree_map(copy, state)
        run.returned.append(returned)
        run.nodes.append(nodes)
        return run.handed

    return before, after


def _differentiate(runs: list[Run], loss: Any) -> None:
    """The gradients of all that went to others."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise InputError("loss must make a scalar tensor of the model's output")
    nodes = [x for run in runs for call in run.nodes for x in call]
    found: Any = [None]
    if loss.requires_grad:
        found = torch.autograd.grad(loss.sum(), nodes, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise InputError(
            "the loss does not depend on what the recurrent modules return, or autograd is "
            "stopped on the way, by detach() or torch.no_grad()"
        )
    gradients = iter(zip(found, nodes, strict=True))
    for run in runs:
        outputs, final = [], ()
        for returned, call in zip(run.returned, run.nodes, strict=True):
            _add_to_last(run.name, outputs, final)
            pairs = (next(gradients) for _ in call)
            output, *states = (torch.zeros_like(x) if g is None else g for g, x in pairs)
            if not all(torch.isfinite(g).all() for g in (output, *states)):
                raise InputError(
                    f"the gradient of the loss by what {run.name} returns is not finite: "
                    "it explodes in the model's own arithmetic, model.double() may keep it"
                )
            if isinstance(returned[0], PackedSequence):
                output = returned[0]._replace(data=output)
            outputs.append(_batch_first(run.module, output)[0])
            final = tuple(wide(_batched(s)) for s in states)
        run.output_gradient, run.final_gradient = torch.cat(outputs, dim=1), final


def _add_to_last(name: str, outputs: list[Tensor], final: States) -> None:
    """What a loss sends into the states between two calls, where the last layer's h is the output.

    Raises:
        InputError: it looks at other states there.
    """
    if final:
        outputs[-1][:, -1] += final[0][-1]
        if final[0][:-1].any() or any(s.any() for s in final[1:]):
            raise InputError(
                f"the loss looks at c, or h of a lower layer, between two calls of {name}: "
                "only the last layer's h can be followed there"
            )


def _check_forward(name: str, module: Any) -> None:
    """Is it torch's own forward, without anything random in it?"""
    own = not any(type(module).forward is kind.forward for kind in KINDS)
    if own or "forward" in vars(module) or (module.training and module.dropout):
        raise InputError(
            f"{name}: {type(module).__name__} has a forward of its own, or drops out in eval mode; "
            "write it as a step and use rnngrad.jacobian_curves_of_step"
        )


def _arguments(input: Any, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002  torch's names
    return input, hx


def _states(state: Any) -> States:
    return tuple(state) if isinstance(state, tuple | list) else (state,)


def _batched(state: Tensor) -> Tensor:
    return state if state.dim() == 3 else state.unsqueeze(1)


def wide(x: Tensor) -> Tensor:
    """A copy as float64 on the CPU."""
    return x.detach().to("cpu", torch.float64, copy=True)


def _batch_first(module: nn.RNNBase, x: Any) -> tuple[Tensor, Tensor]:
    """(b, t, d) and the lengths (b,) of what the module reads or returns."""
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x, batch_first=True)
        return wide(x), lengths
    if x.dim() == 2:
        x = x.unsqueeze(0)
    elif not module.batch_first:
        x = x.transpose(0, 1)
    return wide(x), torch.full((x.shape[0],), x.shape[1], device="cpu")


def _initial(module: nn.RNNBase, state: Any, batch: int) -> States:
    if state is not None:
        return tuple(wide(_batched(s)) for s in _states(state))
    rows = module.num_layers * (2 if module.bidirectional else 1)
    sizes = [module.proj_size or module.hidden_size, module.hidden_size]
    sizes = sizes[: 1 + isinstance(module, nn.LSTM)]
    return tuple(torch.zeros(rows, batch, n, dtype=torch.float64, device="cpu") for n in sizes)
