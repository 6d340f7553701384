"""Presets: what they say and check beforehand, and what they run."""

import os
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_clone import BIN, ROOT, fresh_clone

from rnngrad.errors import InputError
from rnngrad.params import read_params

TINY = "says: About a week.\ndisk: 0.001\nsettings: [train.hidden=4, 'train.seeds=[3]']\n"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Calls the command in a project of its own; what it would put in its place, if anything."""
    replaced: list[str] = []
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.execvp", lambda _, arguments: replaced.extend(arguments))

    def run(name: str) -> list[str]:
        runpy.run_path(str(ROOT / "pipeline" / "preset.py"))["main"](name)
        return replaced

    return run


def test_the_command_says_what_it_takes_and_hands_over_to_dvc(
    command: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = ["dvc", "exp", "run", "-S", "train.hidden=4", "-S", "train.seeds=[3]"]
    assert command("tiny") == expected
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["About a week.", "dvc exp run -S train.hidden=4 -S 'train.seeds=[3]'"]


def test_a_full_disk_stops_the_study_in_one_line(
    command: Callable[[str], list[str]], tmp_path: Path
) -> None:
    text = TINY.replace("0.001", "1e9")
    (tmp_path / "presets" / "large.yaml").write_text(text)
    with pytest.raises(InputError, match=r"needs about 1000000000\.0 GB, but only .* GB are free"):
        command("large")


def test_an_unknown_preset_is_named_with_those_there_are(
    command: Callable[[str], list[str]],
) -> None:
    with pytest.raises(InputError, match=r"^presets/fll\.yaml: no such preset; there is tiny$"):
        command("fll")


# DVC, but only up to the first stage, which reads all of params.yaml
UP_TO_CHECK = """#!/bin/sh
exec {dvc} "$@" check
"""


@pytest.mark.slow
def test_dvc_takes_the_full_study_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = fresh_clone(tmp_path / "clone", {})
    (tmp_path / "bin").mkdir()
    dvc = tmp_path / "bin" / "dvc"
    dvc.write_text(UP_TO_CHECK.format(dvc=BIN / "dvc"))
    dvc.chmod(0o755)
    clone.environment["PATH"] = f"{dvc.parent}{os.pathsep}{clone.environment['PATH']}"
    assert "Running stage 'check':" in clone.succeed("python", "pipeline/preset.py", "full")
    full = read_params(clone.folder / "params.yaml")
    assert (full.data.source, full.sample.per_class) == ("jigsaw", 20_000)
    assert (full.embed.vectors, full.embed.max_length) == ("glove", None)
    assert (full.train.padding, full.train.seeds) == (["pre", "none"], [1, 2, 3, 4, 5])
    assert list(full.cells)[:2] == ["rnn", "lstm"]
    assert full.probe.comments == 100
    assert (
        "(question)" in (clone.folder / "params.yaml").read_text()
    )  # the comments are still there
