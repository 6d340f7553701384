"""A temporary clone of this repository with a tiny configuration, run as its reader runs it."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SEEDS = "  - 1\n  - 2\n  - 3\n  - 4\n  - 5\n"
TINY = {
    "comments_per_class: 500": "comments_per_class: 60",
    "dimensions: 100": "dimensions: 10",
    "max_length:     ": "max_length: 150 ",
    f"{SEEDS}  hidden": "  - 1\n  - 2\n  hidden",
    "  gru: {}\n": "",
    "hidden: 200": "hidden: 8",
    "epochs: 4": "epochs: 2",
    "comments: 8": "comments: 3",
    "spectral_steps: 60": "spectral_steps: 6",
    f"{SEEDS}  comments": "  - 1\n  - 2\n  comments",
    "comments: 4": "comments: 2",
    "streams: 2": "streams: 1",
    "units: 200": "units: 8",
    "steps: 1403": "steps: 150",
}
STAGES = [
    "check",
    "download",
    "sample",
    "embed",
    "train@rnn",
    "train@lstm",
    "train@gru",  # of a cell that the tiny study does without
    "probe@rnn",
    "probe@lstm",
    "probe@gru",
    "conditions",
    "report",
    "publish",
]


class Clone:
    """A copy of what git would track here, as a repository of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")
        }
        self.environment["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        self.environment["MLFLOW_DISABLE_TELEMETRY"] = "true"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, *command: str, **options: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, text=True, **options
        )

    def succeed(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def edit(self, old: str, new: str) -> None:
        path = self.folder / "params.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def repro(self, *options: str) -> list[str]:
        """Run `dvc repro`; the stages that ran."""
        output = self.succeed("dvc", "repro", *options)
        return [stage for stage in STAGES if f"Running stage '{stage}':" in output]

    def checksums(self) -> dict[str, str]:
        files = sorted(p for d in ("build", "reports") for p in (self.folder / d).rglob("*.*"))
        return {
            p.relative_to(self.folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in files
            if p.is_file()
        }


def fresh_clone(folder: Path, changes: dict[str, str]) -> Clone:
    """Make a clone in a folder, with these changes of params.yaml in its one commit."""
    clone, here = Clone(folder), Clone(ROOT)
    listed = here.succeed("git", "ls-files", "--cached", "--others", "--exclude-standard")
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    # an installed rnngrad would run this repository's code, not the clone's
    clone.environment["PYTHONPATH"] = str(folder / "src")
    for old, new in changes.items():
        clone.edit(old, new)
    clone.succeed("git", "init", "--quiet")
    clone.succeed("git", "add", "--all")
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    clone.succeed("git", *who, "commit", "--quiet", "--message", "all")
    return clone
