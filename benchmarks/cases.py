"""The measurements, as cases.toml says them."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
EVERYBODY: dict[str, str] = _TABLES["everybody"]  # labels by way
FORWARD = "torch_ways.forward"  # the unit of the others' times


class Work(NamedTuple):
    steps: int = 1
    hidden: int = 1
    batch: int = 1
    question: bool = False
    padded: bool = False
    cell: str = "lstm"

    def __str__(self) -> str:
        return f"T {self.steps:,}, H {self.hidden}, batch {self.batch}"


class Case(NamedTuple):
    goal: str
    work: Work = Work()
    what: str = "curves at every t, {}"
    unit: str = "times as fast as JAX in float64"
    ways: Sequence[str] = list(EVERYBODY)
    check: str = "curves"
    code: Sequence[str] = ("probe",)
    rounds: int = 5

    def quick(self) -> "Case":
        """So small that its times mean nothing."""
        T, H, batch = map(min, self.work[:3], (40, 16, 4))
        return self._replace(work=self.work._replace(steps=T, hidden=H, batch=batch), rounds=1)


CASES: dict[str, Case] = {
    name: Case(**table | {"work": Work(**table.get("work", {}))})
    for name, table in _TABLES["cases"].items()
}
