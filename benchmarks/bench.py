"""Time the probe beside all that a user would pick instead.

    python -m benchmarks.bench                        everything, on an idle machine
    python -m benchmarks.bench --only padded cells --out FOLDER                some of it
    python -m benchmarks.bench --quick --out FOLDER   does everything run? Its numbers say nothing

Writes results.json, table.md and figure.svg. Ctrl-C ends it; what is finished is written.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.findings import QUESTION
from benchmarks.goals import MEASUREMENTS
from benchmarks.machine import description
from benchmarks.rounds import ROOT
from benchmarks.summary import write_summary

LIMIT = 3600.0  # seconds of one measurement


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parsed(arguments)
    results: dict[str, Any] = {"machine": description(args.threads), "finished": False, "found": []}
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        for name in tqdm([name for name in MEASUREMENTS if name in args.only], "measurements"):
            results["found"] += _in_own_process(name, args)
            write_summary(results, args.out)
        results["finished"] = True
    except KeyboardInterrupt:
        print("\ninterrupted: what is finished is written")
    write_summary(results, args.out)
    print((args.out / "table.md").read_text())


def _in_own_process(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """As many threads for everybody, whichever library makes them."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
    environment = os.environ | dict.fromkeys(threads, str(args.threads)) | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "benchmarks.goals", name, "--rounds", str(args.rounds)]
    command += ["--quick"] * args.quick
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return [{"what": name, "refused": f"no answer within {LIMIT:.0f} s"}]
    if done.returncode:
        why = (done.stderr.strip() or "its process has ended").splitlines()[-1]
        return [{"what": name, "refused": why[:200]}]
    return json.loads(done.stdout)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(MEASUREMENTS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=QUESTION.rounds)
    parser.add_argument("--threads", type=int, default=2, help="of every competitor")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder")
    args = parser.parse_args(arguments)
    if (args.quick or args.only != names) and args.out == parser.get_default("out"):
        parser.error("--quick and --only need --out: they would replace the whole results")
    return args


if __name__ == "__main__":
    main()
