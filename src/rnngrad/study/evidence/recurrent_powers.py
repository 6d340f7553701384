"""Is the gradient of a tanh RNN that of powers of its recurrent kernel?

d h_t/d h_0 = D_t W ... D_1 W with D = diag(tanh'(a)). Where tanh' = 1 it is W^t, which grows or
decays by log10 of W's spectral radius per step; the largest singular value bounds any step. The
kernels of untrained models are also scaled to spectral radii on either side of 1.

Source: Pascanu, Mikolov and Bengio (2013), "On the difficulty of training recurrent neural
networks", section 2.1.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import rnngrad
from rnngrad.models.weights import load_classifier, weight_file
from rnngrad.params import ProbeParams, TrainParams
from rnngrad.study.evidence.stretches import change_per_step, most_of_both, settled_stretches
from rnngrad.study.probing import ProbeInputs, initial_state
from rnngrad.study.results import WEIGHTS

SCALED_TO = (0.9, 1.1)  # spectral radii
COLUMNS = [
    "input",
    "spectral_radius",
    "largest_singular_value",
    "predicted",
    "measured",
    "tanh_slope",
]


def measure_powers(
    folder: Path,
    train: TrainParams,
    probe: ProbeParams,
    inputs: ProbeInputs,
    curves: Mapping[str, NDArray[np.float32]],
) -> pd.DataFrame:
    """:func:`recurrent_powers` of every RNN of the study.

    Args:
        folder: where the training of the RNNs has left their weights.
        train, probe, inputs: those of the probe stage.
        curves: what the probe stage has found, (B, T) each: ``init-1-frobenius``, ...

    Returns:
        Columns: cell, seed, weights (init | trained | radius 0.9 | radius 1.1, ``init`` with its
        recurrent kernel scaled to that, on one comment), and those of :func:`recurrent_powers`.

    Raises:
        InputError: a weight file is missing or another model's.
    """
    parts = []
    for seed in train.seeds:
        for weights in WEIGHTS:
            path = weight_file(folder, weights, seed)
            module = load_classifier(path, "rnn", inputs.inputs.shape[2], train).recurrent
            start = cast("Tensor", initial_state(module, len(inputs.inputs), probe))
            log10 = curves[f"{weights}-{seed}-frobenius"]
            frames = {weights: recurrent_powers(module, inputs, start, log10)}
            if weights == "init":
                frames |= {f"radius {r}": _at_radius(r, module, inputs, start) for r in SCALED_TO}
            for name, frame in frames.items():
                names = {"cell": "rnn", "seed": seed, "weights": name}
                parts.append(frame.assign(**names)[[*names, *COLUMNS]])
    return pd.concat(parts, ignore_index=True)


def recurrent_powers(
    module: nn.RNNBase, inputs: ProbeInputs, state: Tensor, log10: NDArray[np.floating]
) -> pd.DataFrame:
    """What the recurrent kernel predicts, and what is measured.

    Args:
        module: a tanh RNN of one layer.
        inputs, state: what it reads, and h_0 (1, B, H).
        log10: (B, T), log10 of the Frobenius norm of d h_t/d h_0.

    Returns:
        A row per input (padding | words) that occurs. Columns: spectral_radius and
        largest_singular_value of W_hh; predicted (log10 of the former) and measured, in decades per
        step; tanh_slope (mean of tanh' over units and steps). The first 100 steps of padding of a
        comment do not count.
    """
    W = cast("Tensor", module.weight_hh_l0).detach().double()
    radius = spectral_radius(W)
    with torch.no_grad():
        slopes = (1 - module(inputs.inputs, state)[0].double().square()).numpy().mean(axis=2)
    rows = []
    for name, where in settled_stretches(inputs.steps()).items():
        if where:
            at = [slopes[stretch.example, stretch.steps] for stretch in where]
            rows.append(
                {
                    "input": name,
                    "spectral_radius": radius,
                    "largest_singular_value": float(torch.linalg.matrix_norm(W, 2)),
                    "predicted": float(np.log10(radius)),
                    "measured": change_per_step(log10, where),
                    "tanh_slope": float(np.concatenate(at).mean()),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def spectral_radius(W: Tensor) -> float:
    """The largest |eigenvalue|."""
    return float(torch.linalg.eigvals(W).abs().max())


def _at_radius(
    wanted: float, module: nn.RNNBase, inputs: ProbeInputs, state: Tensor
) -> pd.DataFrame:
    """The same with W_hh scaled to a spectral radius, on one comment that has both inputs."""
    model = copy.deepcopy(module)
    W = cast("Tensor", model.weight_hh_l0)
    with torch.no_grad():
        W *= wanted / spectral_radius(W.double())
    one = most_of_both(inputs.steps())
    rows = slice(one, one + 1)
    own = ProbeInputs(inputs.inputs[rows], inputs.lengths[rows], inputs.is_word[rows])
    h = state[:, rows].contiguous()
    curves = rnngrad.jacobian_curves(
        model, own.inputs, h, lengths=own.lengths, method="sketch", statistics=["frobenius"]
    )
    return recurrent_powers(model, own, h, curves.log10_frobenius)
