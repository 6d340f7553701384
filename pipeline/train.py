"""Stage 4: train one model per seed of a cell.

    python pipeline/train.py rnn

DVC names the cell in DVC_STAGE. A cell that params.yaml does without is not trained.

Writes build/train/<cell>/: init-<seed>.pt and trained-<seed>.pt (state dicts), history.csv,
predictions.csv, metrics.json. Interrupted, it goes on from the last finished epoch when it is
started again.
"""

import hashlib
import shutil
import sys
from pathlib import Path

import rnngrad
from rnngrad.errors import InputError
from rnngrad.params import TrainParams, read_params
from rnngrad.stage import cell_of_stage, leave_out, run_stage, whole
from rnngrad.workers import start_workers

EMBED = Path("build/embed")
# What an epoch's outcome depends on, in the package
CODE = ("models/*.py", "data/*.py")


def main(cell: str) -> None:
    start_workers("rnngrad.models.training")
    params = read_params()
    if params.lacks(cell):
        leave_out(f"build/train/{cell}")
        return
    train = params.train_of(cell)

    from rnngrad.models.results import write_results
    from rnngrad.models.seeds import train_cell

    unfinished = _unfinished(cell, train, params.embed.padding, params.embed.max_length)
    trained = train_cell(cell, train, params.embed, EMBED, unfinished)
    with whole(f"build/train/{cell}") as folder:
        write_results(folder, cell, train, trained)
    shutil.rmtree(unfinished)


def _unfinished(cell: str, train: TrainParams, *more: object) -> Path:
    # Settings, code and inputs that the weights depend on are in the name: with others, training
    # starts anew.
    key = hashlib.sha256(repr((train, *more)).encode())
    package = Path(rnngrad.__path__[0])
    code = [path for pattern in CODE for path in sorted(package.glob(pattern))]
    for path in (*code, EMBED / "tokens.npz", EMBED / "vectors.npy"):
        try:
            key.update(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path}: cannot be read; run the embed stage") from error
    return Path(f"build/unfinished/train-{cell}-{key.hexdigest()[:16]}")


if __name__ == "__main__":
    run_stage(main, *(sys.argv[1:] or cell_of_stage()))
