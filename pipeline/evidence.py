"""Stage 7: what the claims are judged by, of one cell's models.

    python pipeline/evidence.py lstm

Reads build/train/<cell>/, build/probe/<cell>/ and build/embed/; writes build/evidence/<cell>/: one
CSV per kind of measurement, and triangles.npz (which steps a weight's gradient comes from).
"""

import sys
from pathlib import Path

from rnngrad.params import read_params
from rnngrad.stage import run_stage, whole
from rnngrad.workers import start_workers

BUILD = Path("build")


def main(cell: str) -> None:
    start_workers("rnngrad.study.evidence.measuring")
    params = read_params()

    import numpy as np

    from rnngrad.study.evidence.cell import measure_cell

    found = measure_cell(cell, BUILD, params)
    with whole(BUILD / "evidence" / cell) as folder:
        folder.mkdir()
        for name, frame in found.frames.items():
            frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6f")
        np.savez_compressed(folder / "triangles.npz", allow_pickle=False, **found.triangles)


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
