"""The callback leaves training as it is, tells every logger, and keeps within its budget."""

import os
import socket
import sys
import time
import warnings
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import torch.multiprocessing as mp
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, TensorDataset

import rnngrad

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty.*"),
    pytest.mark.filterwarnings("ignore:.*logging interval.*"),
]
STEPS, EPOCHS = 12, 3
ALWAYS = float("inf")
NORMS = torch.tensor([[-4.0, -torch.inf, 0.0], [-3.0, -1.0, torch.nan], [torch.nan] * 3])
MEANS, ZEROS = torch.tensor([-0.5, -3.0, -4.0]).double(), torch.tensor([0, 0.5, 0])


class Model(pl.LightningModule):
    """Embedding, an LSTM with dropout between its layers, a head; keeps its random draws."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 5), nn.Linear(6, 1)
        self.lstm = nn.LSTM(5, 6, num_layers=2, dropout=0.3, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0][:, -1])[:, 0]

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        tokens, labels = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self(tokens), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def loader() -> DataLoader[Any]:
    torch.manual_seed(0)
    tokens = torch.randint(20, (24, STEPS))
    return DataLoader(TensorDataset(tokens, (tokens[:, 0] > 9).float()), 8, shuffle=True)


def fit(
    callbacks: list[Any],
    model: Model | None = None,
    data: Any = None,
    fitting: Any = (),
    **options: Any,
) -> tuple[pl.Trainer, Model]:
    data = data or loader()
    torch.manual_seed(1)
    model = model or Model()
    settings: dict[str, Any] = {"max_epochs": EPOCHS, "logger": False, "accelerator": "cpu"}
    settings |= {"enable_checkpointing": False, "enable_model_summary": False, "devices": 1}
    settings |= {"enable_progress_bar": False} | options
    trainer = pl.Trainer(callbacks=callbacks, **settings)
    trainer.fit(model, data, **dict(fitting))
    return trainer, model


def last_loss(output: Tensor) -> Tensor:
    return output.sum()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_training_is_the_same_with_it_and_without(precision: Any):
    _, plain = fit([], precision=precision)
    draws = torch.rand(3)
    callback = rnngrad.GradientReach(loss=last_loss, budget=ALWAYS)
    _, probed = fit([callback], precision=precision)
    assert torch.equal(draws, torch.rand(3))
    pairs = zip(plain.state_dict().values(), probed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert list(callback.curves) == ["lstm.0", "lstm.1"]
    assert [*callback.curves["lstm.1"]] == [0, 1, 2, 3]
    assert all(np.isfinite(c).all() for each in callback.curves.values() for c in each.values())


def test_curves_are_those_of_gradient_reach_and_every_nth_epoch_counts():
    tokens = torch.arange(5 * STEPS).reshape(5, STEPS) % 20
    callback = rnngrad.GradientReach(every_n_epochs=2, batch=tokens, budget=ALWAYS)
    _, model = fit([callback], max_epochs=4)
    assert [*callback.curves["lstm.0"]] == [0, 2, 4]
    for name, layer in rnngrad.gradient_reach(model, tokens).layers.items():
        expected = np.median(layer.curves.log10_frobenius, axis=0)
        np.testing.assert_array_equal(callback.curves[name][4], expected)


class DictModel(Model):
    """Its batches are dicts that hold labels as well."""

    def training_step(self, batch: Any, _: int) -> Tensor:
        return (self(batch["tokens"]) - batch["labels"]).square().mean()


class WholeDictModel(Model):
    """Its forward reads a batch as it is."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["tokens"])

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:  # type: ignore[override]
        return (self(batch) - batch["labels"]).square().mean()


@pytest.mark.parametrize("batch", [None, {"tokens": torch.zeros(2, STEPS).long()}])
@pytest.mark.parametrize("kind", [DictModel, WholeDictModel])
def test_of_a_dict_forward_gets_what_it_takes(kind: type[Model], batch: Any):
    rows: Any = [{"tokens": torch.arange(n, n + STEPS), "labels": 0.0} for n in range(8)]
    callback = rnngrad.GradientReach(batch=batch, budget=ALWAYS)
    fit([callback], kind(), DataLoader(rows, 4), max_epochs=1)
    assert [*callback.curves["lstm.0"]] == [0, 1]


def board(folder: str) -> list[tuple[str, int, Any]]:
    """Read what TensorBoard shows: (tag, step, value), from records of length, CRC, event, CRC."""
    (path,) = Path(folder).glob("events.*")
    found, content = [], path.read_bytes()
    while content:
        size = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + size])
        found += [(value.tag, event.step, value) for value in event.summary.value]
        content = content[16 + size :]
    return found


def test_every_logger_gets_metrics_and_the_heat_map(tmp_path: Path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store = (tmp_path / "artifacts").as_uri()
    loggers = [
        CSVLogger(tmp_path),
        MLFlowLogger(tracking_uri=uri, artifact_location=store),
        TensorBoardLogger(tmp_path),
    ]
    callback = rnngrad.GradientReach(loss=last_loss, budget=ALWAYS)
    trainer, _ = fit([callback], logger=loggers)
    csv, mlflow, tensorboard = loggers
    frame = pd.read_csv(Path(csv.log_dir) / "metrics.csv")
    rows = frame.dropna(subset="reach/lstm.1/decades_per_step")
    assert rows["reach/epochs_trained"].tolist() == [0, 1, 2, 3]
    assert rows["step"].tolist() == [0, 3, 6, 9]
    curves = np.stack([*callback.curves["lstm.1"].values()])
    np.testing.assert_allclose(rows["reach/lstm.1/log10_norm_step_10"], curves[:, 9])
    assert "reach/lstm.1/log10_norm_step_30" not in frame
    assert (rows["reach/lstm.0/horizon"].between(1, STEPS)).all()
    assert (rows["reach/lstm.0/learning_span"].between(0, STEPS)).all()
    assert (Path(csv.log_dir) / "gradient_reach.png").stat().st_size > 5000
    history = mlflow.experiment.get_metric_history(mlflow.run_id, "reach/lstm.1/log10_norm_step_10")
    np.testing.assert_allclose([m.value for m in history], curves[:, 9])
    files = mlflow.experiment.list_artifacts(mlflow.run_id)
    assert [f.path for f in files] == ["gradient_reach.png"]
    shown = board(tensorboard.log_dir)
    norms = [(n, v.simple_value) for tag, n, v in shown if tag == "reach/lstm.1/log10_norm_step_10"]
    assert [step for step, _ in norms] == [0, 3, 6, 9]
    np.testing.assert_allclose([value for _, value in norms], curves[:, 9], rtol=1e-6)
    ((step, picture),) = [(step, value.image) for tag, step, value in shown if tag == "reach"]
    assert step == trainer.global_step
    assert picture.width > 300


def test_the_heat_map_shows_steps_against_epochs():
    callback = rnngrad.GradientReach(budget=ALWAYS)
    fit([callback])
    axes = callback.plot()
    assert [ax.get_title() for ax in axes] == ["lstm.0", "lstm.1"]
    shown = axes[1].collections[0].get_array().filled(np.nan)
    curves = np.stack([*callback.curves["lstm.1"].values()], axis=1)
    np.testing.assert_array_equal(shown[:, ::2], curves)
    assert np.isnan(shown[:, 1::2]).all()  # between epochs, as wide as those that are left out
    assert axes[1].get_xlim() == (-0.5, EPOCHS + 0.5)
    assert axes[0].figure.number in plt.get_fignums()  # a notebook shows it
    _, own = plt.subplots(1, 2)
    assert (callback.plot(own) == own).all()
    assert [ax.get_ylabel() for ax in own] == ["step t", "step t"]
    with pytest.raises(rnngrad.InputError, match=r"ax holds 1 axes for 2 layer\(s\)"):
        callback.plot(own[0])
    plt.close("all")


class Clock:
    """Stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "perf_counter", found)
    return found


class SlowToProbe(Model):
    """Takes half a second for each recording, and some for a batch."""

    def __init__(self, clock: Clock, seconds: float = 0.0) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, tokens: Tensor) -> Tensor:
        self.clock.now += self.seconds if self.training else 0.5
        return super().forward(tokens)


def test_epochs_are_left_out_where_there_is_no_time_for_them(clock: Clock):
    callback = rnngrad.GradientReach()
    with pytest.warns(UserWarning, match=r"takes some 0\.\d+ s, .* 5% of training's time"):
        fit([callback], SlowToProbe(clock))
    assert not callback.curves  # the first alone would take more


def test_a_short_training_without_any_probe_is_told(clock: Clock):
    callback = rnngrad.GradientReach(every_n_epochs=9)
    with pytest.warns(UserWarning, match="GradientReach leaves out epochs"):
        fit([callback], SlowToProbe(clock))
    assert not callback.curves


class TwoOptimizers(Model):
    """Steps by hand, once with each."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss = super().training_step(batch, _)
        self.manual_backward(loss)
        for optimizer in cast("Any", self.optimizers()):
            optimizer.step()
            optimizer.zero_grad()
        return loss

    def configure_optimizers(self) -> Any:
        parts = self.lstm, self.head
        return [torch.optim.SGD(part.parameters(), 0.01) for part in parts]


def test_steps_are_batches_also_of_two_optimizers(tmp_path: Path):
    logger = CSVLogger(tmp_path)
    callback = rnngrad.GradientReach(budget=ALWAYS)
    fit([callback], TwoOptimizers(), logger=logger, log_every_n_steps=1)
    frame = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    assert frame.dropna(subset="reach/epochs_trained").step.tolist() == [0, 3, 6, 9]
    assert frame.dropna(subset="loss").step.tolist() == [*range(9)]


class Lazy(Model):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.LazyBatchNorm1d(affine=False), nn.LazyLinear(1))  # type: ignore


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.filterwarnings("ignore:.*initialized parameter")
def test_a_model_that_learns_its_shapes_from_the_first_batch_is_probed_by_epoch():
    callback = rnngrad.GradientReach(budget=ALWAYS)
    fit([callback], Lazy(), max_epochs=2)
    assert [*callback.curves["lstm.0"]] == [1, 2]
    fit([callback], Lazy(), DataLoader([*loader()], None), max_epochs=2, limit_train_batches=1)
    assert [*callback.curves["lstm.0"]] == [1, 2]


def test_what_earlier_probes_took_counts(clock: Clock):
    callback = rnngrad.GradientReach(budget=0.4)
    with pytest.warns(UserWarning, match="GradientReach leaves out epochs"):
        fit([callback], SlowToProbe(clock, 0.4))  # each of three batches: 0.48 s for probes
    assert [*callback.curves["lstm.0"]] == [0, 3]


def test_the_untrained_model_waits_as_it_was_until_there_is_time(tmp_path: Path, clock: Clock):
    tokens, logger = torch.arange(2 * STEPS).reshape(2, STEPS) % 20, CSVLogger(tmp_path)
    model, callback = SlowToProbe(clock, 0.3), rnngrad.GradientReach(5, batch=tokens, budget=1)
    before = rnngrad.gradient_reach(model, tokens).layers["lstm.1"].curves.log10_frobenius
    fit([callback], model, logger=logger, max_epochs=2)
    np.testing.assert_array_equal(callback.curves["lstm.1"][0], np.median(before, axis=0))
    rows = pd.read_csv(Path(logger.log_dir) / "metrics.csv").dropna(subset="reach/epochs_trained")
    assert rows[["reach/epochs_trained", "step"]].to_numpy().tolist() == [[0, 0]]


@pytest.mark.filterwarnings("ignore:GradientReach leaves out")
def test_a_resumed_training_knows_what_a_probe_takes(tmp_path: Path, clock: Clock):
    model, callbacks = (
        SlowToProbe(clock, 0.1),
        [rnngrad.GradientReach(budget=b) for b in (ALWAYS, 1)],
    )
    trainer, _ = fit(callbacks[:1], model, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    asked = {"ckpt_path": tmp_path / "first.ckpt", "weights_only": True}
    fit(callbacks[1:], model, max_epochs=2, fitting=asked)
    assert [*callbacks[1].curves["lstm.0"]] == [0, 1]


def test_a_resumed_training_keeps_its_curves(tmp_path: Path):
    first, second = (rnngrad.GradientReach(budget=ALWAYS) for _ in range(2))
    trainer, _ = fit([first], max_epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    fit([second], fitting={"ckpt_path": tmp_path / "half.ckpt", "weights_only": True})
    assert [*second.curves["lstm.0"]] == [0, 1, 2, 3]
    np.testing.assert_array_equal(first.curves["lstm.0"][1], second.curves["lstm.0"][1])


@pytest.mark.filterwarnings("ignore:.*checkpoint.*")
def test_a_training_resumed_within_an_epoch_keeps_the_curve_of_its_beginning(tmp_path: Path):
    every_step = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    first, second = (rnngrad.GradientReach(budget=ALWAYS) for _ in range(2))
    fit([first, every_step], enable_checkpointing=True)
    resumed = {"ckpt_path": tmp_path / "step=5.ckpt", "weights_only": True}
    fit([second], fitting=resumed)
    assert [*second.curves["lstm.0"]] == [0, 1, 2, 3]
    np.testing.assert_array_equal(first.curves["lstm.0"][1], second.curves["lstm.0"][1])
    checkpoint, third = torch.load(tmp_path / "step=5.ckpt"), rnngrad.GradientReach(budget=ALWAYS)
    del checkpoint["callbacks"]
    torch.save(checkpoint, tmp_path / "without.ckpt")
    fit([third], fitting=resumed | {"ckpt_path": tmp_path / "without.ckpt"})
    assert [*third.curves["lstm.0"]] == [2, 3]  # it was not there after 1 epoch


def test_another_training_begins_anew():
    callback = rnngrad.GradientReach(budget=ALWAYS)
    fit([callback])
    once = rnngrad.GradientReach(budget=ALWAYS)
    for each in (callback, once):
        torch.manual_seed(5)
        fit([each], Model(), max_epochs=1)
    assert [*callback.curves["lstm.0"]] == [0, 1]
    np.testing.assert_array_equal(callback.curves["lstm.0"][0], once.curves["lstm.0"][0])


class TimeFirst(Model):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.T)


def test_a_batch_in_which_time_comes_first_is_told():
    batch, callback = torch.randint(20, (9, 8)), rnngrad.GradientReach(budget=ALWAYS)
    with pytest.warns(UserWarning, match="layers read 4 steps only: where time comes first, or"):
        fit([callback], TimeFirst(), DataLoader([(batch, torch.zeros(8))], None), max_epochs=1)


def test_a_batch_of_four_steps_that_is_not_cut_is_not_told():
    data = DataLoader([(torch.randint(20, (3, 4)), torch.zeros(3))], None)
    callback = rnngrad.GradientReach(budget=ALWAYS)
    fit([callback], data=data, max_epochs=1)
    assert len(callback.curves["lstm.0"][1]) == 4


class Packed(Model):
    def forward(self, tokens: Any) -> Tensor:
        return self.head(self.lstm(tokens)[0].data)[:, 0]

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self(batch).square().mean()


class Listed(Model):
    def forward(self, tokens: list[Tensor]) -> Tensor:  # type: ignore[override]
        return self.head(self.lstm(pack_sequence(tokens))[1][0][-1])[:, 0]


def test_a_batch_that_is_a_list_of_sequences_is_told():
    batch: Any = [torch.randn(9, 5) for _ in range(8)], torch.zeros(8)
    with pytest.warns(UserWarning, match="or sequences are a list, pass batch="):
        fit([rnngrad.GradientReach(budget=ALWAYS)], Listed(), DataLoader([batch], None))


def test_a_packed_batch_is_taken_whole():
    packed: Any = pack_sequence([torch.randn(n, 5) for n in (9, 7, 7, 4, 3, 2)])
    callback, model = rnngrad.GradientReach(budget=ALWAYS), Packed()
    fit(
        [callback],
        model,
        data=DataLoader(cast("Any", [packed]), collate_fn=itemgetter(0)),
        max_epochs=1,
    )
    wanted = rnngrad.gradient_reach(model, packed).layers["lstm.0"].curves.log10_frobenius
    np.testing.assert_array_equal(callback.curves["lstm.0"][1], np.nanmedian(wanted, axis=0))


class Breaks(pl.Callback):
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.lstm.weight_hh_l0.data.fill_(torch.nan)


def test_what_fails_later_ends_no_training():
    callback = rnngrad.GradientReach(budget=ALWAYS)
    with pytest.warns(UserWarning, match="after 2 epochs: .* nan"):
        fit([callback, Breaks()], max_epochs=2)
    assert [*callback.curves["lstm.0"]] == [0, 1]


def test_what_fails_at_once_is_said_in_a_line():
    with pytest.raises(
        rnngrad.InputError, match=r"Model\.forward or loss fails, .* batch="
    ) as raised:
        fit([rnngrad.GradientReach(batch=(torch.zeros(2, 3), 1, 2))])
    assert "\n" not in str(raised.value)
    with pytest.raises(rnngrad.InputError, match="every_n_epochs=0"):
        rnngrad.GradientReach(every_n_epochs=0)
    with pytest.raises(rnngrad.InputError, match="loss=3: use a function of the model's output"):
        rnngrad.GradientReach(loss=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(rnngrad.InputError, match="no curves yet"):
        rnngrad.GradientReach().plot()
    for budget in ("5%", float("nan"), -1, None):
        with pytest.raises(rnngrad.InputError, match="budget="):
            rnngrad.GradientReach(budget=budget)  # pyright: ignore[reportArgumentType]


def in_one_of_two(rank: int, folder: Path, port: str) -> None:
    """Train without the callback and with it; sum the metric over both processes."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank)}
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found, callback = [], rnngrad.GradientReach(budget=ALWAYS)
    for callbacks in ([], [callback]):
        logger = CSVLogger(folder, version=len(callbacks))
        options: dict[str, Any] = {"strategy": "ddp", "devices": 2, "precision": "bf16-mixed"}
        _, model = fit(callbacks, logger=logger, **options)
        found.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(d.values() for d in found), strict=True))
    assert bool(callback.curves) == (rank == 0)
    # the processes know one another still
    metric = rnngrad.LossGradientByDistance(3)
    metric.update(NORMS[rank : rank + 1])
    torch.testing.assert_close(metric.compute()["log10"], MEANS)
    torch.testing.assert_close(metric.compute()["zero"], ZEROS)


def test_in_ddp_the_first_process_probes_weights_are_the_same_and_the_metric_sums(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    mp.spawn(in_one_of_two, (tmp_path, port), nprocs=2)  # pyright: ignore
    folder = tmp_path / "lightning_logs" / "version_1"
    frame = pd.read_csv(folder / "metrics.csv")
    assert frame["reach/lstm.1/decades_per_step"].count() == EPOCHS + 1
    assert (folder / "gradient_reach.png").exists()


def test_sharded_weights_are_refused():
    class Sharded:
        world_size, model = 2, Model()

    with pytest.raises(rnngrad.InputError, match="use ddp"):
        rnngrad.GradientReach().on_train_start(Sharded(), Sharded.model)


def test_the_metric_is_the_mean_by_distance():
    metric = rnngrad.LossGradientByDistance(3)
    metric.update(NORMS[:1])
    before = metric.sums
    metric.update(NORMS[1:].numpy())
    found = metric.compute()
    torch.testing.assert_close(found["log10"], MEANS)
    torch.testing.assert_close(found["zero"], ZEROS)
    assert before[0].tolist() == [0.0, 0.0, -4.0]
    with pytest.raises(rnngrad.InputError, match=r"must be \(batch, time\), got \(3,\)"):
        metric.update(NORMS[0])
    for wrong in (0, 2.5, True):
        with pytest.raises(rnngrad.InputError, match="use an integer from 1"):
            rnngrad.LossGradientByDistance(wrong)  # type: ignore[arg-type]
    near = rnngrad.LossGradientByDistance(1)
    near.update(NORMS)
    assert near.compute()["log10"] == -0.5


def test_the_metric_is_drawn_by_distance():
    metric = rnngrad.LossGradientByDistance(3)
    metric.update(NORMS)
    figure, axes = metric.plot()
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), MEANS)
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), ZEROS)
    _, own = plt.subplots()
    assert metric.plot([metric.compute()] * 2, own)[1] is own
    assert len(own.lines) == 2
    plt.close("all")


def test_the_metric_reads_the_probes_result_as_it_reads_an_array():
    curves = rnngrad.loss_gradient_curves(
        nn.LSTM(3, 4, batch_first=True), torch.randn(5, 7, 3), torch.ones(5, 7, 4)
    )
    probe, array = (rnngrad.LossGradientByDistance(7) for _ in range(2))
    probe.update(curves)
    array.update(curves.log10_h)
    torch.testing.assert_close(probe.compute(), array.compute())


def test_without_lightning_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    monkeypatch.delitem(sys.modules, "rnngrad.lightning")
    with pytest.raises(rnngrad.InputError, match=r"pip install 'rnngrad\[lightning\]'"):
        _ = rnngrad.GradientReach


class Stateful(Model):
    """Its forward goes on from the last state, keeps a list, and logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.carried: dict[str, Any] = {}
        self.head.log_dict = {"a name": "of its own"}  # type: ignore[assignment]
        self.seen: list[int] = []

    def forward(self, tokens: Tensor) -> Tensor:
        before = self.carried.get("state")
        output, state = self.lstm(self.embedding(tokens), before)
        self.carried["state"] = tuple(s.detach() for s in state)
        self.seen.append(len(tokens))
        self.log("size", output.abs().mean(), on_step=True, on_epoch=True)
        return self.head(output[:, -1])[:, 0]


def test_what_forward_keeps_and_logs_is_trainings_alone():
    callback = rnngrad.GradientReach(batch=torch.zeros(8, 5).long(), budget=ALWAYS)
    torch.manual_seed(2)
    without, plain = fit([], Stateful())
    torch.manual_seed(2)
    with_it, probed = fit([callback], Stateful())
    assert [*callback.curves["lstm"]] == [0, 1, 2, 3]
    assert with_it.callback_metrics == without.callback_metrics
    assert probed.seen == plain.seen
    assert vars(probed.head)["log_dict"] == {"a name": "of its own"}
    assert "log" not in vars(probed)
    pairs = zip(plain.state_dict().values(), probed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
