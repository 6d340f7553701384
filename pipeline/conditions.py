"""Stage 6: why is it zero? The question's setting, and one factor changed at a time.

Reads build/embed/ and build/train/. Every run has a folder, such as
build/conditions/lstm-1-0123456789ab-log/, see :func:`rnngrad.study.measure_run.measure_run`. In
build/conditions/, seeds.csv has every number of every condition, cell and weight seed. There
conditions.csv has their medians, and curves.csv log10 by step, the median over seeds and the range.
One more condition measures that condition alone.
"""

import quiet  # noqa: F401  # isort: skip

import sys
from pathlib import Path

from rnngrad.errors import InputError
from rnngrad.stage import run_stage, seal, whole

BUILD = Path("build")
CODE = (
    "compiled_probe.py",
    "data",
    "models",
    "plot.py",
    "probe",
    "study/__init__.py",
    "study/measure_run.py",
    "study/measures",
    "study/runs",
)


def main() -> None:
    from rnngrad.kept import run_kept
    from rnngrad.params import read_params
    from rnngrad.workers import start_workers

    start_workers("rnngrad.study.measure_run", "rnngrad.compiled_probe")
    params = read_params()

    from rnngrad.study import condition_tables as tables
    from rnngrad.study.runs import condition_jobs, conditions_of, job_name

    conditions = [*conditions_of(params)]
    measured = {condition.name for condition in conditions}
    if left_out := [case for case in params.conditions.cases if case not in measured]:
        left = ", ".join(left_out)
        print(f"conditions: train.padding or cells lack the models of {left}", file=sys.stderr)
    if not conditions:
        raise InputError("conditions.cases: no case is left; add one, or a value to train.padding")
    jobs, folder = condition_jobs(params, BUILD), BUILD / "conditions"
    function = "rnngrad.study.measure_run:measure_run"
    said = {
        job_name(each.run, how): f"{each.name}, {each.run.cell}, seed {each.run.seed}, {how}"
        for each in reversed(conditions)  # of equal runs the first case names them
        for how in ("log", each.reading.arithmetic)
    }
    run_kept(function, jobs, folder, code=CODE, doing="conditions", said=said)
    seeds, curves = tables.tabulate(conditions, folder)
    files = {
        "seeds.csv": (seeds, "%.6f"),
        "conditions.csv": (tables.over_seeds(seeds), "%.4f"),
        "curves.csv": (tables.curves_over_seeds(curves), "%.4f"),
    }
    for name, (table, digits) in files.items():
        with whole(folder / name) as path:
            table.to_csv(path, index=False, float_format=digits)
    seal(folder)


if __name__ == "__main__":
    run_stage(main)
