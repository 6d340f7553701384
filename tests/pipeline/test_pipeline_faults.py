"""Bad settings, interruptions and damaged files cost one line, and nothing that was computed."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tiny_clone import Clone

pytestmark = pytest.mark.slow


def test_an_unknown_key_stops_before_anything_runs(clone: Clone, params: Path) -> None:
    clone.edit("probe:", "prob:")
    done = clone.run("dvc", "repro")
    assert done.returncode != 0
    assert "check: params.yaml: prob: unknown key" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Running stage 'download'" not in done.stdout


@pytest.mark.parametrize("stage", ["report", "-s conditions", "-s train@{cell}"])
@pytest.mark.parametrize("cell", ["x; touch touched", "../../touched", "rnn/../../../touched"])
def test_the_name_of_a_cell_is_no_command_and_no_folder(
    stage: str, cell: str, clone: Clone, params: Path
) -> None:
    """A shell would make the file, and DVC would empty the folder before its stage runs."""
    touched = clone.folder / "touched"
    touched.mkdir()
    (touched / "precious").write_text("")
    clone.edit("  rnn: {}\n", f'  "{cell}": {{}}\n')
    done = clone.run("dvc", "repro", *(part.format(cell=cell) for part in stage.split()))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert list(touched.iterdir()) == [touched / "precious"]
    shutil.rmtree(touched)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_nothing_half_written_and_training_resumes(
    clone: Clone, params: Path
) -> None:
    whole = clone.checksums()
    outputs = {name for name in whole if name.startswith("build/train/rnn/")}
    shutil.rmtree(clone.folder / "build" / "train" / "rnn")
    clone.edit("epochs: 2", "epochs: 40")
    command = ["python", "pipeline/train.py", "rnn"]
    process = subprocess.Popen(
        command,
        cwd=clone.folder,
        env=clone.environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    unfinished = clone.folder / "build" / "unfinished"
    deadline = time.monotonic() + 120
    while not list(unfinished.rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not list((clone.folder / "build" / "train" / "rnn").rglob("*.*"))
    assert list(unfinished.rglob("last.ckpt"))
    clone.succeed(*command)
    resumed = clone.checksums()
    assert not unfinished.exists() or not list(unfinished.iterdir())
    shutil.rmtree(clone.folder / "build" / "train" / "rnn")
    clone.succeed(*command)
    again = clone.checksums()
    assert {name: again[name] for name in outputs} == {name: resumed[name] for name in outputs}


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("sample", "build/comments.parquet"),
        ("embed", "build/sample.parquet"),
        ("train rnn", "build/embed/tokens.npz"),
        ("probe rnn", "build/embed/vectors.npy"),
        ("probe lstm", "build/train/lstm/pre/seed-1/trained-1.pt"),
        ("conditions", "build/train/rnn/pre/seed-1/trained-1.pt"),
        ("report", "build/probe/lstm/trained-1/paths.csv"),
        ("report", "build/conditions/curves.csv"),
        ("report", "build/data_card.json"),
        ("publish", "build/train/lstm/model_card.json"),
        ("publish", "reports/metrics.json"),
    ],
)
@pytest.mark.parametrize("left", [0.5, None])
def test_an_input_that_is_cut_or_missing_is_named(
    left: float | None, stage: str, name: str, clone: Clone, request: pytest.FixtureRequest
) -> None:
    if left is None:  # without one of its files an input is another one, and results go
        request.getfixturevalue("params")
    before = clone.checksums()
    path, (script, *cell) = clone.folder / name, stage.split()
    content = path.read_bytes()
    path.unlink()  # it may be a link into DVC's cache
    if left is not None:
        path.write_bytes(content[: int(left * len(content))])
    done = clone.run("python", f"pipeline/{script}.py", *cell)
    path.write_bytes(content)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script}: {name}: ")
    assert "dvc repro" in line or "stage" in line
    if left is not None:
        assert {*clone.checksums()} == {*before}


def test_after_dvc_alone_is_killed_another_repro_ends_well(clone: Clone, params: Path) -> None:
    """The stage that it ran ends as well, and does not write what the next one writes."""
    clone.edit("hidden: 8", "hidden: 9")
    process = subprocess.Popen(
        ["dvc", "repro", "train@rnn"],
        cwd=clone.folder,
        env=clone.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Running stage 'train@rnn'" in line:
            break
    time.sleep(2)
    process.kill()
    process.wait()
    process.stdout.close()
    assert clone.repro("train@rnn") in (["train@rnn"], [])
    found = clone.checksums()
    shutil.rmtree(clone.folder / "build" / "train" / "rnn")
    clone.succeed("python", "pipeline/train.py", "rnn")
    assert clone.checksums() == found


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("module", "script"),
    [
        ("rnngrad", "check"),
        ("rnngrad", "train rnn"),
        ("pydantic", "train rnn"),
        ("pandas", "report"),
        ("sqlalchemy", "publish"),
    ],
)
def test_ctrl_c_while_a_stage_is_imported_is_one_line(
    module: str, script: str, clone: Clone
) -> None:
    name, *cell = script.split()
    process = subprocess.Popen(
        ["python", "-X", "importtime", f"pipeline/{name}.py", *cell],
        cwd=clone.folder,
        env=clone.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            if line.rsplit("|")[-1].strip().startswith(module):
                break
        os.killpg(process.pid, signal.SIGINT)
        errors = [line for line in lines if not line.startswith("import time:")]
    assert (process.wait(timeout=60), errors) in (
        (130, ["interrupted; make study or dvc repro goes on from here\n"]),
        (0, []),  # it was quicker
    )
