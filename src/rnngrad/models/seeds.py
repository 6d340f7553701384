"""Training all seeds of one cell, as many at a time as there are cores."""

from pathlib import Path

import torch

from rnngrad.data.batches import load_embedding
from rnngrad.models.results import TrainedSeed
from rnngrad.params import EmbedParams, TrainParams
from rnngrad.workers import run_jobs


def train_cell(
    cell: str, params: TrainParams, embed: EmbedParams, folder: Path, unfinished: Path
) -> list[TrainedSeed]:
    """Train one model per seed.

    Args:
        cell: ``rnn``, ``lstm`` or ``gru``.
        params: the cell's settings; its seeds say which models.
        embed: how comments are padded.
        folder: of the embedding stage.
        unfinished: folder of the checkpoints from which an interrupted training goes on.
    """
    jobs = [
        (cell, seed, params, embed, folder, unfinished / f"seed-{seed}", line)
        for line, seed in enumerate(params.seeds)
    ]
    return list(run_jobs(_train, jobs))


def _train(
    cell: str,
    seed: int,
    params: TrainParams,
    embed: EmbedParams,
    folder: Path,
    checkpoints: Path,
    line: int,
) -> TrainedSeed:
    # Lightning takes seconds to import: only the workers need it
    from rnngrad.data.datamodule import CommentData
    from rnngrad.models.training import train_seed

    # Gradients die on their way through a thousand steps of padding; as denormal numbers they would
    # make the backward pass some ten times slower, and change no digit of a weight.
    torch.set_flush_denormal(True)
    data = CommentData(
        *load_embedding(folder),
        padding=embed.padding,
        max_length=embed.max_length,
        batch_size=params.batch_size,
        seed=seed,
    )
    return train_seed(cell, seed, data, params, checkpoints, line)
