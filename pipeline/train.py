"""Stage 4: train one model per seed of a cell.

    python pipeline/train.py rnn

Writes build/train/<cell>/: init-<seed>.pt and trained-<seed>.pt (state dicts), history.csv,
predictions.csv, metrics.json. Interrupted, it goes on from the last finished epoch when it is
started again.
"""

import hashlib
import shutil
import sys
from pathlib import Path

from rnngrad.params import TrainParams, read_params
from rnngrad.stage import run_stage, whole

EMBED = Path("build/embed")


def main(cell: str) -> None:
    params = read_params()
    train = params.train_of(cell)

    from rnngrad.data.batches import load_embedding
    from rnngrad.data.datamodule import CommentData
    from rnngrad.models.results import write_results
    from rnngrad.models.training import train_cell

    sample, vectors = load_embedding(EMBED)
    unfinished = _unfinished(cell, train, params.embed.padding, params.embed.max_length)
    data = {
        seed: CommentData(
            sample,
            vectors,
            padding=params.embed.padding,
            max_length=params.embed.max_length,
            batch_size=train.batch_size,
            seed=seed,
        )
        for seed in train.seeds
    }
    trained = train_cell(cell, train, data, unfinished)
    with whole(f"build/train/{cell}") as folder:
        write_results(folder, cell, train, trained)
    shutil.rmtree(unfinished)


def _unfinished(cell: str, train: TrainParams, *more: object) -> Path:
    # The name holds everything that the weights depend on: other settings never resume from here.
    key = hashlib.sha256(repr((train, *more)).encode())
    for name in ("tokens.npz", "vectors.npy"):
        key.update((EMBED / name).read_bytes())
    return Path(f"build/unfinished/train-{cell}-{key.hexdigest()[:16]}")


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
