"""Training the seeds of a cell, and what they come to together. Needs no torch."""

import json
import shutil
from pathlib import Path
from typing import Any

from rnngrad.intervals import mean_interval
from rnngrad.kept import run_kept
from rnngrad.models.live import make_experiment
from rnngrad.params import EmbedParams, TrainParams
from rnngrad.stage import DIGEST, seal

CODE = ("models", "data")


def train_cell(cell: str, params: TrainParams, embed: EmbedParams, build: Path) -> None:
    """Make ``build/train/<cell>/`` from ``build/embed/``.

    It has a folder ``seed-<seed>`` per model: init-<seed>.pt and trained-<seed>.pt (state dicts),
    history.csv (seed, epoch, split, loss in nats, accuracy), predictions.csv (seed, comment,
    label, probability), test.json (metrics on the test split). And of all seeds together
    metrics.json and model_card.json.

    A model that was trained the same way is taken as it is, and a training that was interrupted
    goes on from its last epoch.

    Args:
        cell: ``rnn``, ``lstm`` or ``gru``.
        params: the cell's settings; its seeds say which models.
        embed: how comments are padded.
        build: folder of the stages' outputs.

    Raises:
        InputError: an input cannot be read, a training diverges, or a worker is ended.
    """
    folder, unfinished = build / "train" / cell, build / "unfinished" / cell
    padded = {"padding": embed.padding, "max_length": embed.max_length}
    make_experiment()
    jobs = {
        f"seed-{seed}": (
            cell,
            seed,
            params.model_copy(update={"seeds": [seed]}),
            padded,
            build / "embed",
            str(unfinished),  # as a Path it would stand for what lies there
        )
        for seed in params.seeds
    }
    run_kept(_train, jobs, folder, code=CODE, share_cores=True)
    _sum_up(cell, params, folder)
    shutil.rmtree(unfinished, ignore_errors=True)


def _train(
    path: Path,
    cell: str,
    seed: int,
    params: TrainParams,
    padded: dict[str, Any],
    embed: Path,
    unfinished: str,
) -> None:
    # torch and Lightning take seconds to import: only the workers need them
    import torch

    from rnngrad.data.batches import load_embedding
    from rnngrad.data.datamodule import CommentData
    from rnngrad.models.training import train_seed
    from rnngrad.workers import worker_number

    # Gradients die on their way through a thousand steps of padding; as denormal numbers they would
    # make the backward pass some ten times slower, and change no digit of a weight.
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)  # whatever the environment says: another number rounds differently
    data = CommentData(*load_embedding(embed), **padded, batch_size=params.batch_size, seed=seed)
    # with other settings, code or inputs a training starts anew
    checkpoints = Path(unfinished) / f"{seed}-{(path / DIGEST).read_text()[:16]}"
    train_seed(path, cell, seed, data, params, checkpoints, worker_number())


def _sum_up(cell: str, params: TrainParams, folder: Path) -> None:
    files = [folder / f"seed-{seed}" / "test.json" for seed in params.seeds]
    found = [json.loads(path.read_text()) for path in files]
    tests = {name: [one["metrics"][name] for one in found] for name in found[0]["metrics"]}
    metrics = {name: mean_interval(values) for name, values in tests.items()}
    card = {
        "cell": cell,
        "parameters": found[0]["parameters"],
        "settings": params.model_dump(),
        "test": {"per_seed": tests, "over_seeds": metrics},
        "test_comments": found[0]["comments"],
    }
    for name, content in (("metrics", metrics), ("model_card", card)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    seal(folder)
