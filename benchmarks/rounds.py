"""One case in interleaved rounds: in each, every competitor works on it once."""

import json
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cases import Case, make_problem
from benchmarks.competitors import EXACT, FLOOR, JAX, LABELS, PROBE, UNIT, Curves, Turn
from benchmarks.competitors.probe import lstm_of, state_of, turns
from benchmarks.findings import ratio
from benchmarks.verification import RefusedError, reference, verify

ROOT = Path(__file__).parents[1]
BENCH_PYTHON = ROOT / ".bench-venv/bin/python"
# They have an environment of their own, and a process each.
FOREIGN: dict[str, tuple[str, ...]] = {
    JAX: ("jax_scan", "float64"),
    "jax_float32": ("jax_scan", "float32"),
    "tensorflow": ("tensorflow_loop",),
}
LONG, FEWEST = 20.0, 3  # a competitor that takes more seconds works three times only


def run_case(case: Case, goal: str, rounds: int) -> dict[str, Any]:
    """A finding against JAX, and seconds and accuracy of all competitors."""
    problem = make_problem(case)
    true = reference(lstm_of(problem), torch.from_numpy(problem.inputs), state_of(problem))
    results: dict[str, Any] = {name: {"seconds": []} for name in LABELS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        np.savez(Path(folder) / "problem.npz", **problem._asdict())
        foreign = {name: _Foreign(name, Path(folder), stack) for name in FOREIGN}
        everybody = turns(problem) | foreign
        for turn in range(rounds):
            for name, result in results.items():
                slow = turn >= FEWEST and max(result["seconds"], default=0.0) > LONG
                if "refused" not in result and not slow:
                    _take(everybody[name], name, result, true, case)
    return _against_jax(case, goal, results) | {"case": str(case), "competitors": results}


def _take(
    take: Callable[[], Turn], name: str, result: dict[str, Any], true: Curves, case: Case
) -> None:
    try:
        seconds, steps, curves = take()
        if name not in (UNIT, FLOOR):
            errors, accurate = verify(curves, true, case.batch, name in EXACT, steps)
            result |= {"errors": errors, "accurate": accurate}
    except RefusedError as error:
        result |= {"refused": str(error), "seconds": []}
        return
    result["seconds"].append(seconds)
    result["extrapolated"] = len(steps) < case.steps


class _Foreign:
    """A process of another environment, which waits until it is asked for a turn."""

    def __init__(self, name: str, folder: Path, stack: ExitStack) -> None:
        module, *options = FOREIGN[name]
        self.curves, self.log = folder / f"{name}.npz", folder / f"{name}.log"
        self.why = f"{BENCH_PYTHON.relative_to(ROOT)} is missing" * (not BENCH_PYTHON.exists())
        if self.why:
            return
        command = [BENCH_PYTHON, "-m", f"benchmarks.competitors.{module}", folder, *options]
        pipe = subprocess.PIPE
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=log, text=True
            )
        stack.callback(self.process.communicate)
        stack.callback(self.process.kill)
        self._answer()

    def __call__(self) -> Turn:
        if not self.why:
            with suppress(BrokenPipeError):
                print(self.curves.name, file=self.process.stdin, flush=True)
            self._answer()
        if self.why:
            raise RefusedError(self.why)
        with np.load(self.curves) as found:
            curves = Curves(**{key: found[key] for key in found if key != "steps"})
            return Turn(self.seconds, found["steps"], curves)

    def _answer(self) -> None:
        assert self.process.stdout
        line = self.process.stdout.readline()
        last = (self.log.read_text().strip() or "its process has ended").splitlines()[-1]
        answer = json.loads(line) if line else {"refused": last}
        self.why = answer.get("refused", "")
        self.seconds = float(answer.get("seconds", 0))


def _against_jax(case: Case, goal: str, results: dict[str, Any]) -> dict[str, Any]:
    what = f"curves at every t, {case}"
    for name in (JAX, PROBE):
        if "refused" in results[name]:
            return {"what": what, "refused": f"{LABELS[name]}: {results[name]['refused']}"}
    seconds = {name: results[name]["seconds"] for name in (JAX, PROBE)}
    note = f"worst relative error {max(results[PROBE]['errors'].values()):.0e}"
    unit = "times as fast as JAX in float64"
    return ratio(what, seconds, JAX, PROBE, unit, note=note, goal=goal)._asdict()
