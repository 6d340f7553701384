"""Keras' recurrent layers as torch modules with the same numbers.

Keras keeps kernels as (features, gates * H), torch as (gates * H, features). The gates of an LSTM
have the same order, i, f, c, o. Those of a GRU are z, r, h in Keras and r, z, n in torch. torch
adds two biases where Keras has one, except in a GRU with reset_after.
"""

import io
import json
import os
import warnings
import zipfile
from typing import Any

import numpy as np
import torch
from torch import nn

from rnngrad.errors import InputError, full_name, needs
from rnngrad.saved import chosen, module_of

# class and settings; a file of weights alone has neither
Settings = tuple[str, dict[str, Any]]
NAMES = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}  # by the number of gates
TORCH = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
VARS = "/cell/vars"  # where a file has the weights of a recurrent layer
OWN_STEP = "write the layer as a step and use rnngrad.jacobian_curves_of_step"
# the values that settings must have, and the cure for others
NEEDED = {
    "recurrent_activation": ("sigmoid", OWN_STEP),
    "reset_after": (True, OWN_STEP),
    "go_backwards": (False, "pass weights alone (model.save_weights), and flip the inputs' steps"),
}

PACKAGES = "keras", "tf_keras", "tensorflow"  # that Keras' own classes are in


def from_keras(layer_or_file: object, name: str | None = None) -> nn.RNN | nn.LSTM | nn.GRU:
    """Make the torch module that computes what a layer of Keras does; Keras is not imported.

    Args:
        layer_or_file: a built LSTM, GRU (``reset_after=True``) or SimpleRNN (tanh or relu), or the
            path of a ``.keras`` (Keras 3.6 or later) or ``.weights.h5`` file, which needs h5py.
        name: the layer's name in the file; None where there is but one.

    Returns:
        A module with ``batch_first=True``, as Keras runs the layer in inference. Masks are the
        probe's (``lengths=``, ``mask=``). Layers of a ``.weights.h5`` file get default settings.

    Raises:
        InputError: torch has no such layer, the file is no such file, or ``name`` is not in it.
        TypeError: neither a layer nor a path.

    Examples:
        >>> import keras, rnngrad
        >>> layer = keras.layers.LSTM(4)
        >>> layer.build((None, None, 3))
        >>> rnngrad.from_keras(layer)
        LSTM(3, 4, batch_first=True)
    """
    if isinstance(layer_or_file, str | os.PathLike):
        path = os.fspath(layer_or_file)
        layers = _layers_of_file(path)
        name = chosen(name, layers, path)
        weights, settings = layers[name]
        if not path.endswith(".keras"):
            said = "weights alone hold no settings; Keras' defaults are assumed"
            warnings.warn(said, stacklevel=2)
        elif len(settings) != 1:
            what = "are not in it: save it with Keras 3.6 or later, or"
            what = "differ among layers of that name:" if settings else what
            raise InputError(f"{path}: the settings of {name} {what} pass the layer")
        return _module(f"{path}: {name}", weights, *(settings or [("", {})])[0])
    layer: Any = layer_or_file
    if not (hasattr(layer, "get_weights") and hasattr(layer, "get_config")):
        raise TypeError(f"from_keras takes a Keras layer or a path, got {full_name(layer)}")
    if not (weights := [np.asarray(weight) for weight in layer.get_weights()]):
        raise InputError("the layer has no weights yet: call it once, or layer.build(shape)")
    kind = type(layer).__name__
    if type(layer).__module__.split(".")[0] not in PACKAGES:  # a class that is only called like it
        kind = full_name(layer)
    return _module("the layer", weights, kind, layer.get_config())


def _layers_of_file(path: str) -> dict[str, tuple[list[np.ndarray], list[Settings]]]:
    """Find the recurrent layers by name; a second one of the same name by its place in the file.

    The settings are those of all layers of the name, where they differ.
    """
    known, found, file = dict[str, list[Settings]](), dict[str, Any](), path

    def note(part: dict[str, Any]) -> dict[str, Any]:
        config, module = part.get("config"), str(part.get("module") or "custom")
        if isinstance(config, dict) and "name" in config and "class_name" in part:
            own = module.split(".")[0] in PACKAGES
            kind = part["class_name"] if own else f"{module}.{part['class_name']}"
            counting = {key: config[key] for key in (*NEEDED, "activation") if key in config}
            same = known.setdefault(config["name"], [])
            same += [(kind, counting)] if (kind, counting) not in same else []
        return part

    def look(at: str, group: Any) -> None:
        arrays = [np.asarray(group[key]) for key in sorted(group)] if at.endswith(VARS) else []
        if _gates(arrays):
            place = at.removesuffix(VARS)
            own = group.file.get(f"{place}/vars")
            name = own.attrs.get("name", place) if own else place
            found[place if name in found else name] = arrays, known.get(name, [])

    try:
        if path.endswith(".keras"):
            with zipfile.ZipFile(path) as archive:
                json.loads(archive.read("config.json"), object_hook=note)
                file = io.BytesIO(archive.read("model.weights.h5"))
        with needs("keras"):
            import h5py
        with h5py.File(file) as opened:
            opened.visititems(look)
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise InputError(f"{path}: not a .keras or .weights.h5 file: {error}") from None
    return found


def _gates(weights: list[np.ndarray]) -> int:
    """Tell the number of gates by the shapes of kernels and bias; 0 for another kind of layer."""
    if [weight.ndim for weight in weights] not in ([2, 2], [2, 2, 1], [2, 2, 2]):
        return 0
    H, columns = weights[1].shape
    fits = all(weight.shape[-1] == columns for weight in weights)
    return next((gates for gates in NAMES if fits and 0 < columns == gates * H), 0)


def _module(where: str, weights: list[np.ndarray], kind: str, config: dict[str, Any]) -> Any:
    gates = _gates(weights)
    if not gates or (kind and kind != NAMES[gates]):
        what = f"{where} is a {kind}, no LSTM, GRU or SimpleRNN: of a model or wrapper pass"
        raise InputError(f"{what} the layer that is inside; of a cell save a .weights.h5 file")
    activation = config.get("activation", "tanh")
    allowed = ("tanh", "relu") if gates == 1 else ("tanh",)
    needed = NEEDED | {"activation": (activation if activation in allowed else "tanh", OWN_STEP)}
    given = {"reset_after": gates != 3 or weights[-1].ndim == 2} | config
    for key, (wanted, cure) in needed.items():
        if given.get(key, wanted) != wanted:
            raise InputError(f"{where} has {key}={given[key]!r}: {cure}")
    if weights[0].dtype.kind == "V" and weights[0].itemsize == 2:  # bfloat16: half of a float32
        weights = [(w.view(np.uint16).astype(np.uint32) << 16).view(np.float32) for w in weights]
    arrays = [weights[0].T, weights[1].T]
    if weights[2:]:
        arrays += [*weights[2]] if weights[2].ndim == 2 else [weights[2], np.zeros_like(weights[2])]
    if gates == 3:
        z, r, h = zip(*(np.split(array, 3) for array in arrays), strict=True)
        arrays = [np.concatenate(rows) for rows in zip(r, z, h, strict=True)]
    dtype = np.float64 if weights[0].dtype == np.float64 else np.float32
    tensors = [torch.from_numpy(np.array(array, dtype, order="C")) for array in arrays]
    return module_of(dict(zip(TORCH, tensors, strict=False)), activation, where)
