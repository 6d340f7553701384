"""Time the probe beside all that a user would pick instead; on an idle machine. See README.md.

Writes results.json, table.md, figure.svg and stages.json after every case. What Ctrl-C or a crash
stopped goes on with the same command: a case whose result was made by this code on this machine is
not run again.
"""

import argparse
import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.cases import CASES, Case
from benchmarks.rounds import BENCH_PYTHON, FOREIGN, ROOT, THREADS, run_case
from benchmarks.summary import figure, table

HERE = Path(__file__).parent
MEASURES_NOTHING = {"bench.py", "cases.py", "summary.py"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help="in small, and without the study")
    parser.add_argument("--out", type=Path, help="folder; build/bench for a quick run")
    args = parser.parse_args(arguments)
    out: Path = args.out or (ROOT / "build/bench" if args.quick else HERE)
    cases = {name: case.quick() if args.quick else case for name, case in CASES.items()}
    digests, machine = {name: _digest(case) for name, case in cases.items()}, _machine()
    out.mkdir(parents=True, exist_ok=True)
    kept = _kept(out / "results.json", digests, machine)
    missing = [n for n in args.only or cases if n not in ({*kept, "study"} if args.quick else kept)]
    try:
        for name in (bar := tqdm(missing, "cases")):
            tell = lambda who, name=name: bar.set_description(f"{name}, {who}")  # noqa: E731
            kept[name] = {"digest": digests[name], "results": run_case(cases[name], tell)}
            _write(out, cases, kept, machine)
    except KeyboardInterrupt:
        raise SystemExit("interrupted: the same command goes on with what is missing") from None
    print(_write(out, cases, kept, machine))


def _digest(case: Case) -> str:
    """The digest covers all that decides a result: work, code, other libraries that take part."""
    files = {path for path in HERE.glob("*.py") if path.name not in MEASURES_NOTHING}
    for part in case.code:
        files |= set((ROOT / "src/rnngrad" / part).rglob("*.py"))
    digest = hashlib.sha256(repr(case._replace(what="", goal="", unit="")).encode())
    for path in sorted(files):
        digest.update(path.read_bytes())
    if any(way.startswith(FOREIGN) for way in case.ways):
        installed = BENCH_PYTHON.parents[1].glob("lib/*/site-packages/*.dist-info")
        digest.update(repr(sorted(path.name for path in installed)).encode())
    return digest.hexdigest()[:16]


def _machine() -> dict[str, Any]:
    """This machine's description, without names of hosts or folders."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    return {
        "processor": (name[1] if name else platform.machine()) + ", AVX-512" * ("avx512f" in text),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numpy", "numba")},
    }


def _kept(path: Path, digests: Mapping[str, str], machine: Mapping[str, Any]) -> dict[str, Any]:
    """The results that this code made on this machine; says how many others there are."""
    found = json.loads(path.read_text()) if path.exists() else {}
    cases = found.get("cases", {})
    kept = {name: one for name, one in cases.items() if one["digest"] == digests.get(name)}
    kept = kept if found.get("machine") == machine else {}
    if others := len(cases) - len(kept):
        print(f"{others} results of other code or another machine are left out of {path}")
    return kept


def _write(
    out: Path, cases: Mapping[str, Case], kept: Mapping[str, Any], machine: dict[str, Any]
) -> str:
    """All files; returns the table."""
    kept = {name: kept[name] for name in cases if name in kept}
    results = {name: one["results"] for name, one in kept.items()}
    files = {"results.json": {"machine": machine, "cases": kept}}
    for one in results.get("study", {}).values():
        if "parts" in one:
            files["stages.json"] = machine | {"seconds": one["parts"]}
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=1) + "\n")
    (out / "table.md").write_text(text := table(cases, results, machine))
    if drawn := figure(cases, results):
        (out / "figure.svg").write_text(drawn)
    return text


if __name__ == "__main__":
    main()
