"""Stage 5: Jacobian curves of one cell's models, and what the claims are judged by.

    python pipeline/probe.py lstm

DVC names the cell in DVC_STAGE. A cell that params.yaml does without is not probed.

Reads build/train/<cell>/ and build/embed/. Writes build/probe/<cell>/: curves.csv (summary over
comments, long form), gates.csv (an LSTM's or GRU's gate activations), comments.npz (log10 curves
of every comment); and build/evidence/<cell>/: one CSV per kind of measurement, and triangles.npz
(which steps a weight's gradient comes from).
"""

import sys
from pathlib import Path

from rnngrad.params import read_params
from rnngrad.stage import cell_of_stage, leave_out, run_stage, whole
from rnngrad.workers import start_workers

BUILD = Path("build")


def main(cell: str) -> None:
    start_workers(
        "rnngrad.study.probing", "rnngrad.study.evidence.measuring", "rnngrad.compiled_probe"
    )
    params = read_params()
    if params.lacks(cell):
        leave_out(BUILD / "probe" / cell, BUILD / "evidence" / cell)
        return

    import numpy as np
    import pandas as pd

    from rnngrad.study.evidence.cell import measure_cell
    from rnngrad.study.probed import summarize

    found = measure_cell(cell, BUILD, params)
    with whole(BUILD / "probe" / cell) as folder, whole(BUILD / "evidence" / cell) as evidence:
        folder.mkdir()
        curves = pd.concat([summarize(cell, model) for model in found.probed], ignore_index=True)
        curves.to_csv(folder / "curves.csv", index=False, float_format="%.6f")
        gates = [
            model.gates.assign(cell=cell, seed=model.seed, weights=model.weights)
            for model in found.probed
            if model.gates is not None
        ]
        if gates:
            pd.concat(gates).to_csv(folder / "gates.csv", index=False, float_format="%.6g")
        arrays = {
            f"{model.weights}-{model.seed}-{statistic}": values.astype(np.float32)
            for model in found.probed
            for statistic, values in model.log10.items()
        }
        np.savez_compressed(folder / "comments.npz", allow_pickle=False, **arrays)
        evidence.mkdir()
        for name, frame in found.frames.items():
            frame.to_csv(evidence / f"{name}.csv", index=False, float_format="%.6f")
        np.savez_compressed(evidence / "triangles.npz", allow_pickle=False, **found.triangles)


if __name__ == "__main__":
    run_stage(main, *(sys.argv[1:] or cell_of_stage()))
