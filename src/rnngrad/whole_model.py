"""How far back do gradients reach in a whole model? Each of its recurrent layers, from one pass."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from rnngrad import probe
from rnngrad._recording import SHOWN, Layer, Recording, hx_of, record
from rnngrad.errors import InputError
from rnngrad.plot import Pictured, draw_layers, span, text_table

LITTLE = -2.0  # log10: less than 1 % of the largest
DIGITS = 16  # decades: what is smaller beside a number changes nothing of it


@dataclass(frozen=True, eq=False, repr=False)
class LayerReach(Pictured):
    """Tell what one layer, or one direction of it, does to gradients.

    Only steps that count are there, in the order in which the layer reads them.

    - name: of the layer in the model, with its direction.
    - curves, diagnosis: they describe d c_t / d c_0 for an LSTM, d h_t / d h_0 for an RNN or GRU.
    - loss_gradients: dL/dh_t and dL/dc_t; None without a loss.
    - weight_gradients: which steps a weight's gradient comes from; {} without a loss. Keys are
        torch's flat names. Values (batch, time) are log10 of the norm of what step t adds. A step
        that adds nothing has -inf, one beyond the length NaN.
    - module, inputs, initial_state, lengths: the layer as a float64 module of its own, and what it
        read, for further questions.
    - output_gradient: dL/dh_t but what comes through the layer's later steps; None without a loss.
    - final_state_gradient: (0, dL/dc_n) for an LSTM; None for other cells and without a loss.

    An equal module without a projection stands for one that has it. Its h is what W_hr projects,
    and its weight_hh is W_hh W_hr. `weight_gradients` are of the model's own W_hh, without W_hr.

    Examples:
        >>> import torch, rnngrad
        >>> gru, x = torch.nn.GRU(3, 4), torch.zeros(5, 2, 3)
        >>> layer = rnngrad.gradient_reach(gru, x, loss=lambda out: out[0].sum()).layers["gru"]
        >>> layer.curves.log10_frobenius.shape, layer.learned_at.shape
        ((2, 5), (2, 5))
    """

    name: str
    diagnosis: probe.Diagnosis
    loss_gradients: probe.LossGradientCurves | None
    weight_gradients: dict[str, np.ndarray]
    output_gradient: Tensor | None
    final_state_gradient: tuple[Tensor, Tensor] | None
    module: nn.RNNBase
    inputs: Tensor
    initial_state: Tensor | tuple[Tensor, Tensor]
    lengths: Tensor

    plot = draw_layers

    @property
    def curves(self) -> probe.JacobianCurves:
        """The curves that the diagnosis judges."""
        return self.diagnosis.curves

    @property
    def learned_at(self) -> np.ndarray:
        """(batch, time) log10 of the norm of what step t adds to all of `weight_gradients`.

        InputError without a loss.
        """
        if not self.weight_gradients:
            raise InputError("nothing is known of gradients: hand loss= to gradient_reach")
        parts = np.stack(list(self.weight_gradients.values())) * 2 * np.log(10)
        return torch.from_numpy(parts).logsumexp(dim=0).numpy() / 2 / np.log(10)

    @property
    def learning_span(self) -> np.ndarray:
        """(batch,) steps from the first to the last that add 1 % of what the largest adds, or more.

        NaN if none adds anything. Only a loss at one step tells how far back the layer learns.
        """
        parts = np.nan_to_num(self.learned_at, nan=-np.inf, neginf=-np.inf)
        seen = (parts >= parts.max(axis=1, keepdims=True) + LITTLE) & (parts > -np.inf)
        last = seen.shape[1] - 1 - seen[:, ::-1].argmax(axis=1)
        return np.where(seen.any(axis=1), last - seen.argmax(axis=1), np.nan)

    @property
    def layers(self) -> dict[str, "LayerReach"]:
        """The layer itself, as in a model of one layer."""
        return {self.name: self}

    def __str__(self) -> str:
        return str(ModelReach(self.name, self.layers))

    def row(self) -> dict[str, str]:
        """Give its line of the table by the columns' names."""
        fate, lengths = self.diagnosis, self.lengths.numpy()
        end = np.arange(len(lengths)), lengths - 1
        shown = partial(span, absent="never")
        row = {
            "layer": self.name,
            "module": f"{type(self.module).__name__}({self.module.hidden_size})",
            "steps": shown(lengths, ".0f"),
            "decades/step": span(fate.decades_per_step, "+.3f"),
            "horizon": shown(fate.horizon, ".0f"),
            "log10 |J| at end": shown(fate.log10_frobenius[end], "+.1f"),
            "verdict there": ", ".join(dict.fromkeys(fate.verdict[end].tolist())),
            "flushed to 0 from": shown(fate.zero_from, ".0f"),
        }
        if self.loss_gradients is not None:
            first = self.loss_gradients.log10_h[:, 0]
            row["log10 |dL/dh_1|"] = span(first, "+.1f", absent="unknown")
            row["learning span"] = shown(self.learning_span, ".0f")
        return row


@dataclass(frozen=True, eq=False, repr=False)
class ModelReach(Pictured):
    """The recurrent layers of a model, by their names there, in the order in which they ran.

    Examples:
        >>> import torch, rnngrad
        >>> [*rnngrad.gradient_reach(torch.nn.GRU(3, 4, 2), torch.zeros(5, 2, 3)).layers]
        ['gru.0', 'gru.1']
    """

    title: str
    layers: dict[str, LayerReach]

    plot = draw_layers

    def __str__(self) -> str:
        rows = [layer.row() for layer in self.layers.values()]
        columns = max(rows, key=len)  # a layer may do without those about the loss
        head = [name.replace(" ", "\n", 1) for name in columns]  # narrow enough for a notebook
        table = text_table([head, *([row.get(name, "") for name in columns] for row in rows)])
        return f"{self.title}\n\n{table}"


def gradient_reach(
    model: nn.Module,
    /,
    *inputs: object,
    loss: Callable[..., Tensor] | None = None,
    lengths: Sequence[int] | np.ndarray | Tensor | None = None,
    mask: np.ndarray | Tensor | None = None,
    **kwargs: object,
) -> ModelReach:
    """How far back does every recurrent layer of a model remember, and learn? Print the result.

    Args:
        model: an nn.Module that is or holds an nn.RNN, nn.LSTM or nn.GRU, also one of a subclass
            that calls super().forward. It may be a LightningModule, which logs nothing here,
            compiled, or in DataParallel. Several layers, two directions, projections and packed
            inputs work.
        inputs, kwargs: as model.forward takes them. A few examples do: time grows with them,
            and with the third power of the units.
        loss: makes a scalar of the model's output. None: nothing about losses.
        lengths, mask: which steps count, given as in `jacobian_curves`. Every layer skips the
            others and keeps its state there: its curves have a column for each step that counts.
            Where model.forward takes arguments of these names, or any, they are forward's.

    Returns:
        `.layers` holds a layer as "encoder.lstm", one of several as "encoder.lstm.0", one direction
        as "encoder.lstm.0.backward". A call that does not go on from the last one is "lstm (call
        2)"; only with a loss are detach_(), and hooks that change gradients, seen. Under a mask,
        lengths or packing that is so for every further call.

    The model runs once, in eval mode. It stays as it was, also when it fails: its gradients, hooks,
    modes, weights and buffers, its lists and dicts, and all random states. Other objects,
    generators, and what lies in lists of more than 1,000 entries are not put back. Meanwhile memory
    holds a copy of the weights, and torch's checkpoints save none. Without lengths, mask or a
    PackedSequence, every step of padded inputs counts. Curves hold a layer's inputs fixed. What
    comes back through a decoder that reads its own output is in the columns of the loss alone.

    The title names what was not asked: cells, quantised modules and those that did not run. It also
    names loops of more than 8 calls that change a state or weights between them. Of losses it names
    those that reach c between two calls, hold a gradient penalty, or pass through layers that run
    without autograd or make weights for others.

    Autograd brings what a loss sends into a module in the model's own dtype. Between the layers of
    a module it computes in float64. What arrives, or goes on through many steps, may underflow: a
    warning says so, and zeros are NaN. Zeros at all steps are doubted in float16 alone, for a head
    may begin with zeros. Inside of a layer no number is too small.

    Raises:
        InputError: no recurrent module ran; the loss is no scalar or does not depend on any of
            them; also whatever `jacobian_curves` refuses.

    Examples:
        >>> import torch, rnngrad
        >>> lstm, x = torch.nn.LSTM(3, 4, num_layers=2, batch_first=True), torch.zeros(2, 5, 3)
        >>> reach = rnngrad.gradient_reach(lstm, x, loss=lambda output: output[0][:, -1].sum())
        >>> reach.layers["lstm.0"].loss_gradients.log10_c.shape
        (2, 5)
    """
    steps = {"lengths": lengths, "mask": mask}
    counting = {name: value for name, value in steps.items() if value is not None}
    return reach_of(record(model, inputs, kwargs, loss, counting))


def reach_of(run: Recording) -> ModelReach:
    """Ask the probe about a model that was run; that may change meanwhile."""
    progress = tqdm(run.layers, desc="layers", delay=3, disable=None, leave=False)
    with torch.device("cpu"), torch.inference_mode(False), torch.no_grad():
        unclear = {v.name: _unclear(v) if run.with_loss else "" for v in run.layers}
        reaches = {v.name: _reach(v, run.with_loss and not unclear[v.name]) for v in progress}
    for dtype, names in _doubt(run.layers, reaches).items():
        cure = "hand over fewer steps" if dtype == torch.float64 else "try model.double()"
        named = ", ".join([*dict.fromkeys(names)][:SHOWN])
        warnings.warn(
            f"{named}: what arrives there, or goes on to earlier layers, is too small for {dtype}: "
            f"gradients may be larger than they seem, zeros are NaN; {cure}",
            stacklevel=3,
        )
    title = f"{run.model}: {len(reaches)} recurrent layer(s), "
    title += f"{len(run.layers[0].lengths)} example(s)"
    if run.taken:
        title += f"; {' and '.join(run.taken)}: given to forward, not to layers"
    of_loss = [f"what the loss makes of .{name}{why}" for name, why in unclear.items() if why]
    if run.with_loss:
        of_loss += [f".{v.name}'s weight_hr" for v in run.layers if v.W_hr is not None]
    not_asked = run.not_asked + of_loss
    if not_asked:
        more = [f"{len(not_asked) - SHOWN} more"] * (len(not_asked) > SHOWN)
        title += f"; not asked: {'; '.join(not_asked[:SHOWN] + more)}"
    return ModelReach(title, reaches)


def _doubt(layers: list[Layer], reaches: dict[str, LayerReach]) -> dict[Any, list[str]]:
    """Find by dtype layers whose gradient arrives, or goes on to small ones, too small for it.

    Zeros of all that ran before them, or before one that is unknown, may be rounding: they are NaN.
    """
    found: dict[Any, list[str]] = {}
    # the smallest of all that layers before get, by name: much larger numbers lose nothing
    before, own = dict[str, float](), dict[str, float]()
    for layer in layers:
        if f"{layer.name.removesuffix('.backward')}.forward" not in own:  # that runs beside it
            before, own = before | own, {}
        # what sends nothing on, as a teacher does, casts no doubt on others
        losses, doubted = reaches[layer.name].loss_gradients, before if layer.sends else {}
        if losses is not None:
            doubted, h, end = {}, losses.log10_h, _end(layer.sends)
            small = (h < end) & (h > -np.inf)
            if min(before.values(), default=np.inf) < end + DIGITS and small.any():
                found.setdefault(layer.sends, []).append(layer.name)
                doubted = before
            own[layer.name] = np.nanmin(h)
            if min((before | own).values()) < _end(layer.arrives) + DIGITS and _lost(layer):
                found.setdefault(layer.arrives, []).append(layer.name)
                doubted = before | own
        for name in doubted:
            _forget_zeros(reaches[name])
    return found


def _forget_zeros(reach: LayerReach) -> None:
    """Write NaN over the zeros of a layer."""
    losses: Any = reach.loss_gradients
    states = [v for v in (losses.log10_h, losses.log10_c) if v is not None]
    none = np.logical_and.reduce([np.isneginf(v) for v in states])
    # where the layer's own gradient is there, an input of zeros makes that of a weight zero
    for values in reach.weight_gradients.values():
        values[none & np.isneginf(values)] = np.nan
    for values in states:
        values[np.isneginf(values)] = np.nan


def _end(dtype: torch.dtype | None) -> float:
    return -np.inf if dtype is None else math.log10(torch.finfo(dtype).smallest_normal)


def _lost(layer: Layer) -> bool:
    """Is what arrives at a module's last layer too small for its dtype?"""
    sizes = torch.cat([g.norm(dim=-1).flatten() for g in layer.sent + layer.sent_to_cells])
    if sizes.any():
        return math.log10(sizes[sizes > 0].min()) < _end(layer.arrives)
    # float16 ends at 6e-8; in other dtypes zeros are rather those of a head that begins with zeros
    return layer.depends and layer.arrives == torch.float16


def _unclear(layer: Layer) -> str:
    """Say why nothing is known of what a loss sends to a layer; nothing where it is known."""
    if not layer.followed:
        return ", which runs without autograd (torch.no_grad)"
    if layer.makes_weights:
        return ", of whose output other recurrent weights are made"
    if any(layer.nested):
        return ", through which it takes a derivative of its own (create_graph=True)"
    between = any(g.any() for g in layer.sent_to_cells[:-1])
    return ", whose c it reaches between two calls" if between else ""


def _sent(layer: Layer) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Give what a loss sends to a layer's outputs, and to its last state of (h, c)."""
    if not all(g.isfinite().all() for g in layer.sent + layer.sent_to_cells):
        cure = "look at the loss, or try model.double()"
        raise InputError(f"what the loss sends there is NaN or inf: {cure}")
    outputs = torch.cat(layer.sent, dim=1)
    if not layer.cells:
        return outputs, None
    last = layer.sent_to_cells[-1]
    return outputs, (torch.zeros_like(last), last)


def _reach(layer: Layer, with_loss: bool) -> LayerReach:
    """Ask the probe about one direction of a layer."""
    asked: Any = {"module": layer.module, "inputs": torch.cat(layer.read, dim=1)}
    asked["initial_state"] = hx_of(layer.start)
    asked["lengths"] = layer.lengths
    losses, parts, sent, final = None, {}, None, None
    try:  # inputs that hold NaN are told before what comes of them
        diagnosis = probe.diagnose(**asked, state="c" if layer.cells else "h")
        if with_loss:
            sent, final = _sent(layer)
            loss: Any = asked | {"final_state_gradient": final}
            losses = probe.loss_gradient_curves(output_gradient=sent, **loss)
            parts = probe.weight_gradient_parts(output_gradients=sent, reduce="curve", **loss)
    except InputError as error:
        raise InputError(f"{layer.name}: {error}") from error
    if parts and layer.W_hr is not None:  # the gates read what W_hr makes of h
        h = torch.cat((layer.start[0][0][:, None], *layer.outputs), dim=1)[:, :-1]
        size = h.norm(dim=2)
        ratio = torch.where(size > 0, (h @ layer.W_hr.T).norm(dim=2) / size, 1.0)
        parts["weight_hh_l0"] += ratio.log10().numpy()
    parts = {w.replace("_l0", layer.tail): curve for w, curve in parts.items()}
    return LayerReach(layer.name, diagnosis, losses, parts, sent, final, **asked)
