"""What the claims about rates are judged by: paths of the LSTM, powers of the RNN."""

from pathlib import Path

import numpy as np
import pandas as pd

from rnngrad.errors import InputError
from rnngrad.params import ProbeParams, TrainParams
from rnngrad.study.evidence.path_rates import measure_paths
from rnngrad.study.evidence.recurrent_powers import measure_powers
from rnngrad.study.evidence.weight_gradient_shares import tutorial_table
from rnngrad.study.probing import ProbeInputs


def measure_rates(
    cell: str,
    weights: Path,
    curves: Path,
    train: TrainParams,
    probe: ProbeParams,
    inputs: ProbeInputs,
) -> dict[str, pd.DataFrame]:
    """Frames by name: ``paths`` and ``tutorial`` of an LSTM, ``powers`` of an RNN, none of a GRU.

    Args:
        cell: ``rnn``, ``lstm`` or ``gru``.
        weights: folder of the cell's training.
        curves: the probe stage's comments.npz of this cell.
        train, probe, inputs: those of the probe stage.

    Raises:
        InputError: a weight file or the curves are missing or another model's.
    """
    if cell == "gru":
        return {}
    try:
        with np.load(curves, allow_pickle=False) as file:
            found = dict(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{curves}: no curves; run the probe stage") from error
    if cell == "rnn":
        return {"powers": measure_powers(weights, train, probe, inputs, found)}
    paths = measure_paths(weights, train, probe, inputs, found)
    return {"paths": paths, "tutorial": tutorial_table()}
