"""Keras' recurrent layers as torch modules with the same numbers.

Keras keeps kernels as (features, gates * H), torch as (gates * H, features). The gates of an LSTM
stand in the same order, i, f, c, o; those of a GRU are z, r, h in Keras and r, z, n in torch. torch
adds two biases where Keras has one, but for the GRU.
"""

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from rnngrad.errors import InputError

CLASSES = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}  # by the number of gates
ACTIVATIONS = {"SimpleRNN": ("tanh", "relu"), "GRU": ("tanh",), "LSTM": ("tanh",)}
OWN_STEP = "write the layer as a step and use rnngrad.jacobian_curves_of_step"
WEIGHTS_ALONE = "pass weights alone, as of model.save_weights('it.weights.h5')"
# what other settings must be, and what to do where they are not
NEEDED = {
    "recurrent_activation": ("sigmoid", OWN_STEP),
    "reset_after": (True, OWN_STEP),
    "go_backwards": (False, f"{WEIGHTS_ALONE}, and flip the steps of the inputs"),
    "dropout": (0, WEIGHTS_ALONE),
    "recurrent_dropout": (0, WEIGHTS_ALONE),
}


class _Layer(NamedTuple):
    """A layer; a file of weights alone says neither its class nor its settings."""

    weights: list[np.ndarray]
    kind: str = ""
    config: Mapping[str, Any] = {}


def from_keras(layer_or_file: object, name: str | None = None) -> nn.RNN | nn.LSTM | nn.GRU:
    """The torch module that computes what a layer of Keras computes; Keras is not imported.

    Args:
        layer_or_file: a built LSTM, GRU (``reset_after=True``) or SimpleRNN (tanh or relu), or the
            path of a ``.keras`` or ``.weights.h5`` file of Keras 3, which needs h5py.
        name: the layer's name in the file; None where there is but one.

    Returns:
        A module with ``batch_first=True``. Masks are no part of a layer: pass ``lengths=`` to the
        probe. A ``.weights.h5`` file holds no settings: its layers get Keras' default ones.

    Raises:
        InputError: torch has no such layer, the file is no such file, or ``name`` is not in it.
        TypeError: neither a layer nor a path.

    Example:
        >>> import rnngrad
        >>> rnngrad.from_keras("tests/keras_fixtures/model.keras", "encoder")
        LSTM(3, 4, batch_first=True)
    """
    if not isinstance(layer_or_file, str | os.PathLike):
        return _module(_live(layer_or_file), "the layer")
    path = os.fspath(layer_or_file)
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such file")
    layers = _layers_of_file(path)
    if not layers:
        raise InputError(f"{path}: no LSTM, GRU or SimpleRNN found: save the model with Keras 3")
    name = next(iter(layers)) if name is None and len(layers) == 1 else name
    if name not in layers:
        wrong = "holds several recurrent layers" if name is None else f"has no layer {name!r}"
        raise InputError(f"{path}: {wrong}: name (--module) one of {', '.join(layers)}")
    return _module(layers[name], f"{path}: {name}")


def _live(layer: Any) -> _Layer:
    if not (hasattr(layer, "get_weights") and hasattr(layer, "get_config")):
        raise TypeError(f"from_keras takes a Keras layer or a path, got {type(layer).__name__}")
    if not (weights := [np.asarray(weight) for weight in layer.get_weights()]):
        raise InputError("the layer has no weights yet: call it once, or layer.build(shape)")
    return _Layer(weights, type(layer).__name__, layer.get_config())


def _layers_of_file(path: str) -> dict[str, _Layer]:
    """The recurrent layers by their names; a second one of a name by its place in the file."""
    try:
        h5py = import_module("h5py")
    except ImportError:
        raise InputError(f"{path}: needs h5py: pip install 'rnngrad[keras]'") from None
    settings, weights = None, path
    try:
        if path.endswith(".keras"):
            with zipfile.ZipFile(path) as archive:
                settings = json.loads(archive.read("config.json"))
                weights = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(weights) as file:
            groups: list[str] = []
            file.visit(lambda at: groups.append(at) if at.endswith("/cell/vars") else None)
            return _with_settings(file, groups, settings)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        bad = "" if isinstance(error, InputError) else "not a .keras or .weights.h5 file: "
        raise InputError(f"{path}: {bad}{error}") from None


def _with_settings(file: Any, groups: list[str], settings: object) -> dict[str, _Layer]:
    known = {config["name"]: (kind, config) for kind, config in _configs(settings)}
    masks = (n for n, (k, config) in known.items() if k == "Masking" or config.get("mask_zero"))
    if masking := next(masks, ""):
        raise InputError(f"{masking} masks steps: {WEIGHTS_ALONE}, and give the probe lengths=")
    layers: dict[str, _Layer] = {}
    for group in groups:
        weights = [np.asarray(file[group][key]) for key in sorted(file[group])]
        if _gates(weights) is None:
            continue
        place = group.removesuffix("/cell/vars")
        own = file.get(f"{place}/vars")
        name = str(own.attrs.get("name", place)) if own else place
        if settings is not None and (name not in known or name in layers):
            raise InputError(f"the settings of {place} are not in it: pass the layer itself")
        layers[place if name in layers else name] = _Layer(weights, *known.get(name, ("", {})))
    return layers


def _configs(settings: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Class and settings of everything in a model that has a name, layers in layers included."""
    if isinstance(settings, dict):
        config = settings.get("config")
        if isinstance(config, dict) and "name" in config and "class_name" in settings:
            yield settings["class_name"], config
        settings = [*settings.values()]
    if isinstance(settings, list):
        for one in settings:
            yield from _configs(one)


def _gates(weights: list[np.ndarray]) -> int | None:
    """The number of gates by the shapes of kernels and bias, None for another kind of layer."""
    if [weight.ndim for weight in weights] not in ([2, 2], [2, 2, 1], [2, 2, 2]):
        return None
    H, columns = weights[1].shape
    gates = columns // max(H, 1)
    fits = columns == gates * H and all(weight.shape[-1] == columns for weight in weights)
    return gates if fits and gates in CLASSES else None


def _module(layer: _Layer, where: str) -> nn.RNN | nn.LSTM | nn.GRU:
    gates = _gates(layer.weights)
    kind = layer.kind or CLASSES.get(gates or 0, "")
    if kind != CLASSES.get(gates or 0):
        what = f"is a {kind}, no LSTM, GRU or SimpleRNN"
        raise InputError(f"{where} {what}: of a model or wrapper pass the layer that is inside")
    for key, (wanted, cure) in NEEDED.items():
        if (given := layer.config.get(key, wanted)) != wanted:
            raise InputError(f"{where} has {key}={given!r}: {cure}")
    if (activation := layer.config.get("activation", "tanh")) not in ACTIVATIONS[kind]:
        raise InputError(f"{where} has activation={activation!r}: {OWN_STEP}")
    if kind == "GRU" and layer.weights[-1].ndim == 1:
        raise InputError(f"{where} has reset_after=False: {OWN_STEP}")
    D, H = layer.weights[0].shape[0], layer.weights[1].shape[0]
    made = {"SimpleRNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}[kind]
    options = {"nonlinearity": activation} if kind == "SimpleRNN" else {}
    module = made(D, H, bias=len(layer.weights) == 3, batch_first=True, **options)
    dtype = np.float64 if layer.weights[0].dtype == np.float64 else np.float32
    tensors = [torch.from_numpy(np.array(a, dtype, order="C")) for a in _torch_order(layer.weights)]
    module.load_state_dict(dict(zip(module.state_dict(), tensors, strict=True)), assign=True)
    return module


def _torch_order(weights: list[np.ndarray]) -> list[np.ndarray]:
    arrays = [weights[0].T, weights[1].T]
    if weights[2:]:
        arrays += [*weights[2]] if weights[2].ndim == 2 else [weights[2], np.zeros_like(weights[2])]
    if _gates(weights) == 3:
        z, r, h = zip(*(np.split(array, 3) for array in arrays), strict=True)
        arrays = [np.concatenate(rows) for rows in zip(r, z, h, strict=True)]
    return arrays
