"""Stage 4: train one model per padding and seed of a cell.

    python pipeline/train.py rnn

A cell that params.yaml does without is not trained.

Writes build/train/<cell>/, see :func:`rnngrad.models.seeds.train_cell`. One more seed
or padding trains the models that are new. Interrupted, it goes on from the last finished epoch when
it is started again.
"""

import quiet  # noqa: F401  # isort: skip

import sys
from pathlib import Path

from rnngrad.stage import leave_out, run_stage

BUILD = Path("build")


def main(cell: str) -> None:
    from rnngrad.params import read_params
    from rnngrad.workers import start_workers

    start_workers("rnngrad.models.training")
    params = read_params()
    if not params.has(cell):
        leave_out(BUILD / "train" / cell)
        return
    train = params.train_of(cell)

    from rnngrad.models.seeds import train_cell

    train_cell(cell, train, params.embed.max_length, BUILD)


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
