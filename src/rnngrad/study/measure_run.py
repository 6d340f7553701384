"""One run of the conditions: the statistics of its Jacobian, in one arithmetic."""

from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import rnngrad
from rnngrad.data.batches import load_embedding
from rnngrad.plot import FLOAT32_NORMAL
from rnngrad.study.measures.curves import jacobian_curves, log_spaced_steps
from rnngrad.study.runs import Run
from rnngrad.study.runs.open_model import Opened, open_model

WINDOW = 20  # steps that the question looked at, at either end
BEFORE, AFTER = 4, 28  # steps around a guess at float32's first zero


def measure_run(folder: Path, run: Run, arithmetic: str, embed: Path, *training: Any) -> None:
    """Write log10.npz: the statistics by name, (B, T) log10, NaN at steps that were not recorded.

    words are the ranges of steps (from 0) at which the examples read words; units is H. The
    arithmetic log has all statistics, and zero_from, see :func:`float32_zero_from`, 0 for never;
    the others have the column sum. ``training`` as in `open_model`. An embedding (of the folder
    ``embed``) or weights that are missing or damaged are an `InputError`.
    """
    model = open_model(run, load_embedding(embed), *training)
    words = np.array([(words.start, words.stop) for words in model.inputs.words])
    # costly readings are taken at some steps (from 1) alone, of which 25 are log-spaced
    T, flush = model.inputs.x.shape[1], arithmetic == "float32_flushed"
    at = {*log_spaced_steps(T, 25), *range(1, min(T, WINDOW) + 1), *words.ravel().tolist()}
    if flush:  # the arithmetic in which the question looked at its last steps as well
        at |= {*range(max(T - WINDOW, 0) + 1, T + 1)}
    steps = sorted(at - {0})
    if arithmetic == "log":
        found: dict[str, Any] = jacobian_curves(model, steps)
        found["zero_from"] = float32_zero_from(model, found["column_sum"]) or 0
    else:
        dtype = torch.float64 if arithmetic == "float64" else torch.float32
        sums = _autograd_column_sums(model, dtype=dtype, flush=flush, steps=steps)
        with np.errstate(divide="ignore"):
            found = {"column_sum": np.log10(sums)}
    units = model.module.hidden_size
    np.savez_compressed(folder / "log10.npz", words=words, units=units, **found)


def _autograd_column_sums(model: Opened, **how: Any) -> NDArray[np.float64]:
    x = model.inputs.x[:, : how["steps"][-1]]  # later steps need not be run
    state = model.run.state
    return rnngrad.autograd_column_sums(model.module, x, model.start, state=state, **how)


def float32_zero_from(model: Opened, log10: NDArray[np.float64]) -> int | None:
    """The first step (from 1) from which autograd's flushed float32 stays zero; None for never.

    The search begins where the true column sums, log10 (B, T), pass the smallest normal number.
    The largest entries follow them within some steps.
    """

    def zero(at: range) -> list[bool]:
        sums = _autograd_column_sums(model, flush=True, steps=[*at])
        return (sums[:, at.start - 1 :] == 0).all(axis=0).tolist()

    below = np.flatnonzero((log10 < FLOAT32_NORMAL).all(axis=0))
    if not len(below):
        return None
    steps = range(1, log10.shape[1] + 1)
    near = steps[max(below[0] - BEFORE, 0) : below[0] + AFTER]
    found = zero(near)
    if found[-1] and not all(found):
        return near[len(found) - found[::-1].index(False)]
    step = 1 + bisect_left(steps, True, key=lambda step: zero(range(step, step + 1))[0])
    return step if step in steps else None
