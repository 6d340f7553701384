from pathlib import Path

import pytest

from rnngrad.errors import InputError
from rnngrad.stage import cell_of_stage, run_stage, whole


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


def test_bad_input_is_one_line_and_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise InputError("a.csv, row 3: no label")

    with pytest.raises(SystemExit) as caught:
        run_stage(main)
    assert "a.csv, row 3: no label" in str(caught.value.code)


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

    with pytest.raises(SystemExit, match=r"argument.*; usage: python .* cell$"):
        run_stage(main, *arguments)


@pytest.mark.parametrize(
    ("stage", "cell"),
    [("train@lstm", ["lstm"]), ("../dvc.yaml:train@gru", ["gru"]), ("report", []), (None, [])],
)
def test_dvc_says_which_cell_a_stage_is_of(
    stage: str | None, cell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    if stage:
        monkeypatch.setenv("DVC_STAGE", stage)
    assert cell_of_stage() == cell
