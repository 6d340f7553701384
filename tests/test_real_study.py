"""The study on real comments changes reports/real/ alone, and nothing when it fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# stands in for DVC: says what it was asked, and writes what the report stage would
DVC = """#!/bin/sh
test -f mine.csv && test -f vectors.txt && test ! -e reports/real/metrics.json || exit 3
mkdir -p reports/figures && echo svg > reports/figures/a.svg
for name in report.md report.html explore.html answer.txt claims.json conditions.csv metrics.json
do echo "$@" > reports/$name; done
exit $STATUS
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder, programs = tmp_path / "repository", tmp_path / "bin"
    (folder / "reports" / "real").mkdir(parents=True)
    (folder / "reports" / "real" / "metrics.json").write_text("old")
    (folder / "params.yaml").write_text("committed")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    (folder / "params.yaml").write_text("changed")
    programs.mkdir()
    (programs / "dvc").write_text(DVC)
    (programs / "dvc").chmod(0o755)
    (tmp_path / "mine.csv").write_text("comment_text,toxic\n")
    (tmp_path / "vectors.txt").write_text("a 1\n")
    return folder


def run(folder: Path, vectors: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
    above = folder.parent
    path = f"{above / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, ROOT / "pipeline" / "real_study.py", above / "mine.csv", above / vectors],
        cwd=folder,
        env=os.environ | {"PATH": path, "STATUS": str(status)},
        capture_output=True,
        text=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_nothing_changes_but_the_report_on_real_comments(repository: Path) -> None:
    before = contents(repository)
    done = run(repository, "vectors.txt")
    assert done.returncode == 0, done.stderr
    after = contents(repository)
    assert {name for name in after if after[name] != before.get(name)} == {
        f"reports/real/{name}"
        for name in (
            "README.md", "answer.txt", "claims.json", "conditions.csv", "explore.html",
            "figures/a.svg", "metrics.json", "report.html", "report.md",
        )
    }  # fmt: skip
    asked = after["reports/real/metrics.json"].decode()
    assert asked.startswith("exp run -S data.source=csv ")
    assert asked.endswith("-S data.path=mine.csv -S embed.path=vectors.txt report\n")
    about = after["reports/real/README.md"].decode()
    assert "mine.csv, 1000 of each class" in about
    assert str(repository.parent) not in about


@pytest.mark.parametrize(("vectors", "status"), [("vectors.txt", 1), ("none.txt", 0)])
def test_a_study_that_fails_changes_nothing(repository: Path, vectors: str, status: int) -> None:
    before = contents(repository)
    done = run(repository, vectors, status)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert contents(repository) == before
