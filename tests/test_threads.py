"""The number of threads that the environment asks for changes no result."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rnngrad.data.tokenized import TokenizedSample

ROOT = Path(__file__).parent.parent
NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DOMAIN_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# as large as it takes for two threads to share a product, and to round its sums otherwise
CODE = f"""
import hashlib
from pathlib import Path
from rnngrad.models.seeds import train_cell
from rnngrad.params import read_params
from rnngrad.study.measures import measure_model
from rnngrad.study.runs import probe_jobs

def main():
    params = read_params({str(ROOT / "params.yaml")!r})
    train = params.train.model_copy(update=dict(seeds=[1], padding=["pre"], hidden=64, epochs=1))
    probe = params.probe.model_copy(update=dict(comments=2))
    params = params.model_copy(update=dict(train=train, probe=probe))
    build = Path("build")
    train_cell("rnn", train, None, build)
    for path in sorted((build / "train").rglob("*.*")):
        print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    for name, job in probe_jobs(params, "rnn", build).items():
        folder = build / "probe" / name
        folder.mkdir(parents=True)
        measure_model(folder, *job)
        for path in sorted(folder.iterdir()):
            print(name, path.name, hashlib.sha256(path.read_bytes()).hexdigest())

if __name__ == "__main__":
    main()
"""


def results(folder: Path, **environment: str) -> list[str]:
    """The lines that the code prints: each result with its checksum."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 20, 40)
    sample = TokenizedSample(
        tokens=rng.integers(1, 300, lengths.sum()).astype(np.int32),
        offsets=np.append(0, np.cumsum(lengths)),
        labels=(np.arange(40) % 2).astype(np.int8),
        splits=np.resize(["train", "train", "validation", "test"], 40).astype("U10"),
        telling_distance=np.full(40, np.nan, dtype=np.float32),
    )
    vectors = rng.standard_normal((301, 100)).astype(np.float32)
    embed = folder / "build" / "embed"
    embed.mkdir(parents=True)
    sample.save(embed / "tokens.npz")
    np.save(embed / "vectors.npy", vectors)
    (folder / "run.py").write_text(CODE)
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(ROOT / "src")} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.slow
def test_no_result_depends_on_the_threads_that_the_environment_asks_for(tmp_path: Path) -> None:
    one = results(tmp_path / "one", OMP_NUM_THREADS="1")
    assert len(one) > 10
    assert results(tmp_path / "two", OMP_NUM_THREADS="2", MKL_NUM_THREADS="2") == one
