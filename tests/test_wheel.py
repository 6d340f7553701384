"""The library as `pip install rnngrad` brings it: the wheel and its base dependencies alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")

STUDY = (
    "data.sampling", "kept", "models.training", "params", "report.render", "study.claims",
    "tracking",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "RNNGRAD_INSTALLS" not in os.environ,
        reason="it installs from the network, as .ci/run does: RNNGRAD_INSTALLS=1 make test",
    ),
]


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment, with the versions of the lock file."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "venv", "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    run(python, *PIP, "wheel", "--no-deps", ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    # hashes would have to be there for the wheel as well
    versions = re.sub(r" \\\n +--hash=\S+", "", (ROOT / "requirements.lock").read_text())
    (folder / "versions.txt").write_text(versions + (ROOT / "constraints.txt").read_text())
    run(python, *PIP, "install", "-c", "versions.txt", wheel, cwd=folder)
    return python.parent


def test_it_brings_nothing_of_the_study_and_of_development(installed: Path, tmp_path: Path):
    names = {
        *re.findall(r"^[\w.-]+", run(installed / "python", *PIP, "freeze", cwd=tmp_path), re.M)
    }
    assert {"rnngrad", "torch", "numba", "matplotlib"} <= names
    assert not {"dvc", "mlflow", "pydantic", "pytorch-lightning", "h5py", "pytest"} & names


def test_the_snippets_of_the_readme_run(installed: Path, tmp_path: Path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    snippet = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    assert "verdict" in run(installed / "python", "-c", snippet, cwd=tmp_path)


def test_all_that_is_there_is_imported_and_explained(installed: Path, tmp_path: Path):
    code = "from rnngrad import *\nimport rnngrad\nprint(diagnose.__name__)\nhelp(rnngrad)"
    said = run(installed / "python", "-c", code, cwd=tmp_path)
    assert said.startswith("diagnose\n")
    assert "gradient_reach" in said
    assert "GradientReach" not in said


def test_the_command_answers_and_the_doctor_names_the_extras(installed: Path, tmp_path: Path):
    small = ("--units", "8", "--steps", "50")
    assert "memory horizon" in run(installed / "rnngrad", "diagnose", *small, cwd=tmp_path)
    found = run(installed / "rnngrad", "doctor", cwd=tmp_path)
    assert re.search(r"^-- +dvc +not installed: pip install 'rnngrad\[study\]'$", found, re.M)


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("open('it.h5', 'w').close(); rnngrad.from_keras('it.h5')", "keras"),
        ("rnngrad.GradientReach()", "lightning"),
        (
            "import os; os.environ['RNNGRAD_SCHEDULER'] = 'tcp://here:1'\n"
            "from rnngrad.workers import pool\nwith pool(1): pass",
            "cluster",
        ),
        *((f"import rnngrad.{room}", "study") for room in STUDY),
    ],
)
def test_what_is_missing_names_its_extra(code: str, extra: str, installed: Path, tmp_path: Path):
    said = run(installed / "python", "-c", f"import rnngrad\n{code}", cwd=tmp_path, status=1)
    assert f"is not installed: pip install 'rnngrad[{extra}]'" in said.splitlines()[-1]
