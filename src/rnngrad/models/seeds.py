"""Training all seeds of one cell on all cores."""

from pathlib import Path

from rnngrad.models.live import make_experiment
from rnngrad.models.results import SeedResult
from rnngrad.params import EmbedParams, TrainParams
from rnngrad.workers import pool


def train_cell(
    cell: str, params: TrainParams, embed: EmbedParams, folder: Path, unfinished: Path
) -> list[SeedResult]:
    """Train one model per seed.

    Args:
        cell: ``rnn``, ``lstm`` or ``gru``.
        params: the cell's settings; its seeds say which models.
        embed: how comments are padded.
        folder: of the embedding stage.
        unfinished: folder of the checkpoints from which an interrupted training goes on; the files
            of the weights lie there, too.
    """
    make_experiment()
    jobs = [
        (cell, seed, params, embed, folder, unfinished / f"seed-{seed}", turn)
        for turn, seed in enumerate(params.seeds)
    ]
    with pool(len(jobs), share_cores=True) as executor:
        futures = [executor.submit(_train, *job) for job in jobs]
        return [future.result() for future in futures]


def _train(
    cell: str,
    seed: int,
    params: TrainParams,
    embed: EmbedParams,
    folder: Path,
    checkpoints: Path,
    turn: int,
) -> SeedResult:
    # torch and Lightning take seconds to import: only the workers need them
    import torch

    from rnngrad.data.batches import load_embedding
    from rnngrad.data.datamodule import CommentData
    from rnngrad.models.training import train_seed
    from rnngrad.models.weights import weight_file

    # Gradients die on their way through a thousand steps of padding; as denormal numbers they would
    # make the backward pass some ten times slower, and change no digit of a weight.
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)  # whatever the environment says: another number rounds differently
    data = CommentData(
        *load_embedding(folder),
        padding=embed.padding,
        max_length=embed.max_length,
        batch_size=params.batch_size,
        seed=seed,
    )
    found = train_seed(cell, seed, data, params, checkpoints, turn)
    states = {"init": found.initial, "trained": found.trained}
    files = {weight_file(checkpoints, name, seed): state for name, state in states.items()}
    for path, state in files.items():
        torch.save(state, path)
    parameters = sum(value.numel() for value in found.initial.values())
    return SeedResult((*files,), parameters, found.history, found.predictions, found.test)
