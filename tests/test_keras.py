"""`from_keras` against outputs that Keras computed, from its files and from its layers."""

import doctest
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rnngrad

FIXTURES = Path(__file__).with_name("keras_fixtures")
pytestmark = pytest.mark.filterwarnings("ignore:weights alone hold no settings")
NO_KERAS = "no Keras: .ci/run has it in .keras-venv"
LAYERS = {
    "encoder": "LSTM(3, 4, batch_first=True)",
    "gru": "GRU(4, 3, batch_first=True)",
    "relu": "RNN(3, 4, batch_first=True)",
    "inner": "LSTM(4, 2, batch_first=True)",
    "plain": "RNN(2, 3, bias=False, batch_first=True)",
    "forward_lstm": "LSTM(3, 2, batch_first=True)",
}


@pytest.fixture
def weights_alone(tmp_path: Path) -> str:
    """A .keras file has in it what model.save_weights writes."""
    with zipfile.ZipFile(FIXTURES / "model.keras") as archive:
        return archive.extract("model.weights.h5", tmp_path)


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """A copy of single.keras whose one layer has other settings, or a twin with such."""

    def edit(kind: str = "GRU", twin: Any = (), **settings: Any) -> Path:
        path = tmp_path / "edited.keras"
        with zipfile.ZipFile(FIXTURES / "single.keras") as old, zipfile.ZipFile(path, "w") as new:
            config = json.loads(old.read("config.json"))
            layer = config["config"]["layers"][-1]
            layer["class_name"] = kind
            layer["module"] = settings.pop("module", layer["module"])
            layer["config"] |= settings
            config["config"]["layers"] += [layer | {"config": layer["config"] | dict(twin)}]
            new.writestr("config.json", json.dumps(config))
            new.writestr("model.weights.h5", old.read("model.weights.h5"))
        return path

    return edit


def check_outputs(module: nn.Module, name: str, folder: Path = FIXTURES) -> None:
    with np.load(folder / "outputs.npz") as arrays:
        inputs, wanted = arrays[f"{name}_inputs"], arrays[f"{name}_outputs"]
    with torch.no_grad():
        given = module(torch.from_numpy(inputs))[0].numpy()
    np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_a_model_file_has_the_same_numbers(name: str):
    module = rnngrad.from_keras(FIXTURES / "model.keras", name)
    assert str(module) == LAYERS[name]
    check_outputs(module, name)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "relu"])
def test_so_has_one_of_a_weight_file(name: str, weights_alone: str):
    with pytest.warns(UserWarning, match="Keras' defaults are assumed"):
        check_outputs(rnngrad.from_keras(weights_alone, name), name)


def test_the_only_layer_of_a_file_needs_no_name_and_can_be_probed():
    module = rnngrad.from_keras(str(FIXTURES / "single.keras"))
    curves = rnngrad.jacobian_curves(module, torch.zeros(1, 5, 3))
    assert np.isfinite(curves.log10_frobenius).all()


@pytest.mark.parametrize("name", [None, "lstm_7"])
def test_an_ambiguous_or_unknown_name_lists_the_names(name: str | None):
    with pytest.raises(rnngrad.InputError, match=r"name one .* of .*encoder, inner, relu, plain$"):
        rnngrad.from_keras(FIXTURES / "model.keras", name)


def test_what_a_file_says_of_its_layers_is_checked(edited: Callable[..., Path]):
    bad = "{'class_name': 'f'}"
    for settings, says in (
        ({"recurrent_activation": "hard_sigmoid"}, "recurrent_activation='hard_sigmoid': write"),
        ({"activation": {"class_name": "f"}}, f"activation={bad}: write the layer as a step"),
        ({"go_backwards": True}, r"go_backwards=True: .*save_weights.* flip"),
        ({"reset_after": False}, "reset_after=False: write the layer as a step"),
        ({"kind": "RNN"}, "is a RNN, no LSTM, GRU or SimpleRNN"),
        ({"name": "other"}, "the settings of .* are not in it"),
        ({"module": "mine"}, r"is a mine\.GRU, no LSTM, GRU or SimpleRNN"),
        ({"twin": {"reset_after": False}}, "the settings of .* differ among layers of that name"),
    ):
        with pytest.raises(rnngrad.InputError, match=says):
            rnngrad.from_keras(edited(**settings))


def test_layers_of_one_name_may_have_one_kind_of_settings(edited: Callable[..., Path]):
    assert rnngrad.from_keras(edited(twin={"units": 9})).hidden_size == 4


def test_layers_of_one_name_are_told_apart_by_their_places(tmp_path: Path):
    h5py = import_module("h5py")
    rng = np.random.default_rng(0)
    path = str(tmp_path / "it.weights.h5")
    with h5py.File(path, "w") as file:
        for place, H in (("a/lstm", 2), ("b/lstm", 3)):
            for key, shape in enumerate([(5, 4 * H), (H, 4 * H), (4 * H,)]):
                file[f"layers/{place}/cell/vars/{key}"] = rng.standard_normal(shape)
            file.create_group(f"layers/{place}/vars").attrs["name"] = "lstm"
    assert rnngrad.from_keras(path, "lstm").hidden_size == 2
    module = rnngrad.from_keras(path, "layers/b/lstm")
    assert (module.hidden_size, module.weight_hh_l0.dtype) == (3, torch.float64)


def test_a_file_of_keras_2_says_how_to_go_on(tmp_path: Path):
    path = str(tmp_path / "it.h5")
    with import_module("h5py").File(path, "w") as file:
        file["model_weights/lstm/lstm/lstm_cell/recurrent_kernel:0"] = np.zeros((2, 8))
    with pytest.raises(rnngrad.InputError, match="or layer of Keras 3 in it"):
        rnngrad.from_keras(path)


@pytest.mark.parametrize("name", ["it.keras", "it.weights.h5"])
def test_a_file_that_is_none(name: str, tmp_path: Path):
    with pytest.raises(rnngrad.InputError, match=r"it\..*: not a .*: .*No such file"):
        rnngrad.from_keras(tmp_path / name)
    (tmp_path / name).write_text("nothing")
    with pytest.raises(rnngrad.InputError, match=r"it\..*: not a \.keras or \.weights\.h5 file"):
        rnngrad.from_keras(tmp_path / name)


def test_a_damaged_file_is_refused_in_a_line(tmp_path: Path):
    whole, path = bytearray((FIXTURES / "model.keras").read_bytes()), tmp_path / "it.keras"
    refused = 0
    for at in range(0, len(whole), len(whole) // 40):
        part = whole.copy()
        part[at : at + 4] = b"oops"
        path.write_bytes(part)
        try:
            rnngrad.from_keras(path, "encoder")
        except rnngrad.InputError as error:
            refused += "not a .keras or .weights.h5 file" in str(error)
    assert refused > 5


def test_without_h5py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(rnngrad.InputError, match=r"pip install 'rnngrad\[keras\]'"):
        rnngrad.from_keras(FIXTURES / "single.keras")


class LSTM:
    """It has as much of a layer of Keras as is looked at."""

    __module__ = "keras.src.layers"

    def __init__(self, *shapes: tuple[int, ...], **config: Any) -> None:
        rng = np.random.default_rng(1)
        self.weights = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        self.config = config

    def get_weights(self) -> list[np.ndarray]:
        return self.weights

    def get_config(self) -> dict[str, Any]:
        return self.config


class GRU(LSTM):
    __module__ = "keras.src.layers"


class Sequential(LSTM):
    __module__ = "keras.src.models"


OwnLSTM = type("LSTM", (LSTM,), {"__module__": "mine"})  # its call may do anything


def test_a_live_layer_is_asked_for_its_weights():
    layer = LSTM((3, 8), (2, 8), (8,), activation="tanh", use_bias=True)
    module = rnngrad.from_keras(layer)
    assert str(module) == "LSTM(3, 2, batch_first=True)"
    weights = {name: weight.numpy() for name, weight in module.state_dict().items()}
    np.testing.assert_array_equal(weights["weight_hh_l0"], layer.weights[1].T)
    np.testing.assert_array_equal(weights["bias_ih_l0"], layer.weights[2])
    assert not weights["bias_hh_l0"].any()
    assert all(weight.flags.c_contiguous for weight in weights.values())


def test_weights_in_bfloat16_are_read_exactly():
    layer = LSTM((3, 8), (2, 8), (8,))
    halves = [weight.view("u4") >> 16 for weight in layer.weights]
    layer.weights = [half.astype("u2").view("V2") for half in halves]
    module = rnngrad.from_keras(layer)
    np.testing.assert_array_equal(
        module.state_dict()["weight_hh_l0"], (halves[1] << 16).view("f4").T
    )


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (LSTM(), "the layer has no weights yet"),
        (LSTM((3, 8), (2, 8), (8,), activation="relu"), "activation='relu'"),
        (GRU((3, 6), (2, 6), (6,)), "reset_after=False"),
        (Sequential((3, 8), (2, 8), (8,)), "is a Sequential, no LSTM.* pass the layer"),
        (LSTM((3, 10), (2, 10)), "is a LSTM, no"),
        (OwnLSTM((3, 8), (2, 8), (8,)), r"is a mine\.LSTM, no LSTM, GRU"),
    ],
)
def test_a_live_layer_that_torch_has_not(layer: LSTM, says: str):
    with pytest.raises(rnngrad.InputError, match=says):
        rnngrad.from_keras(layer)


def test_what_is_no_layer():
    with pytest.raises(TypeError, match=r"a Keras layer or a path, got torch\.nn\..*Linear$"):
        rnngrad.from_keras(nn.Linear(2, 2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own, to NumPy
def test_live_layers_of_keras_itself():
    keras = pytest.importorskip("keras", reason=NO_KERAS)
    layers = keras.layers
    for layer in (layers.LSTM(4), layers.GRU(3), layers.SimpleRNN(5, activation="relu")):
        layer.return_sequences = True
        x = np.random.default_rng(0).standard_normal((2, 6, 3)).astype(np.float32)
        wanted = keras.ops.convert_to_numpy(layer(x))
        with torch.no_grad():
            given = rnngrad.from_keras(layer)(torch.from_numpy(x))[0].numpy()
        np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_example_runs_with_keras_itself():
    pytest.importorskip("keras", reason=NO_KERAS)
    result = doctest.testmod(import_module("rnngrad.keras"))
    assert (result.attempted, result.failed) == (4, 0)


@pytest.mark.slow
def test_files_that_keras_itself_writes_now(tmp_path: Path):
    pytest.importorskip("keras", reason=NO_KERAS)
    subprocess.run(
        [sys.executable, FIXTURES / "make.py", tmp_path], check=True, capture_output=True
    )
    for name in LAYERS:
        module = rnngrad.from_keras(tmp_path / "model.keras", name)
        check_outputs(module, name, tmp_path)
