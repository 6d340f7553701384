"""The stages of the default study, from nothing, in a clone of the last commit."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.turns import Problem, Turn

STARTS = "Running stage '"


def stages(problem: Problem) -> Turn:
    # the study sets its numbers of threads itself
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as clone:
        subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
        with subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "--force"], cwd=clone,
            env=environment | {"PATH": path, "PYTHONPATH": f"{clone}/src"},
            stdout=subprocess.PIPE, text=True,
        ) as dvc:  # fmt: skip
            lines = [(perf_counter(), line) for line in dvc.stdout or ()]
        if dvc.returncode:
            raise RuntimeError("dvc repro failed: no times")
    seconds = stage_seconds([*lines, (perf_counter(), STARTS)])
    return Turn(sum(seconds.values()), {name: np.array(s) for name, s in seconds.items()})


def stage_seconds(lines: Iterable[tuple[float, str]]) -> dict[str, float]:
    """From each line that says that a stage runs to the next such line."""
    starts = [(now, line[len(STARTS) :].split("'")[0]) for now, line in lines if STARTS in line]
    return {name: round(end - now, 1) for (now, name), (end, _) in pairwise(starts)}
