"""How long each stage of the study takes, from nothing; writes stages.json, which the report shows.

python -m benchmarks.stages         as long as `make study`; on an idle machine, committed tree
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.machine import processor

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "stages.json"
STARTS = "Running stage '"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        seconds = stage_seconds(_run(Path(folder)))
    result = {"processor": processor(), "cores": os.cpu_count(), "seconds": seconds}
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(OUT.read_text())


def _run(clone: Path) -> Iterator[tuple[float, str]]:
    """DVC's lines, and when each of them came; an empty one at the end."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(clone / "src"),
    }
    command = [sys.executable, "-m", "dvc", "repro", "--force"]
    with subprocess.Popen(
        command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            yield time.monotonic(), line
    if process.returncode:
        raise SystemExit("dvc repro failed: no times")
    yield time.monotonic(), ""


def stage_seconds(lines: Iterable[tuple[float, str]]) -> dict[str, float]:
    """Seconds from the line that says that a stage runs to the next such line, or the end."""
    starts: list[tuple[str, float]] = []
    end = 0.0
    for end, line in lines:
        if line.startswith(STARTS):
            starts.append((line.removeprefix(STARTS).partition("'")[0], end))
    ends = [*(start for _, start in starts[1:]), end]
    return {
        stage: round(stop - start, 1) for (stage, start), stop in zip(starts, ends, strict=True)
    }


if __name__ == "__main__":
    main()
