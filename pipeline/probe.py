"""Stage 5: Jacobian curves of one cell's models, and what the claims are judged by.

    python pipeline/probe.py lstm

A cell that params.yaml does without is not probed.

Reads build/train/<cell>/ and build/embed/. Writes a folder for every model, such as
build/probe/<cell>/trained-1/, see :func:`rnngrad.study.measures.measure_model`. One more seed
probes its models alone.
"""

import quiet  # noqa: F401  # isort: skip

import sys
from pathlib import Path

from rnngrad.stage import leave_out, run_stage

BUILD = Path("build")
CODE = (
    "compiled_probe.py",
    "data",
    "intervals.py",
    "models",
    "plot.py",
    "probe",
    "study/__init__.py",
    "study/measures",
    "study/results.py",
    "study/runs",
)


def main(cell: str) -> None:
    from rnngrad.kept import run_kept
    from rnngrad.params import read_params
    from rnngrad.workers import start_workers

    start_workers("rnngrad.study.measures", "rnngrad.compiled_probe")
    params = read_params()
    if not params.has(cell):
        leave_out(BUILD / "probe" / cell)
        return

    from rnngrad.study.runs import probe_jobs

    jobs, folder = probe_jobs(params, cell, BUILD), BUILD / "probe" / cell
    function = "rnngrad.study.measures:measure_model"
    run_kept(function, jobs, folder, code=CODE, doing=f"probing {cell}")


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
