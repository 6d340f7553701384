"""Stage 7: what the claims are judged by, of one cell's models.

    python pipeline/evidence.py lstm

Reads build/train/<cell>/, build/probe/<cell>/ and build/embed/; writes build/evidence/<cell>/: one
CSV per kind of measurement, and triangles.npz (which steps a weight's gradient comes from).
"""

import operator
import sys
from pathlib import Path
from typing import Any

from rnngrad.params import read_params
from rnngrad.stage import run_stage, whole

BUILD = Path("build")


def main(cell: str) -> None:
    params = read_params()
    train = params.train_of(cell)

    import numpy as np

    from rnngrad.data.batches import load_embedding
    from rnngrad.study.evidence.cell import measure_cell
    from rnngrad.study.evidence.rates import measure_rates
    from rnngrad.study.probing import probe_inputs
    from rnngrad.workers import run_jobs

    sample, vectors = load_embedding(BUILD / "embed")
    weights, curves = BUILD / "train" / cell, BUILD / "probe" / cell / "comments.npz"
    inputs = probe_inputs(sample, vectors, params.embed, params.probe)
    seed = params.probe.seed
    jobs: list[Any] = [
        (measure_cell, cell, weights, train, sample, vectors, params.embed, seed),
        (measure_rates, cell, weights, curves, train, params.probe, inputs),
    ]
    found: list[Any] = list(run_jobs(operator.call, jobs))
    learned, rates = found
    with whole(BUILD / "evidence" / cell) as folder:
        folder.mkdir()
        for name, frame in (learned.frames() | rates).items():
            frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6f")
        np.savez_compressed(folder / "triangles.npz", allow_pickle=False, **learned.triangles)


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
