"""What the user handed over, checked and brought into one form.

Everything downstream sees time-second batches (b, t, d), float64 weights, one cell per layer and
lengths. Nothing is copied to float64 here but the weights: inputs are converted chunk by chunk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from rnngrad.errors import InputError
from rnngrad.probe.cells import GRU, LSTM, RNN, SigmoidStateLSTM

Array = np.ndarray
States = list[tuple[Array, ...]]  # by layer: h, and c of an LSTM, (b, H) each


class LayerRun(NamedTuple):
    """One layer over some steps of some examples: what it reads (b, t, d), h (b, t, H), factors."""

    x: Array
    h: Array
    factors: Any


@dataclass(frozen=True)
class Problem:
    """A module and a batch. `h` and `c` are initial states (layer, b, H)."""

    cells: tuple[RNN, ...] | tuple[GRU, ...] | tuple[LSTM, ...]
    inputs: Tensor
    h: Tensor
    c: Tensor | None
    lengths: Tensor
    dtype: torch.dtype  # the module's own
    weight_shapes: dict[str, tuple[int, ...]]  # by torch's flat names
    batched: bool
    batch_first: bool

    def on_cpu(self) -> "Problem":
        """The same with everything on the CPU."""
        if self.inputs.device.type == "cpu":
            return self
        cells: Any = tuple(cell.to("cpu") for cell in self.cells)
        c = None if self.c is None else self.c.cpu()
        return replace(self, cells=cells, inputs=self.inputs.cpu(), h=self.h.cpu(), c=c)

    def take(self, examples: Array) -> "Problem":
        """Some of the examples."""
        at = torch.from_numpy(examples)
        h, c = self.h[:, at], None if self.c is None else self.c[:, at]
        return replace(self, inputs=self.inputs[at], h=h, c=c, lengths=self.lengths[at])

    @cached_property
    def inputs_array(self) -> np.ndarray:
        """The inputs of a problem on the CPU, float32 or float64."""
        wide = self.inputs.itemsize >= 4
        return (self.inputs if wide else self.inputs.float()).numpy()

    @property
    def batch(self) -> int:
        return self.inputs.shape[0]

    @property
    def steps(self) -> int:
        return self.inputs.shape[1]

    @property
    def hidden(self) -> int:
        return self.h.shape[-1]

    @property
    def states(self) -> tuple[str, ...]:
        return self.cells[0].states

    def start(self, examples: Sequence[int] | Array, layers: int) -> States:
        """A copy of the initial states of the first layers."""
        parts = [s[:layers, examples].numpy() for s in (self.h, self.c) if s is not None]
        return [tuple(part[layer].copy() for part in parts) for layer in range(layers)]

    def run(
        self, examples: Sequence[int] | Array, steps: slice, states: States
    ) -> Iterator[LayerRun]:
        """As many layers as there are states, over some steps; the states move on in place.

        Raises:
            InputError: the forward pass overflows before the end of an example.
        """
        x = self.inputs_array[examples, steps].astype(np.float64)
        for layer, own in enumerate(states):
            with np.errstate(all="ignore"):
                h, factors = self.cells[layer].advance(x, own)
                finite = np.isfinite(h.sum() + sum(s.sum() for s in own))
            if not finite:
                self.refuse_overflow(h, own, layer, examples, steps)
            yield LayerRun(x, h, factors)
            x = h

    def refuse_overflow(
        self,
        h: Array,
        states: tuple[Array, ...],
        layer: int,
        examples: Sequence[int] | Array,
        steps: slice,
    ) -> None:
        bad = ~np.isfinite(h).all(axis=2)
        bad[:, -1] |= ~np.isfinite(states[-1]).all(axis=1)
        t = np.arange(steps.start, steps.start + h.shape[1])
        bad &= t < self.lengths.numpy()[examples][:, None]
        if bad.any():
            at, t = min(np.argwhere(bad), key=lambda place: place[1])
            raise InputError(
                f"the forward pass overflows float64 in layer {layer}, example {examples[at]}, "
                f"step {steps.start + t + 1} (steps from 1): there is no state to take a "
                "derivative of; scale weights, inputs or initial state down"
            )

    def layer_index(self, layer: int) -> int:
        count = len(self.cells)
        check_integer(layer, "layer")
        if not -count <= layer < count:
            raise InputError(f"layer={layer}: the module has {count} layer(s); use 0..{count - 1}")
        return layer % count

    def state_rows(self, state: str) -> slice:
        """Which of the rows [h; c] of a Jacobian the name `state` means."""
        H = self.hidden
        if state not in ("h", "c", "full"):
            raise InputError(f'state={state!r}: use "h", "c" (LSTM) or "full"')
        if state == "c" and "c" not in self.states:
            kind = type(self.cells[0]).__name__
            raise InputError(f'state="c": a {kind} has no cell state; use state="h"')
        if state == "full":
            return slice(0, H * len(self.states))
        return slice(0, H) if state == "h" else slice(H, 2 * H)

    def like_output(self, gradient: Tensor, name: str) -> Array:
        """A tensor shaped like the module's output as (b, t, H), and 0 beyond the lengths."""
        tensor = batch_first(gradient, self.batched, self.batch_first, name)
        expected = (self.batch, self.steps, self.hidden)
        if tuple(tensor.shape) != expected:
            raise InputError(
                f"{name} has (batch, time, hidden) = {tuple(tensor.shape)}, "
                f"the module's output {expected}"
            )
        tensor = tensor.detach().cpu()
        beyond = torch.arange(self.steps) >= self.lengths[:, None]
        tensor = tensor.masked_fill(beyond.unsqueeze(2), 0.0)
        check_finite(tensor, name, ("example", "step", "unit"))
        return tensor.double().numpy()


def problem_of(
    module: nn.Module,
    inputs: Tensor,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    lengths: Sequence[int] | np.ndarray | Tensor | None = None,
) -> Problem:
    """Check everything; raise one clear line otherwise."""
    rnn = _supported(module)
    weights = _weights(rnn)
    x = batch_first(inputs, None, rnn.batch_first, "inputs")
    batched = inputs.dim() == 3
    if x.shape[0] == 0 or x.shape[1] == 0:
        raise InputError(f"inputs of shape {tuple(inputs.shape)} hold no example or no step")
    if x.shape[2] != rnn.input_size:
        raise InputError(f"inputs have {x.shape[2]} features, the module expects {rnn.input_size}")
    dtype, device = weights["weight_hh_l0"].dtype, weights["weight_hh_l0"].device
    if x.device != device:
        raise InputError(f"inputs are on {x.device}, the module on {device}")
    real_steps = _lengths(lengths, x.shape[0], x.shape[1])
    x = _without_padding(x.detach(), real_steps)
    check_finite(x, "inputs", ("example", "step", "feature"))
    home = _with_float64(device)
    h, c = _initial_state(rnn, initial_state, len(x), batched, home)
    if _hooks(module) or _hooks(rnn) or _global_hooks():
        _check_hooks(module, rnn, *(v if v is None else v.to(device, dtype) for v in (x, h, c)))
    return Problem(
        cells=_cells(rnn, {name: weight.to(home) for name, weight in weights.items()}),
        inputs=x.to(home),
        h=h,
        c=c,
        lengths=real_steps,
        dtype=dtype,
        weight_shapes={name: tuple(weight.shape) for name, weight in weights.items()},
        batched=batched,
        batch_first=rnn.batch_first,
    )


def _with_float64(device: torch.device) -> torch.device:
    """The device, or the CPU for one that has no float64 (mps)."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return torch.device("cpu")
    return device


FORWARD = (nn.RNN.forward, nn.LSTM.forward, nn.GRU.forward, SigmoidStateLSTM.forward)
NONLINEARITIES = {"RNN_TANH": "tanh", "RNN_RELU": "relu"}
GATES: dict[type[nn.RNNBase], int] = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4}


def _supported(given: nn.Module) -> nn.RNNBase:
    module = getattr(given, "_orig_mod", given)  # of torch.compile
    if not isinstance(module, nn.RNN | nn.LSTM | nn.GRU):
        raise TypeError(
            f"module is a {type(module).__name__}, not nn.RNN, nn.LSTM or nn.GRU; "
            "for any other step function use rnngrad.jacobian_curves_of_step"
        )
    if module.bidirectional:
        raise InputError(
            "bidirectional modules are not supported: copy each direction of a layer into a module "
            "of its own, the backward one for torch.flip(inputs, time); upper layers read "
            "both directions below"
        )
    if module.proj_size:
        raise InputError(
            "proj_size > 0 is not supported: write the step and use rnngrad.jacobian_curves_of_step"
        )
    if module.dropout and module.training and module.num_layers > 1:
        raise InputError("the module drops out between layers: call module.eval() first")
    own = type(module).forward not in FORWARD or type(module).__call__ is not nn.Module.__call__
    if own or "forward" in vars(module) or _replaced(given):
        raise TypeError(
            f"{type(module).__name__} has a forward of its own, which may do anything: write it as "
            "a step and use rnngrad.jacobian_curves_of_step"
        )
    if module._forward_pre_hooks:
        raise InputError(
            "the module has a forward_pre_hook, which may change its weights or inputs: take it "
            "away (torch.nn.utils.remove_weight_norm, remove_spectral_norm or prune.remove; "
            "torch.nn.utils.parametrizations works without hooks)"
        )
    return module


def _replaced(given: nn.Module) -> bool:
    """Is the forward of a compiled module another one than torch.compile has given it?"""
    forward = vars(given).get("forward")
    return hasattr(given, "_orig_mod") and not hasattr(forward, "_torchdynamo_orig_callable")


def _global_hooks() -> bool:
    of_all = nn.modules.module
    return bool(of_all._global_forward_hooks or of_all._global_forward_pre_hooks)


def _hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _check_hooks(
    module: nn.Module, rnn: nn.RNNBase, x: Tensor, h: Tensor, c: Tensor | None
) -> None:
    """Hooks may look at what the module returns, and not change it."""
    x = x if rnn.batch_first else x.transpose(0, 1)
    state = h if c is None else (h, c)
    with torch.no_grad():
        plain = pytree.tree_leaves(type(rnn).forward(rnn, x, state))  # pyright: ignore[reportArgumentType]
        # a hook may write to what it is given
        given = (x.clone(), pytree.tree_map(torch.clone, state))
        hooked = pytree.tree_leaves(module(*given))
    digits = torch.finfo(x.dtype).eps ** 0.5
    if len(plain) != len(hooked) or not all(
        isinstance(a, Tensor)
        and a.shape == b.shape
        and torch.allclose(a, b, digits, digits, equal_nan=True)
        for a, b in zip(hooked, plain, strict=True)
    ):
        raise InputError(
            "a forward hook of the module, or a global one, changes what it returns: take it away, "
            "or write the module as a step and use rnngrad.jacobian_curves_of_step"
        )


def _cells(
    rnn: nn.RNNBase, weights: dict[str, Tensor]
) -> tuple[RNN, ...] | tuple[GRU, ...] | tuple[LSTM, ...]:
    layers = [_layer(weights, layer) for layer in range(rnn.num_layers)]
    if isinstance(rnn, nn.RNN):
        if rnn.mode not in NONLINEARITIES:
            raise InputError(f"the module's mode is {rnn.mode!r}: use RNN_TANH or RNN_RELU")
        # what forward reads: `nonlinearity` is only what the module was made with
        return tuple(RNN(*layer, NONLINEARITIES[rnn.mode]) for layer in layers)
    if isinstance(rnn, nn.GRU):
        return tuple(GRU(*layer) for layer in layers)
    return tuple(LSTM(*layer, isinstance(rnn, SigmoidStateLSTM)) for layer in layers)


def _weights(rnn: nn.RNNBase) -> dict[str, Tensor]:
    """The weights that the module multiplies with, by torch's flat names.

    Attributes, not parameters: of a parametrized module (weight_norm, orthogonal) the parameters
    are something else, and what is computed from them is what has to be finite.
    """
    expected = _expected_shapes(rnn)
    if unexpected := [n for n in rnn._flat_weights_names if n not in expected]:
        raise InputError(f"the module has {unexpected[0]}, which {_made(rnn)} has not")
    if missing := [name for name in expected if getattr(rnn, name, None) is None]:
        raise InputError(f"the module has no {missing[0]}, which {_made(rnn)} has: was it deleted?")
    weights: dict[str, Tensor] = {name: getattr(rnn, name) for name in expected}
    first = weights["weight_hh_l0"]
    for name, weight in weights.items():
        check_floating(weight, name)
        if tuple(weight.shape) != expected[name]:
            shape = tuple(weight.shape)
            raise InputError(f"{name} has shape {shape}, expected {expected[name]} in {_made(rnn)}")
        if (weight.dtype, weight.device) != (first.dtype, first.device):
            raise InputError(
                f"{name} is {weight.dtype} on {weight.device}, weight_hh_l0 {first.dtype} on "
                f"{first.device}: call module.to(...)"
            )
        check_finite(weight, name, ("row", "column"))
    return weights


def _made(rnn: nn.RNNBase) -> str:
    """What a module of its settings is: they may have been changed since it was made."""
    kind = next(kind for kind in GATES if isinstance(rnn, kind)).__name__
    return (
        f"nn.{kind}({rnn.input_size}, {rnn.hidden_size}, num_layers={rnn.num_layers}, "
        f"bias={bool(rnn.bias)})"
    )


def _expected_shapes(rnn: nn.RNNBase) -> dict[str, tuple[int, ...]]:
    rows = next(gates for kind, gates in GATES.items() if isinstance(rnn, kind)) * rnn.hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(rnn.num_layers):
        entering = rnn.hidden_size if layer else rnn.input_size
        shapes |= {f"weight_ih_l{layer}": (rows, entering)}
        shapes |= {f"weight_hh_l{layer}": (rows, rnn.hidden_size)}
        if rnn.bias:
            shapes |= {f"bias_ih_l{layer}": (rows,), f"bias_hh_l{layer}": (rows,)}
    return shapes


def _layer(weights: dict[str, Tensor], layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    w_ih = weights[f"weight_ih_l{layer}"].detach().double()
    w_hh = weights[f"weight_hh_l{layer}"].detach().double()
    zero = torch.zeros_like(w_hh[:, 0])
    b_ih, b_hh = (weights.get(f"bias_{side}_l{layer}", zero) for side in ("ih", "hh"))
    return w_ih, w_hh, b_ih.detach().double(), b_hh.detach().double()


def batch_first(tensor: Tensor, batched: bool | None, first: bool, name: str) -> Tensor:
    """(b, t, d) from what module.forward takes or returns."""
    if isinstance(tensor, PackedSequence):
        raise TypeError(
            f"{name} is a PackedSequence: unpack it with torch.nn.utils.rnn.pad_packed_sequence "
            "and pass lengths="
        )
    check_floating(tensor, name)
    dims = (2, 3) if batched is None else (3,) if batched else (2,)
    if tensor.dim() not in dims:
        raise InputError(
            f"{name} has {tensor.dim()} dimensions; expected (batch, time, features), "
            "(time, batch, features) or unbatched (time, features), like the module"
        )
    if tensor.dim() == 2:
        return tensor.unsqueeze(0)
    return tensor if first else tensor.transpose(0, 1)


def _initial_state(
    rnn: nn.RNNBase,
    state: Tensor | tuple[Tensor, Tensor] | None,
    batch: int,
    batched: bool,
    device: torch.device,
) -> tuple[Tensor, Tensor | None]:
    lstm = isinstance(rnn, nn.LSTM)
    shape = (rnn.num_layers, batch, rnn.hidden_size)
    if state is None:
        zero = torch.zeros(shape, dtype=torch.float64, device=device)
        return zero, zero if lstm else None
    if lstm != isinstance(state, tuple | list) or (lstm and len(state) != 2):
        wanted = "a pair (h_0, c_0)" if lstm else "one tensor h_0"
        raise TypeError(f"initial_state of a {type(rnn).__name__} is {wanted}")
    names = ("h_0", "c_0") if lstm else ("h_0",)
    parts = state if lstm else (state,)
    checked = [_one_state(s, n, shape, batched) for s, n in zip(parts, names, strict=True)]  # pyright: ignore[reportArgumentType]
    return checked[0].to(device), checked[1].to(device) if lstm else None


def _one_state(state: Tensor, name: str, shape: tuple[int, ...], batched: bool) -> Tensor:
    check_floating(state, name)
    expected = shape if batched else (shape[0], shape[2])
    if tuple(state.shape) != expected:
        raise InputError(f"{name} has shape {tuple(state.shape)}, expected {expected}")
    check_finite(state, name, ("layer", "example", "unit") if batched else ("layer", "unit"))
    return state.detach().double().reshape(shape)


def _lengths(lengths: Sequence[int] | np.ndarray | Tensor | None, batch: int, steps: int) -> Tensor:
    if lengths is None:
        return torch.full((batch,), steps)
    try:
        tensor = torch.as_tensor(lengths).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"lengths must be integers, one per example, got {lengths!r}") from None
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"lengths must be integers, got {tensor.dtype}")
    if tuple(tensor.shape) != (batch,):
        raise InputError(f"lengths has shape {tuple(tensor.shape)}, expected ({batch},)")
    tensor = tensor.long()
    wrong = ((tensor < 1) | (tensor > steps)).nonzero()
    if len(wrong):
        b = int(wrong[0])
        raise InputError(f"lengths[{b}] = {int(tensor[b])}: must lie in 1..{steps}")
    return tensor


def _without_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """x (b, t, d) as it is, or with zeros beyond the lengths if NaN or inf may be there."""
    if int(lengths.min()) == x.shape[1] or x.is_meta or _sums_up(x):
        return x
    padding = torch.arange(x.shape[1]) >= lengths[:, None]
    return x.masked_fill(padding.to(x.device).unsqueeze(2), 0.0)


def check_integer(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")


def check_floating(tensor: Tensor, name: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
    if tensor.is_nested or tensor.layout != torch.strided:
        cure = ", and pass lengths= if need be" if tensor.is_nested else ""
        kind = "nested" if tensor.is_nested else "sparse"
        raise TypeError(f"{name} is a {kind} tensor: make it dense{cure}")
    if not tensor.is_floating_point() or tensor.itemsize < 2:
        raise TypeError(
            f"{name} must be floating point of 16 bits or more, got {tensor.dtype}: embed or "
            "convert it first"
        )


def _sums_up(tensor: Tensor) -> bool:
    """Is the sum finite? One inf or NaN would be left in it.

    By NumPy where that can be: torch's threads spin after a sum, which takes longer than it.
    """
    tensor = tensor.detach()
    if tensor.device.type == "cpu" and tensor.itemsize >= 4:
        with np.errstate(all="ignore"):
            return bool(np.isfinite(tensor.numpy().sum()))
    return bool(torch.isfinite(tensor.sum()))


def check_finite(tensor: Tensor, name: str, axes: tuple[str, ...]) -> None:
    if tensor.is_meta:
        raise InputError(f"{name} is on the meta device, which holds no numbers")
    if _sums_up(tensor):
        return
    bad = ~torch.isfinite(tensor.detach())
    if not bad.any():
        return
    where = bad.nonzero()[0].tolist()
    place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, where, strict=False))
    value = tensor.detach()[tuple(where)].item()
    raise InputError(f"{name} contains {value} at {place}; clean it first")
