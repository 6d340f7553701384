"""Interleaved rounds: in each, every competitor works on the case once, in its own process."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.cases import FULL_SIZE, Case, Problem, make_problem
from benchmarks.competitors import COMPETITORS, Curves
from benchmarks.process import ROOT, Process, RefusedError, installed
from benchmarks.verification import reference, verify

BENCH_PYTHON = ROOT / ".bench-venv/bin/python"  # that of JAX and TensorFlow
ROUNDS = 5
HEADLINE_BUDGET = 1e6  # seconds: all steps are run
LIMIT = 900.0  # seconds; what has not answered by then is ended


def installed_competitors(names: list[str]) -> dict[str, Path]:
    """The interpreter of each; who is not installed is named and left out."""
    found = {}
    for name in names:
        package = COMPETITORS[name].needs
        python = Path(sys.executable) if package == "torch" else BENCH_PYTHON
        if installed(python, package):
            found[name] = python
        else:
            print(f"skipped: {COMPETITORS[name].label} ({package} is not installed)")
    return found


class Field:
    """The competitors' processes; they stay from case to case, for their imports take seconds.

    Args:
        pythons: the interpreter of every competitor, by name.
        budget: seconds per competitor and case.
        headline_rounds: how often, at least, those that run all steps at full size do so.
        scratch: a folder for problems, curves and what the processes print.
    """

    def __init__(
        self,
        pythons: dict[str, Path],
        budget: float,
        threads: int,
        headline_rounds: int,
        scratch: Path,
    ) -> None:
        self.pythons, self.budget, self.threads = pythons, budget, threads
        self.headline_rounds, self.scratch = headline_rounds, scratch
        self.processes: dict[str, Process] = {}

    def run(self, case: Case, results: dict[str, dict[str, Any]]) -> None:
        """Fill `results`, by competitor, while it goes on: what is there counts."""
        problem = make_problem(case)
        path = self.scratch / f"{case.steps}_{case.hidden}_{case.batch}.npz"
        problem.save(path)
        true = reference(problem)
        spent: dict[str, list[float]] = {name: [] for name in self.pythons}
        for name in self._turns(case, spent, results):
            budget = self._single_budget(name, case)
            spent[name].append(self._turn(name, budget, path, problem, true, results))
        path.unlink()

    def _turns(
        self, case: Case, spent: dict[str, list[float]], results: dict[str, dict[str, Any]]
    ) -> Iterator[str]:
        for turn in range(ROUNDS):
            for name in tqdm(self.pythons, f"{case.label}, round {turn + 1}", leave=False):
                if turn == 0 or self._goes_on(name, case, spent[name], results[name]):
                    yield name

    def _goes_on(self, name: str, case: Case, spent: list[float], result: dict[str, Any]) -> bool:
        if "refused" in result:
            return False
        headline = case == FULL_SIZE and COMPETITORS[name].headline
        if headline and len(spent) < self.headline_rounds:
            return True
        return sum(spent) + spent[-1] <= self.budget

    def _single_budget(self, name: str, case: Case) -> float:
        headline = case == FULL_SIZE and COMPETITORS[name].headline
        return HEADLINE_BUDGET if headline else self.budget / 2

    def _turn(
        self,
        name: str,
        budget: float,
        path: Path,
        problem: Problem,
        true: Curves,
        results: dict[str, dict[str, Any]],
    ) -> float:
        """Seconds that it took, and what came out in `results`."""
        try:
            answer, curves, steps = self._ask(name, budget, path)
            accuracy = verify(curves, steps, true, problem.batch) if curves else {}
        except RefusedError as error:
            results[name] = {"refused": str(error)}
            return 0.0
        result = results.setdefault(name, {"seconds": []})
        result["seconds"].append(answer["seconds"])
        result["extrapolated"] = answer["extrapolated"]
        result["steps_run"] = len(steps)
        if accuracy:
            result["accuracy"] = {curve: asdict(value) for curve, value in accuracy.items()}
        return answer["spent"]

    def _ask(
        self, name: str, budget: float, path: Path
    ) -> tuple[dict[str, Any], Curves | None, np.ndarray]:
        found = self.scratch / f"{name}.npz"
        request = {"problem": str(path), "budget": budget, "curves": str(found)}
        answer = self._process(name).ask(request, LIMIT)
        if "error" in answer:
            raise RefusedError(answer["error"])
        with np.load(found, allow_pickle=False) as arrays:
            steps = arrays["steps"]
            curves = Curves(**{key: arrays[key] for key in arrays if key != "steps"})
        return answer, curves if COMPETITORS[name].curves else None, steps

    def _process(self, name: str) -> Process:
        process = self.processes.get(name)
        if process is None or not process.running:
            log = self.scratch / f"{name}.log"
            process = Process(self.pythons[name], name, log, self.threads)
            self.processes[name] = process
        return process

    def end(self) -> None:
        for process in self.processes.values():
            process.end()
