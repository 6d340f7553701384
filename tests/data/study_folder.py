"""A tiny study in a folder of its own, its stages as commands."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]


class Study:
    """A folder with a params.yaml, in which the stage scripts run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.params: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
        self.edit(data__demo__comments_per_class=20, embed__dimensions=4)

    def edit(self, **keys: object) -> None:
        """Set keys, written with two underscores for each dot, and write params.yaml."""
        params = copy.deepcopy(self.params)
        for key, value in keys.items():
            *sections, name = key.split("__")
            section = params
            for part in sections:
                section = section[part]
            section[name] = value
        self.params = params
        with (self.folder / "params.yaml").open("w") as file:
            YAML(typ="safe").dump(params, file)

    def run(self, *stages: str) -> subprocess.CompletedProcess[str]:
        """Run stages one after the other, of which only the last may fail; its result."""
        *first, last = stages
        for stage in first:
            assert self._run(stage).returncode == 0
        return self._run(last)

    def _run(self, stage: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "pipeline" / f"{stage}.py")]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def outputs(self) -> dict[str, bytes]:
        """Name and content of each file below build/."""
        build = self.folder / "build"
        return {
            str(path.relative_to(build)): path.read_bytes()
            for path in sorted(build.rglob("*"))
            if path.is_file()
        }
