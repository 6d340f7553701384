"""Stage 6: why is it zero? The question's setting, and one factor changed at a time.

Reads build/embed/ and build/train/; writes build/conditions/: seeds.csv (every number of every
condition, cell and weight seed), conditions.csv (the medians), and curves.csv (log10 by
step, median over seeds and their range).
"""

from pathlib import Path

from rnngrad.params import read_params
from rnngrad.stage import run_stage, whole
from rnngrad.workers import start_workers

BUILD = Path("build")


def main() -> None:
    start_workers("rnngrad.study.conditions.measuring", "rnngrad.compiled_probe")
    params = read_params()

    import pandas as pd
    from tqdm import tqdm

    from rnngrad.study.conditions import jobs, table

    cases = jobs.jobs_of(params, params.embed.dimensions)
    distinct = jobs.distinct(job for case in cases.values() for job in case)
    results = jobs.measure(distinct, params, BUILD)
    measured = list(tqdm(results, "conditions", total=len(distinct), unit="model", disable=None))
    rows, curves = jobs.tabulate(params, cases, measured)
    seeds = pd.DataFrame(rows)
    with whole(BUILD / "conditions") as folder:
        folder.mkdir()
        seeds.to_csv(folder / "seeds.csv", index=False, float_format="%.6f")
        by_step = table.curves_over_seeds(curves)
        by_step.to_csv(folder / "curves.csv", index=False, float_format="%.4f")
        medians = table.over_seeds(seeds)
        medians.to_csv(folder / "conditions.csv", index=False, float_format="%.4f")


if __name__ == "__main__":
    run_stage(main)
