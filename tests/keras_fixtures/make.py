"""Make the fixtures of tests/test_keras.py with Keras: ``python tests/keras_fixtures/make.py``.

Needs the packages in requirements.txt beside this file, in an environment of their own; writes
into this folder or into the one named. outputs.npz has inputs and Keras' outputs of model.keras.
"""

# pyright: reportMissingImports=false

import os
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

os.environ.setdefault("KERAS_BACKEND", "jax")  # the quickest to install and to import

import keras
import numpy as np
from keras import layers

FEATURES, STEPS, BATCH = 3, 7, 2


def randomise(model: keras.Model, seed: int) -> None:
    """Biases that are zero could be forgotten, and a forget bias of one, too."""
    rng = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([rng.uniform(-0.9, 0.9, shape).astype(np.float32) for shape in shapes])


def models() -> dict[str, keras.Model]:
    """By file name; the first has layers of every kind, one of them inside another model."""
    inner = keras.Sequential([layers.LSTM(2, return_sequences=True, name="inner")], name="block")
    several = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            layers.LSTM(4, return_sequences=True, name="encoder"),
            layers.GRU(3, return_sequences=True, name="gru"),
            layers.SimpleRNN(4, activation="relu", return_sequences=True, name="relu"),
            inner,
            layers.SimpleRNN(3, use_bias=False, return_sequences=True, name="plain"),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both"),
            layers.Dense(1, name="head"),
        ]
    )
    single = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.GRU(4, name="only")])
    return {"model": several, "single": single}


def outputs(model: keras.Model) -> dict[str, np.ndarray]:
    """Inputs and outputs of every recurrent layer, as Keras computes them."""
    found = {}
    flat = [*model.layers, *model.get_layer("block").layers]
    flat.append(model.get_layer("both").forward_layer)
    for layer in flat:
        if isinstance(layer, layers.LSTM | layers.GRU | layers.SimpleRNN):
            features = layer.get_weights()[0].shape[0]
            x = np.random.default_rng(features).standard_normal((BATCH, STEPS, features))
            found[f"{layer.name}_inputs"] = x.astype(np.float32)
            found[f"{layer.name}_outputs"] = np.asarray(layer(x.astype(np.float32)))
    return found


def save(model: keras.Model, path: Path) -> None:
    """As Keras does it, and compressed: most of a small HDF5 file is zeros."""
    model.save(path)
    with ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def main(folder: Path) -> None:
    """Write all files."""
    for number, (name, model) in enumerate(models().items()):
        randomise(model, number)
        save(model, folder / f"{name}.keras")
        if name == "model":
            np.savez(folder / "outputs.npz", allow_pickle=False, **outputs(model))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
