"""`rnngrad probe`: files that hold a module, and files that do not."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import rnngrad

FIXTURES = Path(__file__).with_name("keras_fixtures")
Run = Callable[..., tuple[int, str, str]]
X = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    """A class that is not torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(5, 4, num_layers=2)
        self.decoder = nn.GRU(5, 3, bias=False)
        self.head = nn.Linear(3, 1)


class Malicious:
    """Unpickling it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[object], Path]:
    """Save something as torch.save does."""

    def save(thing: object) -> Path:
        torch.save(thing, tmp_path / "model.pt")
        return tmp_path / "model.pt"

    return save


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X.numpy())
    return tmp_path / "x.npy"


Save = Callable[[object], Path]
Refusal = Callable[..., str]


def batch_first(module: Any) -> Any:
    module.batch_first = True
    return module


@pytest.mark.parametrize(
    "module",
    [
        nn.LSTM(5, 4),
        nn.LSTM(5, 4, dtype=torch.float64),
        nn.GRU(5, 3, num_layers=2, bias=False),
        nn.RNN(5, 1),
        nn.RNN(5, 4, nonlinearity="relu"),
    ],
    ids=str,
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_file_is_diagnosed_as_its_module_is(
    module: Any, whole: bool, run: Run, saved: Save, inputs: Path
):
    arguments = [saved(module if whole else module.state_dict()), "--inputs", inputs]
    if not whole and getattr(module, "nonlinearity", None) == "relu":
        arguments += ["--nonlinearity", "relu"]
    status, out, _ = run("probe", *arguments)
    state = "c" if isinstance(module, nn.LSTM) else "h"
    wanted = rnngrad.diagnose(batch_first(module), X, state=state)
    assert status == 0
    assert out.startswith(f"{wanted}\n")


def test_a_nonlinearity_that_no_file_tells_is_said(
    run: Run, refusal: Refusal, saved: Save, inputs: Path
):
    path = saved(nn.RNN(5, 4, nonlinearity="relu").state_dict())
    assert "nonlinearity is tanh" in run("probe", path, "--inputs", inputs)[2]
    assert not run("probe", path, "--inputs", inputs, "--nonlinearity", "relu")[2]
    whole = saved(nn.RNN(5, 4, nonlinearity="relu"))
    assert "the nn.RNN's nonlinearity is relu, and not tanh" in refusal(
        "probe", whole, "--inputs", inputs, "--nonlinearity", "tanh"
    )
    path = saved(nn.LSTM(5, 4).state_dict())
    assert "--nonlinearity is an nn.RNN's" in refusal(
        "probe", path, "--inputs", inputs, "--nonlinearity", "relu"
    )


def test_parametrized_weights_are_to_be_computed_first(refusal: Refusal, saved: Save, inputs: Path):
    module = torch.nn.utils.parametrizations.weight_norm(nn.GRU(5, 4), "weight_hh_l0")
    pruned = prune.identity(nn.GRU(5, 4), "weight_hh_l0")
    for weights in (module.state_dict(), pruned.state_dict()):
        assert "remove_parametrizations" in refusal("probe", saved(weights), "--inputs", inputs)


@pytest.mark.parametrize("wrapped", [False, True])
def test_one_of_several_modules_is_chosen(
    wrapped: bool, run: Run, refusal: Refusal, saved: Save, inputs: Path
):
    model = Model()
    weights = model.state_dict()
    path = saved({"epoch": 3, "state_dict": weights} if wrapped else weights)
    names = [f"state_dict.{name}" if wrapped else name for name in ("encoder", "decoder")]
    err = refusal("probe", path, "--inputs", inputs)
    assert f"name one (--module, name=) of its recurrent modules: {', '.join(names)}\n" in err
    assert run("probe", path, "--inputs", inputs, "--module", "nix")[2] == err
    out = run("probe", path, "--inputs", inputs, "--module", names[0], "--layer", 0)[1]
    wanted = rnngrad.diagnose(batch_first(model.encoder), X, state="c", layer=0)
    assert out.startswith(f"{wanted}\n")
    assert "of LSTM(4), layer 0 of 0 to 1, 2 example(s)" in out
    alone = saved(model.encoder.state_dict())
    assert run("probe", alone, "--inputs", inputs, "--module", "nix")[2].endswith(
        ": it is one itself, without a name\n"
    )


def test_modules_inside_torch_s_own_containers_are_found(run: Run, saved: Save, inputs: Path):
    model = nn.Sequential(nn.Linear(2, 5), nn.RNN(5, 4, nonlinearity="relu"), nn.Linear(4, 1))
    wanted = rnngrad.diagnose(batch_first(model[1]), X)
    assert run("probe", saved(model), "--inputs", inputs)[1].startswith(f"{wanted}\n")


def test_lengths_end_the_examples(run: Run, saved: Save, inputs: Path, tmp_path: Path):
    module = nn.LSTM(5, 4, batch_first=True)
    np.save(tmp_path / "n.npy", np.array([12, 7], ">i4"))
    arguments = (saved(module), "--inputs", inputs, "--lengths", tmp_path / "n.npy")
    wanted = rnngrad.diagnose(module, X, state="c", lengths=[12, 7])
    assert run("probe", *arguments)[1].startswith(f"{wanted}\n")


def test_a_mask_says_which_steps_count(
    run: Run, refusal: Refusal, saved: Save, inputs: Path, tmp_path: Path
):
    module = nn.LSTM(5, 4, batch_first=True)
    mask = np.random.default_rng(0).random(X.shape[:2]) < 0.5
    np.save(tmp_path / "m.npy", mask)
    asked = ("--inputs", inputs, "--mask", tmp_path / "m.npy")
    wanted = rnngrad.diagnose(module, X, state="c", mask=mask)
    assert run("probe", saved(module), *asked)[1].startswith(f"{wanted}\n")
    np.save(tmp_path / "m.npy", mask.astype(float))
    assert "no single array of bool" in refusal("probe", saved(module), *asked)


def test_weights_that_layers_share_belong_to_each(run: Run, saved: Save, inputs: Path):
    module = nn.LSTM(5, 5, num_layers=2, batch_first=True)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(module, f"{name}_l1", getattr(module, f"{name}_l0"))
    wanted = rnngrad.diagnose(module, X, state="c")
    assert run("probe", saved(module), "--inputs", inputs)[1].startswith(f"{wanted}\n")


def test_a_file_of_keras(run: Run, refusal: Refusal, tmp_path: Path):
    np.save(tmp_path / "x.npy", X.numpy()[:, :, :3])
    arguments = (FIXTURES / "model.keras", "--inputs", tmp_path / "x.npy", "--module", "encoder")
    module = rnngrad.from_keras(FIXTURES / "model.keras", "encoder")
    wanted = rnngrad.diagnose(module, X[:, :, :3], state="c")
    status, out, _ = run("probe", *arguments)
    assert status == 0
    assert out.startswith(f"{wanted}\n")
    assert "--nonlinearity is of torch's state dicts" in refusal(
        "probe", *arguments, "--nonlinearity", "relu"
    )
    with zipfile.ZipFile(FIXTURES / "single.keras") as archive:
        weights = archive.extract("model.weights.h5", tmp_path)
    status, _, err = run("probe", weights, "--inputs", tmp_path / "x.npy")
    assert (status, err) == (
        0,
        "rnngrad: weights alone hold no settings; Keras' defaults are assumed\n",
    )


@pytest.fixture
def refused(refusal: Callable[..., str], inputs: Path) -> Callable[[Path], str]:
    """Give the line that refuses a file."""

    def call(path: Path) -> str:
        err = refusal("probe", path, "--inputs", inputs)
        assert err.startswith("rnngrad probe: ")
        assert str(path) in err
        return err

    return call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_class_that_is_not_torch_s_is_refused_by_name(
    zipped: bool, protocol: int, refused: Refusal, tmp_path: Path
):
    path = tmp_path / "model.pt"
    form: Any = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    torch.save(Model(), path, **form)
    assert "it holds test_cli_probe.Model, not known to be safe" in refused(path)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_malicious_file_runs_nothing(
    plain: bool, protocol: int, refused: Refusal, tmp_path: Path
):
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    harm = {"weight_hh_l0": Malicious(f"touch {trace}")}
    if plain:
        path.write_bytes(pickle.dumps(harm, protocol=protocol))
    else:
        torch.save(harm, path, pickle_protocol=protocol)
    assert f"it holds {os.system.__module__}.system, not known to be safe" in refused(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(harm))
    assert trace.exists()  # it would have done harm


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_files_that_hold_no_module(refused: Refusal, saved: Save, tmp_path: Path):
    assert "No such file" in refused(tmp_path / "nix.pt")
    assert "Is a directory" in refused(tmp_path)
    cyclic: dict[str, Any] = {}
    cyclic["itself"] = cyclic
    weights = nn.LSTM(5, 4).state_dict()
    for thing, says in (
        (cyclic, "torch.load(weights_only=True) cannot read it: save model.state_dict()"),
        (nn.Linear(2, 2), "no nn.RNN, nn.LSTM, nn.GRU or layer of Keras 3 in it"),
        (nn.LSTMCell(5, 4).state_dict(), "in it; of an nn.LSTMCell, add _l0"),
        (3, "no nn.RNN, nn.LSTM, nn.GRU or layer of Keras 3 in it"),
        ({"weight_hh_l0": torch.zeros(7, 3)}, "has not the weights of an nn.RNN"),
        ({"weight_hh_l0": torch.zeros(3, 3)}, "has not the weights of an nn.RNN"),
        ({"weight_hh_l0": torch.zeros(3)}, "has not the weights of an nn.RNN"),
        ({"weight_hh_l0": torch.zeros(0, 0)}, "has not the weights of an nn.RNN"),
        (weights | {"bias_hh_l0": torch.zeros(3)}, "size mismatch for bias_hh_l0"),
        (weights | {"weight_ih_l0": torch.zeros(3)}, "has not the weights of an nn.RNN"),
        (weights | {"weight_hh_l0": torch.ones(())}, "has not the weights of an nn.RNN"),
        (weights | {"weight_hr_l0": torch.ones(9, 4)}, ": "),
    ):
        assert says in refused(saved(thing))
    scripted = tmp_path / "scripted.pt"
    torch.jit.script(nn.LSTM(5, 4)).save(scripted)
    assert "it holds __torch__.torch.nn.modules.rnn.LSTM" in refused(scripted)
    np.savez(tmp_path / "it.npz", X.numpy())  # a zip archive, too
    assert "cannot read it: save model.state_dict()" in refused(tmp_path / "it.npz")
    whole = saved(nn.LSTM(50, 40)).read_bytes()
    for text in (b"", b"nothing", whole[: len(whole) // 2], whole[:-100]):
        (tmp_path / "it.pt").write_bytes(text)
        assert "cannot read it" in refused(tmp_path / "it.pt")


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "module",
    [
        nn.LSTM(5, 4, bidirectional=True),
        nn.GRU(5, 3, num_layers=2, bidirectional=True, bias=False),
        nn.LSTM(5, 4, proj_size=2),
    ],
    ids=str,
)
def test_each_direction_of_a_layer(
    module: Any, run: Run, refusal: Refusal, saved: Save, inputs: Path
):
    path, lengths = saved(module.state_dict()), inputs.with_name("n.npy")
    np.save(lengths, [12, 7])
    module = batch_first(module).double()
    packed = nn.utils.rnn.pack_padded_sequence(X.double(), torch.tensor([12, 7]), batch_first=True)
    asked = ("probe", path, "--inputs", inputs, "--lengths", lengths, "--layer")
    mask = inputs.with_name("m.npy")
    np.save(mask, np.arange(12) < [[12], [7]])
    for number, layer in enumerate(rnngrad.gradient_reach(module, packed).layers.values()):
        for given in (asked, ("probe", path, "--inputs", inputs, "--mask", mask, "--layer")):
            status, out, err = run(*given, number)
            assert (status, err.count("\n")) == (0, 1)
            assert f" {layer.name}" in err
            assert out.startswith(f"{layer.diagnosis}\n")
    assert "--layer 9: each direction counts, use 0.." in refusal(*asked, 9)
    np.save(lengths, [12, 13])
    assert "lengths" in refusal(*asked, 0)
    np.save(inputs, X[0].numpy())
    alone = rnngrad.gradient_reach(module, X[:1].double()).layers.values()
    for number, layer in enumerate(alone):
        status, out, _ = run("probe", path, "--inputs", inputs, "--layer", number)
        assert status == 0
        assert out.startswith(f"{layer.diagnosis}\n")


def test_arrays_that_hold_no_inputs(run: Run, refusal: Refusal, saved: Save, tmp_path: Path):
    path, x = saved(nn.LSTM(5, 4)), tmp_path / "x.npy"
    for array, says in (
        (np.ones((2, 3), int), "embed or convert it first"),
        (np.array([{}]), "it holds objects: pad sequences"),
        (np.array(["a"]), "holds no single array of numbers"),
        (np.ones((2, 3)), "inputs have 3 features, the module expects 5"),
    ):
        np.save(x, array, allow_pickle=True)
        assert says in refusal("probe", path, "--inputs", x)
    assert "No such file" in run("probe", path, "--inputs", tmp_path / "nix.npy")[2]
    np.save(x, np.ones((2, 3, 5)))
    for damaged in (x.read_bytes()[:40], b"PK\x03\x04 cut short"):
        x.write_bytes(damaged)
        refusal("probe", path, "--inputs", x)


def test_a_gradient_of_exactly_zero_has_a_picture(run: Run, saved: Save, inputs: Path):
    module = nn.RNN(5, 4)
    nn.init.zeros_(dict(module.named_parameters())["weight_hh_l0"])
    status, out, _ = run("probe", saved(module), "--inputs", inputs)
    assert status == 0
    assert re.search(r"^structural ", out, re.MULTILINE)
    assert "step t" in out
