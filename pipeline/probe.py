"""Stage 5: Jacobian curves of one cell's models on test comments.

    python pipeline/probe.py lstm

Reads build/train/<cell>/ and build/embed/; writes build/probe/<cell>/: curves.csv (summary over
comments, long form), gates.csv (an LSTM's or GRU's gate activations), comments.npz (log10 curves
of every comment).
"""

import sys
from pathlib import Path

from rnngrad.params import read_params
from rnngrad.stage import run_stage, whole
from rnngrad.workers import start_workers

BUILD = Path("build")


def main(cell: str) -> None:
    start_workers("rnngrad.study.probing")
    params = read_params()

    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from rnngrad.study.probed import probe_cell, summarize
    from rnngrad.study.results import WEIGHTS

    models, total = probe_cell(cell, BUILD, params), len(WEIGHTS) * len(params.train_of(cell).seeds)
    probed = list(tqdm(models, f"probing {cell}", total=total, unit="model", disable=None))
    with whole(BUILD / "probe" / cell) as folder:
        folder.mkdir()
        curves = pd.concat([summarize(cell, model) for model in probed], ignore_index=True)
        curves.to_csv(folder / "curves.csv", index=False, float_format="%.6f")
        gates = [
            model.gates.assign(cell=cell, seed=model.seed, weights=model.weights)
            for model in probed
            if model.gates is not None
        ]
        if gates:
            pd.concat(gates).to_csv(folder / "gates.csv", index=False, float_format="%.6g")
        arrays = {
            f"{model.weights}-{model.seed}-{statistic}": values.astype(np.float32)
            for model in probed
            for statistic, values in model.log10.items()
        }
        np.savez_compressed(folder / "comments.npz", allow_pickle=False, **arrays)


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
