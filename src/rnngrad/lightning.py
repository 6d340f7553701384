"""How far back gradients reach while a LightningModule is trained: a callback, and a metric."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from timeit import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from rnngrad._recording import Recording, record, takes
from rnngrad.errors import InputError, check_memory, needs
from rnngrad.plot import MOST_PANELS, draw_distances, draw_epochs
from rnngrad.probe import LossGradientCurves
from rnngrad.whole_model import ModelReach, reach_of

with needs("lightning"):
    from pytorch_lightning import Callback, LightningModule, Trainer
    from torchmetrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = dict[str, Tensor]
EXAMPLES = 4  # a probe's time grows with them
STEPS = (1, 3, 10, 30, 100, 300, 1000, 3000)  # steps t whose norms are logged
PICTURE = "gradient_reach.png"


class GradientReach(Callback):
    """Ask `rnngrad.gradient_reach` about a LightningModule before training and after epochs.

    All loggers of the trainer get medians over the examples, where they are finite. Their names
    are "reach/<layer>/decades_per_step", "/horizon", "/log10_norm_step_<t>" at a few steps t, and
    given a loss "/learning_span". At the end loggers get a heat map of step against epoch. It is
    a figure where they take one (TensorBoard, MLflow), else a file in their folder.

    Args:
        every_n_epochs: how many epochs lie between two probes.
        batch: what the model's forward takes; a tuple holds several inputs, a dict named ones.
            None takes the first 4 examples, along the first axis, of training's first batch: x of
            (x, y), or the entries of a dict that forward takes. Packed sequences and dataclasses
            stay whole. A training that is resumed takes others.
        loss: makes a scalar of what forward returns for this batch.
        budget: the part of training's time that probes may take (0.05: 5 %). The untrained model is
            recorded at once, which takes about as long as a few batches, and probed when there was
            time. An epoch whose probe would take more is left out, which a warning says. Not
            counted are the import of the loops, compiled once, and the picture at the end.

    - plot: draws heat maps of the first 12 layers; `ax` takes one axes for each.
    - curves: by layer and number of epochs trained, the median over examples of log10 |J_t|, (T,).
        Another training begins anew; one that is resumed goes on, without what still waited.

    Weights are identical with and without the callback, of which a Trainer takes one. In ddp the
    first process alone probes.

    Raises:
        InputError: wrong arguments; weights in parts over processes; a forward or loss that fails.

    Examples:
        >>> import pytorch_lightning as pl, rnngrad
        >>> trainer = pl.Trainer(callbacks=[rnngrad.GradientReach(every_n_epochs=2)], logger=False)
    """

    plot = draw_epochs

    def __init__(
        self,
        every_n_epochs: int = 1,
        batch: object = None,
        loss: Callable[..., Tensor] | None = None,
        budget: float = 0.05,
    ) -> None:
        if type(every_n_epochs) is not int or every_n_epochs < 1:
            raise InputError(f"every_n_epochs={every_n_epochs!r}: use an integer from 1")
        if type(budget) not in (int, float) or not budget >= 0:
            raise InputError(f"budget={budget!r}: use a part of training's time, such as 0.05")
        if not (loss is None or callable(loss)):
            raise InputError(f"loss={loss!r}: use a function of the model's output")
        self.every_n_epochs: int = every_n_epochs
        self.batch: object = batch
        self.loss: Callable[..., Tensor] | None = loss
        self.budget: float = budget
        self.curves: dict[str, dict[int, np.ndarray]] = {}
        self._inputs: Any = None
        self._untrained: _Recorded | None = None  # while it waits
        # seconds: when training began, what all probes took, and the latest
        self._begun = self._spent = self._latest = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._inputs = self._untrained = None
        if trainer.world_size > 1 and not isinstance(trainer.model, DistributedDataParallel):
            raise InputError("GradientReach needs the whole model in each process: use ddp")
        if not _step(trainer):
            self.curves, self._latest = {}, 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Record the untrained model as soon as there is a batch; probe it when there is time."""
        if not trainer.is_global_zero:
            return
        if self._inputs is None:
            if any(map(is_lazy, [*pl_module.parameters(), *pl_module.buffers()])):
                return  # the batch gives them their shapes
            self._begin(trainer, pl_module, batch, batch_idx)
        self._ask_untrained(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or self._inputs is None:
            return
        self._ask_untrained(trainer)
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs:
            return
        if not self._may_probe():
            self._leave_out()
            return
        try:
            recorded = self._record(trainer, pl_module, epoch)
        except InputError as error:
            _warn(epoch, error)
        else:
            self._ask(trainer, recorded)

    def _begin(
        self, trainer: Trainer, model: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Choose the inputs and record the untrained model."""
        if self.batch is None:
            first = batch
            if isinstance(batch, tuple | list) and not _packed(batch):
                first = batch[0]
            if isinstance(first, Mapping):  # it may hold labels
                taken = {n: value for n, value in first.items() if takes(model.forward, n)}
                first = taken or first
            self._inputs = pytree.tree_map_only(
                Tensor, lambda x: x[:EXAMPLES].clone() if x.dim() else x, first, is_leaf=_packed
            )
        else:
            moved = trainer.strategy.batch_to_device(self.batch)
            self._inputs = trainer.precision_plugin.convert_input(moved)
        import rnngrad.compiled_probe  # noqa: F401  else the first probe's time would hold that

        self._begun = time.perf_counter()
        epoch = trainer.current_epoch
        # resumed within an epoch, training has gone beyond that number of epochs
        wanted = not (batch_idx or epoch % self.every_n_epochs)
        lacks = wanted and not any(epoch in by_epoch for by_epoch in self.curves.values())
        if lacks or not self._latest:
            recorded = self._record(trainer, model, epoch)
            self._untrained = recorded if lacks else None
            self._latest = self._latest or _estimate(recorded)
        self._spent = time.perf_counter() - self._begun

    def _may_probe(self) -> bool:
        trained = time.perf_counter() - self._begun - self._spent
        return self._spent + self._latest <= self.budget * trained

    def _leave_out(self) -> None:
        said = f"a probe takes some {self._latest:.2f} s, and all may take {100 * self.budget:g}%"
        cure = "hand over fewer examples or steps (batch=), or raise budget="
        said = f"GradientReach leaves out epochs: {said} of training's time; {cure}"
        warnings.warn(said, stacklevel=1)

    def _ask_untrained(self, trainer: Trainer) -> None:
        if self._untrained and self._may_probe():
            recorded, self._untrained = self._untrained, None
            self._ask(trainer, recorded)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._untrained:
            self._leave_out()
        self._inputs = self._untrained = None  # copies of weights are no small thing
        if not (self.curves and trainer.loggers and trainer.is_global_zero):
            return
        from matplotlib.figure import Figure

        layers = min(len(self.curves), MOST_PANELS)
        figure = Figure((6.4, 0.4 + 2.6 * layers), layout="constrained")
        self.plot(figure.subplots(layers))
        loggers: Any = trainer.loggers  # each has an experiment of its own kind
        for logger in loggers:
            if hasattr(logger.experiment, "add_figure"):
                logger.experiment.add_figure("reach", figure, _step(trainer))
            elif hasattr(logger.experiment, "log_figure") and hasattr(logger, "run_id"):
                logger.experiment.log_figure(logger.run_id, figure, PICTURE)
            elif folder := getattr(logger, "log_dir", None) or logger.save_dir:
                Path(folder).mkdir(parents=True, exist_ok=True)
                figure.savefig(Path(folder) / PICTURE)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._inputs = self._untrained = None

    def state_dict(self) -> dict[str, object]:
        """Give the curves as lists: a checkpoint is read without running code."""
        curves = {n: {e: c.tolist() for e, c in each.items()} for n, each in self.curves.items()}
        return {"curves": curves, "latest": self._latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        given, self._latest = state_dict["curves"], state_dict["latest"]
        self.curves = {n: {e: np.array(c) for e, c in each.items()} for n, each in given.items()}

    def _record(self, trainer: Trainer, model: LightningModule, epoch: int) -> "_Recorded":
        begun = time.perf_counter()
        given, named = self._inputs, dict[str, Any]()
        # a dict that forward takes as a whole stays a dict
        if isinstance(given, Mapping) and any(takes(model.forward, name) for name in given):
            named = {**given}
        inputs = () if named else given if type(given) is tuple else (given,)
        steps = {name: named.pop(name) for name in ("lengths", "mask") if name in named}
        try:
            with trainer.precision_plugin.forward_context():
                run = record(model, inputs, named, self.loss, steps)
        except InputError:
            raise
        except Exception as error:  # whatever somebody else's forward raises
            cure = f"{type(model).__name__}.forward or loss fails, pass what they take as batch="
            cure += " (a whole batch where the model keeps a state)"
            raise InputError(f"{cure}: {error}") from error
        read = {(len(v.lengths), sum(x.shape[1] for x in v.read)) for v in run.layers}
        leaves = pytree.tree_leaves(self._inputs, is_leaf=_packed)
        cut = self.batch is None and any(
            isinstance(v, Tensor) and v.shape[:1] == (EXAMPLES,) for v in leaves
        )
        if cut and all(steps == EXAMPLES != examples for examples, steps in read):
            said = f"layers read {EXAMPLES} steps only: where time comes first, or sequences are "
            warnings.warn(f"{said}a list, pass batch=", stacklevel=2)
        seconds = time.perf_counter() - begun
        self._spent += seconds
        return _Recorded(run, epoch, _step(trainer), seconds)

    def _ask(self, trainer: Trainer, recorded: "_Recorded") -> None:
        """Probe what was recorded."""
        begun = time.perf_counter()
        try:
            self._tell(trainer, recorded, reach_of(recorded.run))
        except InputError as error:
            _warn(recorded.epoch, error)
        seconds = time.perf_counter() - begun
        self._spent += seconds
        self._latest = recorded.seconds + seconds

    def _tell(self, trainer: Trainer, recorded: "_Recorded", reach: ModelReach) -> None:
        """Keep the curves and tell the loggers."""
        metrics = {"reach/epochs_trained": float(recorded.epoch)}
        for name, layer in reach.layers.items():
            curve = np.nanmedian(layer.curves.log10_frobenius, axis=0)
            self.curves.setdefault(name, {})[recorded.epoch] = curve
            found = {f"log10_norm_step_{t}": curve[t - 1] for t in STEPS if t <= len(curve)}
            found["decades_per_step"] = np.median(layer.diagnosis.decades_per_step)
            # never is later than any step
            found["horizon"] = np.median(np.nan_to_num(layer.diagnosis.horizon, nan=np.inf))
            if layer.weight_gradients:
                found["learning_span"] = np.median(layer.learning_span)
            metrics |= {f"reach/{name}/{k}": float(v) for k, v in found.items() if np.isfinite(v)}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=recorded.step)


@dataclass(frozen=True)
class _Recorded:
    """A model that was run after so many epochs and steps, and the seconds that this took."""

    run: Recording
    epoch: int
    step: int
    seconds: float


def _step(trainer: Trainer) -> int:
    """Count batches that stepped, as Lightning's loggers do; global_step counts by optimizer."""
    return getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step)


def _estimate(recorded: _Recorded) -> float:
    """Guess the seconds that a probe takes: twice what was measured on one machine."""
    found, count = recorded.seconds, torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine threads wait for each other: seconds for 0.1 ms
    for layer in recorded.run.layers:
        W = layer.module.state_dict()["weight_hh_l0"]
        columns = W[: W.shape[1], :64]
        product = min(repeat(partial(torch.matmul, W, columns), repeat=3, number=1))
        per_step = 2e-4 + product * len(columns) / columns.shape[1] / 1.5
        found += 0.06 + per_step * float(layer.lengths.sum())
    torch.set_num_threads(count)
    return found


def _warn(epoch: int, error: InputError) -> None:
    """Tell what cannot be probed: weights that are no longer finite, say, end no training."""
    warnings.warn(f"after {epoch} epochs: {error}", stacklevel=3)


def _packed(x: object) -> bool:
    return isinstance(x, PackedSequence)


class LossGradientByDistance(Metric):
    """Measure dL/dh_t by distance to an example's last step, over batches and processes.

    Args:
        distances: how many are told apart, from 0; steps further away are left out.

    `update` takes log10 norms of dL/dh_t (batch, time), NaN where a step does not count. They are
    what `loss_gradient_curves` returns; under a mask `np.where(mask, curves.log10_h, np.nan)`. A
    loop over a cell may retain them: `torch.stack([h.grad.norm(dim=1) for h in path], 1).log10()`.
    The gradient of an nn.LSTM's output lacks what later steps send back. By distance, `compute`
    gives "log10", the mean of what is not zero. "zero" is the share that is exactly zero.

    Raises:
        InputError: distances is no integer from 1, or norms are not (batch, time).

    Examples:
        >>> import torch, rnngrad
        >>> metric = rnngrad.LossGradientByDistance(3)
        >>> metric.update(torch.tensor([[-4.0, -2.0, 0.0], [-3.0, -1.0, torch.nan]]))
        >>> metric.compute()["log10"]
        tensor([-0.5000, -2.5000, -4.0000], dtype=torch.float64)
    """

    full_state_update: bool | None = False
    sums: Tensor  # by distance: of what is not zero, how many that are, and how many zeros

    def __init__(self, distances: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if type(distances) is not int or distances < 1:
            raise InputError(f"distances={distances!r}: use an integer from 1")
        check_memory(48 * distances, "distances need", "use fewer")
        self.distances = distances
        self.add_state("sums", torch.zeros(3, distances).double(), "sum")

    def update(self, log10_norms: Tensor | np.ndarray | LossGradientCurves) -> None:
        """Take norms (batch, time), NaN beyond an example's length."""
        norms: Any = getattr(log10_norms, "log10_h", log10_norms)
        norms = torch.as_tensor(norms, device=self.sums.device).double()
        if norms.dim() != 2 or not norms.shape[1]:
            raise InputError(f"log10_norms must be (batch, time), got {tuple(norms.shape)}")
        last = (~norms.isnan()).cumsum(dim=1).argmax(dim=1, keepdim=True)
        t = last - torch.arange(self.distances, device=norms.device)
        values = norms.gather(1, t.clamp(min=0)).where(t >= 0, torch.nan)
        zero, other = values == -torch.inf, values > -torch.inf  # NaN is neither
        # out of place: whoever holds an old state keeps it
        self.sums = self.sums + torch.stack([values.where(other, 0), other, zero]).sum(dim=1)

    def compute(self) -> Result:
        """By distance: "log10", the mean where there is a gradient; "zero", the part without."""
        total, count, zeros = self.sums
        return {"log10": total / count, "zero": (zeros / (count + zeros)).float()}

    def plot(
        self, val: Result | Sequence[Result] | None = None, ax: "Axes | None" = None
    ) -> "tuple[Figure, Axes]":
        """Draw what compute gave, once or several times, as torchmetrics does; None: now."""
        found = self.compute() if val is None else val
        axes = draw_distances([found] if isinstance(found, dict) else found, ax)
        figure: Any = axes.figure
        return figure, axes
