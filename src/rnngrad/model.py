"""How far back do gradients reach in a whole model? Each of its recurrent layers, from one pass."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from tqdm import tqdm

from rnngrad._recording import KINDS, Run, States, record
from rnngrad.errors import InputError
from rnngrad.plot import Pictured, draw_layers
from rnngrad.probe import (
    Diagnosis,
    JacobianCurves,
    LossGradientCurves,
    diagnose,
    jacobian_curves,
    loss_gradient_curves,
    weight_gradient_parts,
)

SPECTRAL_STEPS = 16  # evenly over log t: at every step the norm costs as much as all the rest
LITTLE = -2.0  # log10: less than 1 % of the largest
HEADER = (
    "layer", "module", "steps", "decades/step", "horizon", "log10 |J| at end", "verdict there",
    "0 in float32 from", "log10 |dL/dh_1|", "learns back",
)  # fmt: skip


class Part(NamedTuple):
    """What the probe is asked about: float64 on the CPU, batch first.

    tails: by the layers' names in the model, the ends of torch's names for their weights there.
    """

    tails: dict[str, str]
    module: nn.RNNBase
    inputs: Tensor
    state: States
    lengths: Tensor
    output_gradient: Tensor | None
    final_gradient: States


@dataclass(frozen=True, eq=False, repr=False)
class LayerReach(Pictured):
    """What one layer, or one direction of it, does to gradients. Steps count in its own order.

    curves, diagnosis: of d c_t / d c_0 of an LSTM, of d h_t / d h_0 of an RNN or a GRU.
    loss_gradients: dL/dh_t and dL/dc_t; None without a loss.
    weight_gradients: which steps a weight's gradient comes from. By torch's flat name, log10 of the
        norm of what step t adds to it, (batch, time); -inf for nothing, NaN beyond the length.
    module, inputs, initial_state, lengths: what the probe was asked with, for further questions:
        this is layer `curves.layer` of the module.

    With a projection, all of it is that of the equal layer without: h is what W_hr projects, and
    weight_hh is W_hh W_hr.
    """

    name: str
    curves: JacobianCurves
    diagnosis: Diagnosis
    module: nn.RNNBase
    inputs: Tensor
    initial_state: Any
    lengths: Tensor
    loss_gradients: LossGradientCurves | None
    weight_gradients: dict[str, np.ndarray]

    @property
    def learned_at(self) -> np.ndarray:
        """(batch, time) log10 of the norm of what step t adds to the gradient of all weights."""
        parts = np.stack(list(self.weight_gradients.values())) * 2 * np.log(10)
        return np.logaddexp.reduce(parts, axis=0) / 2 / np.log(10)

    @property
    def learns_back(self) -> np.ndarray:
        """(batch,) how many steps before its last one the layer still learns from.

        That is the first step that adds 1 % of what the largest adds; NaN if none adds anything.
        """
        parts = np.nan_to_num(self.learned_at, nan=-np.inf)
        seen = (parts >= parts.max(axis=1, keepdims=True) + LITTLE) & (parts > -np.inf)
        return np.where(seen.any(axis=1), self.lengths.numpy() - 1 - seen.argmax(axis=1), np.nan)

    def plot(self, ax: Any = None) -> Any:
        """Draw on matplotlib's axes, or on new ones, and return them."""
        return draw_layers({self.name: self}, ax)

    def __str__(self) -> str:
        return str(GradientReach(self.name, {self.name: self}))

    def row(self) -> list[str]:
        """Its line of the table."""
        fate, lengths = self.diagnosis, self.lengths.numpy()
        end = np.arange(len(lengths)), lengths - 1
        zero = fate.naive_flushed == 0
        row = [
            self.name,
            f"{type(self.module).__name__}({self.module.hidden_size})",
            _range(lengths, "{:.0f}"),
            _range(fate.decades_per_step, "{:+.3f}"),
            _range(fate.horizon, "{:.0f}"),
            _range(fate.log10_frobenius[end], "{:+.1f}"),
            ", ".join(dict.fromkeys(fate.verdict[end].tolist())),
            _range(np.where(zero.any(axis=1), zero.argmax(axis=1) + 1, np.nan), "{:.0f}"),
        ]
        if self.loss_gradients is not None:
            row.append(_range(self.loss_gradients.log10_h[:, 0], "{:+.1f}"))
            row.append(_range(self.learns_back, "{:.0f}"))
        return row


@dataclass(frozen=True, eq=False, repr=False)
class GradientReach(Pictured):
    """The recurrent layers of a model, by their names there, in the order in which they ran."""

    title: str
    layers: dict[str, LayerReach]

    def plot(self, ax: Any = None) -> Any:
        """Draw three panels, one without a loss, and return their axes; on given axes the first."""
        return draw_layers(self.layers, ax)

    def __str__(self) -> str:
        rows = [layer.row() for layer in self.layers.values()]
        rows.insert(0, list(HEADER[: len(rows[0])]))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join((self.title, "", *lines))


def gradient_reach(
    model: nn.Module, *inputs: Any, loss: Callable[[Any], Tensor] | None = None, **kwargs: Any
) -> GradientReach:
    """How far back does every recurrent layer of a model remember, and learn? Print the result.

    Args:
        model: an nn.Module with an nn.RNN, nn.LSTM or nn.GRU anywhere in it, or one of these: also
            a LightningModule, a compiled one, one in DataParallel. Several layers, two directions,
            projections and packed inputs work.
        inputs, kwargs: as model.forward takes them. A few examples do: time grows with them.
        loss: makes a scalar of the model's output. None: nothing about losses.

    Returns:
        `.layers` holds a layer as "encoder.lstm", one of several as "encoder.lstm.0", one direction
        as "encoder.lstm.0.backward". A module's call that starts from the state in which its last
        one ended goes on with it; any other is "encoder.lstm (call 2)".

    The model runs once, in eval mode. It, its gradients, hooks, modes and buffers and all random
    states are left as they were, also when it fails. Every step of padded inputs counts; only a
    PackedSequence says how many are real.

    What a loss sends into a module comes from autograd in the model's own dtype. Where that passed
    through another module of many steps it may have underflowed: try model.double(). Inside of a
    module all is float64, with a scale for every example and step; between the layers of one with
    two directions or a projection it is autograd's float64.

    Raises:
        InputError: no recurrent module ran, or one has a forward of its own; the loss is no scalar,
            does not depend on any of them or explodes; and whatever `jacobian_curves` refuses.

    Example:
        >>> import torch, rnngrad
        >>> lstm, x = torch.nn.LSTM(3, 4, num_layers=2, batch_first=True), torch.zeros(2, 5, 3)
        >>> reach = rnngrad.gradient_reach(lstm, x, loss=lambda output: output[0][:, -1].sum())
        >>> reach.layers["lstm.0"].loss_gradients.log10_c.shape
        (2, 5)
    """
    with parametrize.cached():
        runs = record(model, inputs, kwargs, loss)
    with torch.device("cpu"), torch.inference_mode(False):
        parts = [part for run in runs for part in _parts(run)]
        progress = tqdm(parts, desc="layers", delay=3, disable=None, leave=False)
        found = {layer.name: layer for part in progress for layer in _reach(part)}
    title = f"{type(model).__name__}: {len(found)} recurrent layer(s), "
    return GradientReach(f"{title}{len(runs[0].inputs)} example(s)", found)


def _reach(part: Part) -> Iterator[LayerReach]:
    """Ask the probe about each layer."""
    read, state, sent = (part.module, part.inputs), _given(part.state), part.output_gradient
    which = "c" if isinstance(part.module, nn.LSTM) else "h"
    steps = np.unique(np.geomspace(1, part.inputs.shape[1], SPECTRAL_STEPS).astype(int))
    losses, every = None, {}
    asked: Any = {"lengths": part.lengths}
    loss: Any = asked | {"final_state_gradient": _given(part.final_gradient)}
    for n, (name, tail) in enumerate(part.tails.items()):
        asked["layer"] = n
        try:
            curves = jacobian_curves(*read, state, state=which, spectral_steps=steps, **asked)
            diagnosis = diagnose(*read, state, state=which, **asked)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        if sent is not None:
            losses = loss_gradient_curves(*read, sent, state, layer=n, **loss)
            every = every or weight_gradient_parts(*read, sent, state, reduce="curve", **loss)
        weights = {w.replace(f"_l{n}", tail): v for w, v in every.items() if w.endswith(f"_l{n}")}
        yield LayerReach(name, curves, diagnosis, *read, state, part.lengths, losses, weights)


def _parts(run: Run) -> Iterator[Part]:
    """The module as a whole; with two directions or a projection, each direction of its layers."""
    module, count = run.module, run.module.num_layers
    names = [f"{run.name}.{n}" if count > 1 else run.name for n in range(count)]
    if not module.bidirectional and not module.proj_size:
        whole, tails = (
            _like(module, run.weights, num_layers=count),
            map("_l{}".format, range(count)),
        )
        yield Part(
            dict(zip(names, tails, strict=True)), whole, run.inputs, run.state, run.lengths,
            run.output_gradient, run.final_gradient,
        )  # fmt: skip
        return
    ways = {".forward": "", ".backward": "_reverse"} if module.bidirectional else {"": ""}
    for n, (x, gradient) in enumerate(_apart(run, len(ways))):
        for way, (direction, tail) in enumerate(ways.items()):
            row, tail = [len(ways) * n + way], f"_l{n}{tail}"
            weights = {
                w.replace(tail, "_l0"): v for w, v in run.weights.items() if w.endswith(tail)
            }
            (h, *c), (of_h, *of_c) = ([s[row] for s in v] for v in (run.state, run.final_gradient))
            W_hr = weights.pop("weight_hr_l0", torch.eye(h.shape[2], dtype=h.dtype))
            weights["weight_hh_l0"] = weights["weight_hh_l0"] @ W_hr
            sent = None
            if gradient is not None:
                own = gradient.chunk(len(ways), dim=2)[way]
                sent = _turned(own, run.lengths, way) @ W_hr
            yield Part(
                {names[n] + direction: tail}, _like(module, weights), _turned(x, run.lengths, way),
                # the smallest h that W_hr turns into the given one
                (h @ torch.linalg.pinv(W_hr).T, *c), run.lengths, sent, (of_h @ W_hr, *of_c),
            )  # fmt: skip


def _apart(run: Run, ways: int) -> list[tuple[Tensor, Tensor | None]]:
    """What every layer reads and, given a loss, dL/d output of it, by autograd in float64."""
    module, options = run.module, {"bidirectional": run.module.bidirectional}
    if module.proj_size:
        options["proj_size"] = module.proj_size
    read, ends, of_ends = [run.inputs.requires_grad_()], [], []
    for n in range(module.num_layers):
        names = [w for w in run.weights if w.split("_l")[1].split("_")[0] == str(n)]
        weights = {w.replace(f"_l{n}", "_l0"): run.weights[w] for w in names}
        rows = slice(ways * n, ways * (n + 1))
        packed = pack_padded_sequence(read[-1], run.lengths, True, enforce_sorted=False)
        with torch.enable_grad():
            output, end = _like(module, weights, **options)(
                packed, _given(tuple(s[rows] for s in run.state))
            )
            read.append(pad_packed_sequence(output, batch_first=True)[0])
        ends += end if isinstance(end, tuple) else [end]
        of_ends += [s[rows] for s in run.final_gradient]
    gradients: Any = [None] * module.num_layers
    if run.output_gradient is not None:
        sent = [run.output_gradient, *of_ends]
        gradients = torch.autograd.grad([read[-1], *ends], read[1:], sent)
    return [(x.detach(), gradient) for x, gradient in zip(read, gradients, strict=False)]


def _turned(x: Tensor, lengths: Tensor, way: int) -> Tensor:
    """(b, t, ...) in the order in which the direction reads."""
    t = torch.arange(x.shape[1])
    back = lengths[:, None] - 1 - t
    return x[torch.arange(len(x))[:, None], torch.where(back >= 0, back, t)] if way else x


def _given(states: States) -> Any:
    """As a module takes them."""
    return states if len(states) > 1 else states[0]


def _like(module: Any, weights: dict[str, Tensor], **options: Any) -> nn.RNNBase:
    """A float64 module of torch's own class with these weights, and one layer unless said."""
    kind: Any = next(kind for kind in KINDS if isinstance(module, kind))
    if kind is nn.RNN:
        options["nonlinearity"] = module.mode[4:].lower()
    like = kind(
        weights["weight_ih_l0"].shape[1], module.hidden_size, bias=bool(module.bias),
        batch_first=True, dtype=torch.float64, device="meta", **options,
    )  # fmt: skip
    like.load_state_dict(weights, assign=True)
    return like.requires_grad_(False).eval()


def _range(values: np.ndarray, form: str) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "never"
    return " .. ".join(dict.fromkeys(form.format(end) for end in (known.min(), known.max())))
