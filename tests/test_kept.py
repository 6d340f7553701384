"""Results that are made once, and again when something changes that they depend on."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from processes import start, wait_until
from rnngrad.errors import InputError
from rnngrad.kept import run_kept
from rnngrad.params import DemoParams
from rnngrad.stage import seal


def write(path: Path, log: str, *arguments: Any) -> None:
    """Write the arguments, and a line into a log that says whose job ran."""
    (path / "result.txt").write_text(repr(arguments))
    with Path(log).open("a") as file:
        file.write(f"{path.name.removeprefix('.unfinished-')}\n")


def fail_or_write(path: Path, log: str, *arguments: Any) -> None:
    write(path, log)
    if arguments == ("fail",):
        raise InputError("no")


class Kept:
    """Runs :func:`write` with its results in a folder, and says which jobs ran."""

    def __init__(self, folder: Path) -> None:
        self.results, self.code = folder / "results", folder / "code"
        self.log = folder / "log.txt"
        self.code.mkdir()
        (self.code / "some.py").write_text("a line\n")

    def run(self, jobs: dict[str, tuple[Any, ...]], function: Callable[..., None] = write) -> str:
        self.log.write_text("")
        given = {name: (str(self.log), *job) for name, job in jobs.items()}
        name = f"{function.__module__}:{function.__name__}"
        run_kept(name, given, self.results, code=[str(self.code)])
        return self.ran()

    def ran(self) -> str:
        return " ".join(sorted(self.log.read_text().split()))

    def files(self) -> set[str]:
        return {str(p.relative_to(self.results)) for p in self.results.rglob("*") if p.is_file()}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    # how jobs run in processes is tested of workers, and below in one test of everything
    monkeypatch.setattr("rnngrad.kept.pool", lambda *_, **__: ThreadPoolExecutor(1))
    return Kept(tmp_path)


JOBS = {"a": (1, "one"), "b": (2, "two")}


def test_what_was_made_is_taken_as_it_is(kept: Kept) -> None:
    assert kept.run(JOBS) == "a b"
    assert kept.files() == {
        f"{name}/{file}" for name in "ab" for file in ("result.txt", "digest.txt")
    }
    assert kept.run(JOBS) == ""
    assert kept.run(JOBS | {"c": (3, "three")}) == "c"
    assert (kept.results / "a" / "result.txt").read_text() == "(1, 'one')"


def test_without_a_terminal_every_job_is_a_line(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = {name: (str(kept.log), *job) for name, job in JOBS.items()}
    code, said = [str(kept.code)], {"b": "the second"}
    run_kept(f"{__name__}:write", jobs, kept.results, code=code, doing="writing", said=said)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split(",")[0] for line in lines) == ["writing: a", "writing: the second"]
    assert [line.split(", ")[1] for line in lines] == ["1 of 2", "2 of 2"]


def test_what_is_no_longer_wanted_is_deleted(kept: Kept) -> None:
    kept.run(JOBS)
    (kept.results / "summary.csv").write_text("")
    assert kept.run({"b": JOBS["b"]}) == ""
    assert kept.files() == {"b/result.txt", "b/digest.txt"}
    assert kept.run({}) == ""
    assert kept.files() == set()


def test_a_folder_in_a_folder_is_kept_as_any_other(kept: Kept) -> None:
    jobs = {"x/a": (1,), "x/b": (2,), "y/a": (3,)}
    assert kept.run(jobs) == "a a b"
    (kept.results / "x" / "summary.csv").write_text("")
    del jobs["x/b"], jobs["y/a"]
    assert kept.run(jobs) == ""
    assert kept.files() == {"x/a/result.txt", "x/a/digest.txt"}
    assert not (kept.results / "y").exists()


def test_another_argument_runs_that_job_again(kept: Kept) -> None:
    demo = DemoParams(comments_per_class=20, label_noise=0.1, seed=1)
    kept.run(JOBS | {"c": (demo,)})
    changed = demo.model_copy(update={"label_noise": 0.2})
    assert kept.run(JOBS | {"c": (demo.model_copy(),)}) == ""
    assert kept.run(JOBS | {"c": (changed,)}) == "c"
    assert kept.run(JOBS | {"b": (2, "2"), "c": (changed,)}) == "b"


def test_another_line_of_code_runs_all_again(kept: Kept) -> None:
    kept.run(JOBS)
    (kept.code / "__pycache__").mkdir()
    (kept.code / "__pycache__" / "some.pyc").write_text("")
    assert kept.run(JOBS) == ""
    (kept.code / "some.py").write_text("another line\n")
    assert kept.run(JOBS) == "a b"
    (kept.code / "other.py").write_text("")
    assert kept.run(JOBS) == "a b"
    assert kept.run(JOBS, fail_or_write) == "a b"


def test_another_byte_of_an_input_runs_what_reads_it_again(kept: Kept, tmp_path: Path) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "x.bin").write_bytes(b"abc")
    (tmp_path / "other.bin").write_bytes(b"abc")
    jobs = {"a": (folder,), "b": (tmp_path / "other.bin",)}
    assert kept.run(jobs) == "a b"
    os.utime(folder / "x.bin", (0, 0))
    assert kept.run(jobs) == ""
    (folder / "x.bin").write_bytes(b"abd")
    assert kept.run(jobs) == "a"
    (folder / "x.bin").rename(folder / "y.bin")
    assert kept.run(jobs) == "a"
    (tmp_path / "other.bin").unlink()
    with pytest.raises(InputError, match=r"other.bin: not found; run dvc repro"):
        kept.run(jobs)


@pytest.mark.parametrize("mark", [b"", b"\xff  \n", b"a  b/c\n"])
def test_a_file_that_an_input_lacks_costs_no_result(
    mark: bytes, kept: Kept, tmp_path: Path
) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    for name in ("x.bin", "y.bin"):
        (folder / name).write_bytes(b"abc")
    seal(folder)
    assert kept.run({"a": (folder,)}) == "a"
    (folder / "y.bin").unlink()
    before = kept.files()
    with pytest.raises(InputError, match=r"y.bin: not found; run dvc repro"):
        kept.run({"a": (folder,)})
    assert kept.files() == before
    (folder / "digest.txt").write_bytes(mark)
    with pytest.raises(InputError, match=r"x.bin: cannot be read"):
        kept.run({"a": (folder,)})


def test_a_result_that_somebody_has_changed_is_made_again(kept: Kept) -> None:
    kept.run(JOBS)
    (kept.results / "a" / "result.txt").write_text("(1, ")
    (kept.results / "b" / "more.txt").write_text("")
    assert kept.run(JOBS) == "a b"
    (kept.results / "a" / "digest.txt").unlink()
    assert kept.run(JOBS) == "a"
    assert (kept.results / "a" / "result.txt").read_text() == "(1, 'one')"


def test_a_failing_job_leaves_the_others_and_nothing_half_written(kept: Kept) -> None:
    jobs = {"a": ("write",), "b": ("write",)}
    kept.run(jobs, fail_or_write)
    with pytest.raises(InputError, match="no"):
        kept.run(jobs | {"c": ("fail",)}, fail_or_write)
    assert kept.ran() == "c"
    assert {path.name for path in kept.results.iterdir()} == {"a", "b"}
    assert kept.run(jobs | {"c": ("write",)}, fail_or_write) == "c"


STAGE = """
import sys, time
from pathlib import Path
from rnngrad.kept import run_kept
from rnngrad.stage import run_stage
def job(path, seconds):
    (path / 'half').write_text('')
    time.sleep(seconds)
def main():
    jobs = {str(k): (k,) for k in (0, 60, 61)}
    run_kept('__main__:job', jobs, Path('results'), code=[])
if __name__ == '__main__':
    run_stage(main)
"""


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_is_whole_when_it_is_interrupted_is_kept(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    results = tmp_path / "results"
    process = start("stage.py", cwd=tmp_path, env={"RNNGRAD_CORES": "2"})
    wait_until(lambda: (results / "0").exists() and len([*results.rglob("half")]) == 3)
    process.send_signal(how)
    _, errors = process.communicate(timeout=120)
    if how == signal.SIGINT:
        assert errors == "interrupted; make study or dvc repro goes on from here\n"
        assert {path.name for path in results.iterdir()} == {"0"}
    assert (results / "0" / "digest.txt").exists()
    assert not (results / "60").exists()
