import errno
from pathlib import Path

import pytest

from processes import start
from rnngrad.errors import InputError
from rnngrad.stage import read_json, read_output, run_stage, seal, whole


def test_an_output_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out.csv"
    for content in ("first", "second"):
        with whole(target) as path:
            path.write_text(content)
            assert path.suffix == ".csv"
        assert target.read_text() == content
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_block_leaves_the_old_output_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")

    def fail() -> None:
        with whole(target) as folder:
            folder.mkdir()
            (folder / "half").write_text("")
            raise InputError("no")

    with pytest.raises(InputError):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (InputError("a.csv, row 3: no label"), ": a.csv, row 3: no label$"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; mend it, run"),
        (OSError("800 requested and 0 written"), "output: 800 requested and 0 written; mend it"),
    ],
)
def test_bad_input_and_a_full_disk_are_one_line(error: Exception, says: str) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit, match=says):
        run_stage(main)


def test_settings_that_change_while_a_stage_runs_fail_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC notes them when the stage has ended, and would take its results for theirs."""
    monkeypatch.chdir(tmp_path)
    settings = Path("params.yaml")
    settings.write_text("a: 1")
    with pytest.raises(SystemExit, match="changed meanwhile; run the same command again"):
        run_stage(lambda: settings.write_text("a: 2"))
    run_stage(lambda: settings.write_text("a: 2"))


def test_ctrl_c_is_exit_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_stage(main)
    assert caught.value.code == 130
    assert "dvc repro goes on" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [(), ("lstm", "gru")])
def test_arguments_that_a_stage_does_not_take_are_one_line(arguments: tuple[str, ...]) -> None:
    def main(cell: str) -> None:
        raise AssertionError(cell)

    with pytest.raises(SystemExit, match=r": (missing a required|too many positional) argument"):
        run_stage(main, *arguments)


def test_a_stage_ends_with_the_dvc_that_runs_it(tmp_path: Path) -> None:
    stage = (
        "import os, sys, time\n"
        "from rnngrad.stage import run_stage\n"
        "def main():\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(300)\n"
        "run_stage(main)\n"
    )
    (tmp_path / "stage.py").write_text(stage)
    dvc = "import subprocess, sys\nsubprocess.run([sys.executable, sys.argv[1]])\n"
    process = start("-c", dvc, tmp_path / "stage.py", env={"DVC_STAGE": "report"}, stderr=None)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.kill()
    assert process.communicate(timeout=60) == ("", None)  # its output ends when the stage does


def test_what_is_sealed_and_changed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("two\nlines\n")
    seal(tmp_path)
    assert read_output(path, "dvc repro", Path.read_text) == "two\nlines\n"
    path.write_text("two\n")
    with pytest.raises(InputError, match=r"some.txt: cannot be read \(cut or changed\); run dvc"):
        read_output(path, "dvc repro", Path.read_text)


def test_numbers_that_are_cut_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "stages.json"
    path.write_text('{"seconds": {}')
    with pytest.raises(InputError, match=r"stages.json: cannot be read \(.+\); run make bench aga"):
        read_json(path, "make bench")


def test_where_comments_lie_is_the_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [tmp_path / "build", tmp_path / ".dvc" / "cache"]
    for folder in folders:
        folder.mkdir(parents=True, mode=0o755)
    run_stage(lambda: None)
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700] * 2
