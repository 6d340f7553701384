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


def main(cell: str) -> None:
    params = read_params()
    train = params.train_of(cell)

    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from rnngrad.data.batches import load_embedding
    from rnngrad.study.probing import probe_inputs, probe_model, summarize
    from rnngrad.study.results import WEIGHTS
    from rnngrad.workers import run_jobs

    inputs = probe_inputs(*load_embedding(Path("build/embed")), params.embed, params.probe)
    shared = (cell, Path(f"build/train/{cell}"), train, params.probe, inputs)
    jobs = [(*shared, seed, weights) for seed in train.seeds for weights in WEIGHTS]
    models = run_jobs(probe_model, jobs)
    probed = list(tqdm(models, f"probing {cell}", total=len(jobs), unit="model", disable=None))
    with whole(f"build/probe/{cell}") as folder:
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
