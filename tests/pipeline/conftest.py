"""The clone and its settings."""

import shutil
import subprocess

import pytest
from tiny_clone import ROOT, STAGES, TINY, Clone


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The clone after its first `dvc repro`."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    clone = Clone(folder)
    # an installed rnngrad would run this repository's code, not the clone's
    clone.environment["PYTHONPATH"] = str(folder / "src")
    for old, new in TINY.items():
        clone.edit(old, new)
    clone.succeed("git", "init", "--quiet")
    clone.succeed("git", "add", "--all")
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    clone.succeed("git", *who, "commit", "--quiet", "--message", "tiny")
    assert clone.repro() == STAGES
    return clone


@pytest.fixture
def params(clone: Clone):
    """Go back after the test, as a reader does with git restore and dvc checkout."""
    files = [clone.folder / name for name in ("params.yaml", "dvc.lock")]
    before = [path.read_text() for path in files]
    yield files[0]
    for path, text in zip(files, before, strict=True):
        path.write_text(text)
    clone.succeed("dvc", "checkout", "--force")
