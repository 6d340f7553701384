"""Training the models of a cell. Needs no torch."""

import json
import os
import shutil
from itertools import product
from pathlib import Path
from typing import Any

from rnngrad.kept import run_kept
from rnngrad.live import make_experiment
from rnngrad.params import TrainParams
from rnngrad.stage import DIGEST, seal, whole
from rnngrad.workers import SCHEDULER

CODE = ("models", "data/batches.py", "data/tokenized.py")


def train_cell(cell: str, params: TrainParams, max_length: int | None, build: Path) -> None:
    """Make ``build/train/<cell>/`` from ``build/embed/``, one model per seed and padding.

    Each model has a folder ``<padding>/seed-<seed>``. It holds the state dicts init-<seed>.pt and
    trained-<seed>.pt. Its history.csv has seed, epoch, split, loss in nats and accuracy, its
    predictions.csv seed, comment, label and probability. Its test.json has metrics on the test
    split. One model_card.json is of all.
    """
    folder, unfinished = build / "train" / cell, build / "unfinished" / cell
    make_experiment()
    jobs = {}
    for padding, seed in product(params.padding, params.seeds):
        own = params.model_copy(update={"seeds": [seed], "padding": [padding]})
        # a Path would stand for the content that lies there
        jobs[f"{padding}/seed-{seed}"] = str(unfinished), cell, own, max_length, build / "embed"
    # each training tells of itself, but not where it runs on another machine
    doing = f"training the {cell}" if SCHEDULER in os.environ else None
    run_kept(f"{__name__}:_train", jobs, folder, code=CODE, doing=doing)
    found = json.loads((folder / next(iter(jobs)) / "test.json").read_text())
    card = {
        "cell": cell,
        "parameters": found["parameters"],
        "settings": params.model_dump(),
        "test_comments": found["comments"],
    }
    with whole(folder / "model_card.json") as path:
        path.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
    seal(folder)
    shutil.rmtree(unfinished, ignore_errors=True)


def _train(path: Path, unfinished: str, *job: Any) -> None:
    import torch  # it takes seconds, and Lightning, too: only the workers need them

    from rnngrad.models.training import train_model

    # Gradients die in a thousand steps of padding. As denormal numbers they would make the backward
    # pass some ten times slower, and change no digit of a weight.
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)  # whatever the environment says: another number rounds differently
    # with other settings, code or inputs a training starts anew
    checkpoints = Path(unfinished) / (path / DIGEST).read_text()[:16]
    train_model(path, checkpoints, *job)
