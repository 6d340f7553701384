"""Time the probe beside its competitors; writes results.json, table.md and figure.svg.

    python -m benchmarks.bench            the cases that matter: 10 to 15 minutes on two idle cores
    python -m benchmarks.bench --full     all of T, H and batch: hours
    python -m benchmarks.bench --smoke --out FOLDER    does everything run? Its numbers mean nothing

Ctrl-C ends it; what is finished is written.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.cases import FULL, QUICK, SMOKE, Case
from benchmarks.competitors import COMPETITORS
from benchmarks.machine import description
from benchmarks.measurements import MEASUREMENTS, run_measurement
from benchmarks.rounds import Field, installed_competitors
from benchmarks.summary import write_summary


class Extent(NamedTuple):
    """How much is run."""

    cases: tuple[Case, ...]
    budget: float  # seconds per competitor and case
    headline_rounds: int


EXTENTS = {
    "quick": Extent(QUICK, 3.0, 2),
    "full": Extent(FULL, 20.0, 3),
    "smoke": Extent(SMOKE, 1.0, 1),
}


def main() -> None:
    args = _arguments()
    results: dict[str, Any] = {
        "extent": args.extent,
        "machine": description(args.threads),
        "finished": False,
        "cases": [],
        "measurements": [],
    }
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        for _ in _finished_parts(args, results):
            _write(results, args.out)
        results["finished"] = True
    except KeyboardInterrupt:
        print("\ninterrupted: what is finished is written")
    _write(results, args.out)
    write_summary(results, args.out)
    print((args.out / "table.md").read_text())


def _finished_parts(args: argparse.Namespace, results: dict[str, Any]) -> Iterator[None]:
    if "cases" in args.parts:
        yield from _run_cases(args, EXTENTS[args.extent], results["cases"])
    if "measurements" in args.parts:
        yield from _run_measurements(args, results["measurements"])


def _write(results: dict[str, Any], folder: Path) -> None:
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for extent in EXTENTS:
        parser.add_argument(f"--{extent}", dest="extent", action="store_const", const=extent)
    parser.set_defaults(extent="quick")
    parser.add_argument("--threads", type=int, default=2, help="of every competitor")
    parser.add_argument("--only", nargs="+", choices=COMPETITORS, default=list(COMPETITORS))
    parts = ("cases", "measurements")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder")
    args = parser.parse_args()
    if args.extent == "smoke" and args.out == parser.get_default("out"):
        parser.error("--smoke needs --out: its numbers are no results")
    return args


def _run_cases(
    args: argparse.Namespace, extent: Extent, cases: list[dict[str, Any]]
) -> Iterator[None]:
    pythons = installed_competitors(args.only)
    with tempfile.TemporaryDirectory() as scratch:
        field = Field(pythons, extent.budget, args.threads, extent.headline_rounds, Path(scratch))
        try:
            for case in tqdm(extent.cases, "cases"):
                cases.append({**asdict(case), "results": {}})
                field.run(case, cases[-1]["results"])
                yield
        finally:
            field.end()


def _run_measurements(args: argparse.Namespace, found: list[dict[str, Any]]) -> Iterator[None]:
    for name in tqdm(MEASUREMENTS, "measurements"):
        found += run_measurement(name, args.extent == "smoke", args.threads)
        yield


if __name__ == "__main__":
    main()
