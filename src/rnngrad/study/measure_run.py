"""One run of the conditions: the statistics of its Jacobian, in one arithmetic."""

from bisect import bisect_left
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import rnngrad
from rnngrad.data.batches import load_embedding
from rnngrad.params import TrainParams
from rnngrad.study.measures.curves import STATISTICS, log_spaced_steps
from rnngrad.study.open_model import Opened, State, open_model
from rnngrad.study.runs import Run

RECORDED = 25  # log-spaced steps at which costly readings are taken
WINDOW = 20  # steps that the question looked at, at either end
SMALLEST_NORMAL = float(np.log10(np.finfo(np.float32).tiny))
BEFORE, AFTER = 4, 28  # steps around a guess at float32's first zero


def measure_run(
    folder: Path,
    run: Run,
    arithmetic: str,
    embed: Path,
    file: Path | None = None,
    train: TrainParams | None = None,
) -> None:
    """Write log10.npz into a run's folder.

    The arrays are (B, T) log10 by statistic, NaN at steps where it was not taken; words, the ranges
    of steps (from 0) at which the examples read words; and units, H. The arithmetic log has all
    statistics and zero_from, see :func:`float32_zero_from`, 0 for never; others the column sum.

    Args:
        folder: is there.
        run: says what is run.
        arithmetic: log | float64 | float32 | float32_flushed.
        embed: folder of the stage embed.
        file, train: see :func:`rnngrad.study.open_model.open_model`.

    Raises:
        InputError: the embedding or the weights are missing or another model's.
    """
    model = open_model(run, load_embedding(embed), file, train)
    arrays: dict[str, NDArray] = {
        "words": np.array([(words.start, words.stop) for words in model.inputs.words]),
        "units": np.array(model.module.hidden_size),
    }
    if arithmetic == "log":
        arrays |= _true(run, model)
    else:
        arrays["column_sum"] = _autograd(run, model, arithmetic)
    np.savez_compressed(folder / "log10.npz", allow_pickle=False, **arrays)


def _true(run: Run, model: Opened) -> dict[str, NDArray]:
    module, (x, *_), start = model.module, model.inputs, model.start
    found = rnngrad.jacobian_curves(
        module,
        x,
        start,
        state=run.state,
        statistics=STATISTICS,
        spectral_steps=_recorded(model),
    )
    zero = float32_zero_from(module, x, start, run.state, found.log10_column_sum)
    curves = {name: getattr(found, f"log10_{name}") for name in STATISTICS}
    return curves | {"zero_from": np.array(zero or 0)}


def _autograd(run: Run, model: Opened, arithmetic: str) -> NDArray[np.float64]:
    """Return log10 of autograd's column sums in this arithmetic; NaN at steps not recorded."""
    T, at, flush = model.inputs.x.shape[1], _recorded(model), arithmetic == "float32_flushed"
    if flush:  # the arithmetic in which the question looked at its last steps as well
        at = sorted({*at, *range(max(T - WINDOW, 0) + 1, T + 1)})
    sums = rnngrad.autograd_column_sums(
        model.module,
        model.inputs.x,
        model.start,
        state=run.state,
        dtype=torch.float64 if arithmetic == "float64" else torch.float32,
        flush=flush,
        steps=at,
    )
    with np.errstate(divide="ignore"):
        return np.log10(sums)


def _recorded(model: Opened) -> list[int]:
    """Steps (from 1) at which costly readings are taken."""
    T = model.inputs.x.shape[1]
    ends = {end for words in model.inputs.words for end in (words.start, words.stop)}
    return sorted({*log_spaced_steps(T, RECORDED), *range(1, min(T, WINDOW) + 1), *ends} - {0})


def float32_zero_from(
    module: nn.RNNBase, x: Tensor, start: State, state: str, log10: NDArray[np.float64]
) -> int | None:
    """The first step from which autograd's flushed float32 result is zero in every entry.

    It is looked for first where the true mean passes the smallest normal number: the largest
    entries follow it within some steps. The result is taken to stay zero once it is.

    Args:
        module, x, start: what reads what, and from which state.
        state: d s_t/d s_0 of h or c.
        log10: (B, T), the true column sum of it.

    Returns:
        The step, from 1; None if the result is not zero at the last one.
    """

    def zero(at: range) -> list[bool]:
        # later steps need not be run
        sums = rnngrad.autograd_column_sums(
            module, x[:, : at[-1]], start, state=state, flush=True, steps=[*at]
        )
        return (sums[:, at.start - 1 :] == 0).all(axis=0).tolist()

    below = np.flatnonzero((log10 < SMALLEST_NORMAL).all(axis=0))
    if not len(below):
        return None
    all_steps = range(1, x.shape[1] + 1)
    near = all_steps[max(below[0] - BEFORE, 0) : below[0] + AFTER]
    found = zero(near)
    if found[-1] and not found[0]:
        return near[found.index(True)]
    step = 1 + bisect_left(all_steps, True, key=lambda step: zero(range(step, step + 1))[0])
    return step if step in all_steps else None
