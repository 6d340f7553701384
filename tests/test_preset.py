"""Presets: what they change, what they refuse, what they say beforehand, what they would run."""

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnngrad.data.glove import GLOVE
from rnngrad.data.jigsaw import JIGSAW
from rnngrad.errors import InputError
from rnngrad.models.classifier import CommentClassifier
from rnngrad.params import Params, read_params
from rnngrad.preset import disk, duration
from rnngrad.preset.estimate import in_words, time_lines
from rnngrad.preset.lengths import Lengths, lengths_of
from rnngrad.preset.settings import Preset, merged, read_preset

ROOT = Path(__file__).parent.parent
RATES = duration.Rates(
    duration.Line(0.02, 0.0005), duration.Line(0.01, 0.0002), duration.Line(1.0, 0.5)
)


@pytest.fixture
def preset(tmp_path: Path) -> Callable[[str], Preset]:
    def read(text: str) -> Preset:
        (tmp_path / "mine.yaml").write_text(text)
        return read_preset("mine", tmp_path, ROOT / "params.yaml")

    return read


@pytest.fixture
def full() -> Params:
    return read_preset("full", ROOT / "presets", ROOT / "params.yaml").params


def test_the_full_study_is_what_the_question_did(full: Params) -> None:
    assert (full.data.source, full.sample.per_class) == ("jigsaw", 20_000)
    assert (full.embed.vectors, full.embed.padding, full.embed.max_length) == ("glove", "pre", None)
    assert full.train.epochs == 10
    assert len(full.train.seeds) == 5
    assert list(full.cells)[:2] == ["rnn", "lstm"]


def test_a_preset_changes_what_it_names_and_nothing_else(preset: Callable[..., Preset]) -> None:
    default = read_params(ROOT / "params.yaml")
    changed = preset("train: {epochs: 3, seeds: [7]}\ncells: {lstm: {forget_bias: 3.0}}").params
    train = default.train.model_copy(update={"epochs": 3, "seeds": [7]})
    assert changed.train == train
    assert changed.train_of("lstm").forget_bias == 3.0
    assert changed.model_copy(update={"train": default.train, "cells": default.cells}) == default


def test_merging_replaces_lists_and_alters_neither() -> None:
    base, changes = {"a": {"b": [1, 2], "c": 1}}, {"a": {"b": [3]}, "d": {}}
    assert merged(base, changes) == {"a": {"b": [3], "c": 1}, "d": {}}
    assert base == {"a": {"b": [1, 2], "c": 1}}


def test_settings_are_written_as_dvc_reads_them(tmp_path: Path) -> None:
    """A key that params.yaml does not have yet is added."""
    base = (ROOT / "params.yaml").read_text()
    assert "  gru: {}\n" in base
    (tmp_path / "params.yaml").write_text(base.replace("  gru: {}\n", ""))
    (tmp_path / "mine.yaml").write_text("""
sample: {per_class: 50, filler: "o'clock"}
embed: {max_length: null, vectors: glove}
conditions: {question: {sliced_input: true}}
cells: {gru: {}, lstm: {forget_bias: 3.0}}
train: {seeds: [1, 2]}
""")
    assert read_preset("mine", tmp_path, tmp_path / "params.yaml").settings == [
        "sample.per_class=50",
        r"sample.filler='o\'clock'",
        "embed.max_length=null",
        "embed.vectors=glove",
        "conditions.question.sliced_input=true",
        "+cells.gru={}",
        "+cells.lstm.forget_bias=3.0",
        "train.seeds=[1,2]",
    ]


BAD = {
    "unknown key": ("train: {epoch: 3}", "train.epoch: unknown key"),
    "unknown section": ("trian: {epochs: 3}", "trian: unknown key"),
    "ill-typed": ("train: {epochs: ten}", "train.epochs: input should be a valid integer"),
    "unknown key of a cell": ("cells: {lstm: {bias: 3}}", "cells.lstm.bias: unknown key"),
    "no mapping": ("- 3", "not a mapping"),
    "no YAML": ("train: [", "not valid YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_preset_is_named_in_one_line(case: str, preset: Callable[..., Preset]) -> None:
    text, message = BAD[case]
    with pytest.raises(InputError, match=r"mine\.yaml: ") as caught:
        preset(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_preset_names_those_that_there_are() -> None:
    with pytest.raises(InputError, match="no such preset; there is full"):
        read_preset("fll", ROOT / "presets", ROOT / "params.yaml")


def sized(params: Params, per_class: int) -> tuple[Params, Lengths]:
    sample = params.sample.model_copy(update={"per_class": per_class})
    changed = params.model_copy(update={"sample": sample})
    return changed, lengths_of(changed)


def test_the_sample_has_the_lengths_of_real_comments(full: Params) -> None:
    lengths = lengths_of(full)
    assert len(lengths.sample) == 40_000
    assert lengths.steps == 1403
    assert np.median(lengths.sample) == 36
    assert lengths.sample.mean() == pytest.approx(68, abs=3)
    short = full.model_copy(update={"embed": full.embed.model_copy(update={"max_length": 100})})
    assert lengths_of(short).steps == 100


def test_a_files_comments_are_counted(full: Params, tmp_path: Path) -> None:
    rows = "\n".join(f"{'word ' * n},{n % 2}" for n in range(1, 41))
    (tmp_path / "mine.csv").write_text(f"comment_text,toxic\n{rows}\n")
    data = full.data.model_copy(update={"source": "csv", "path": str(tmp_path / "mine.csv")})
    lengths = lengths_of(sized(full.model_copy(update={"data": data}), 10)[0])
    assert len(lengths.sample) == 20
    assert (lengths.steps, lengths.words_given) == (40, 820)


def test_the_time_grows_linearly_in_comments_epochs_and_seeds(
    full: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration, "cores", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    train = full.train
    seconds = {}
    for per_class in (10_000, 20_000):
        params, lengths = sized(full, per_class)
        data = duration.stand_in(params, train, lengths)
        seconds[per_class] = duration.training_seconds(RATES, train, data)
        twice = train.model_copy(update={"epochs": 2 * train.epochs})
        more = duration.training_seconds(RATES, twice, data)
        assert more == pytest.approx(2 * seconds[per_class], rel=0.02)
        # five seeds share two cores, two have one each
        two = train.model_copy(update={"seeds": [1, 2]})
        less = duration.training_seconds(RATES, two, data)
        assert less == pytest.approx(seconds[per_class] / 2.5)
    assert seconds[20_000] == pytest.approx(2 * seconds[10_000], rel=0.05)
    assert duration.probing_seconds(RATES, train, 100) == pytest.approx(2 * 5 * 51 / 2)


def test_a_cell_is_timed_on_this_machine(full: Params) -> None:
    train = full.train.model_copy(update={"hidden": 4})
    embed = full.embed.model_copy(update={"dimensions": 3, "max_length": 60})
    probe = full.probe.model_copy(update={"spectral_steps": 3})
    small = full.model_copy(update={"train": train, "embed": embed, "probe": probe})
    params, lengths = sized(small, 200)
    rates = duration.measure("lstm", params, lengths)
    for line in rates:
        assert line.fixed >= 0
        assert line.slope >= 0
        assert 0 < line.seconds(np.array([50])) < 10


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_parameters_are_counted_without_building_the_model(cell: str, full: Params) -> None:
    train = full.train.model_copy(update={"hidden": 7})
    model = CommentClassifier(cell, 5, train)
    assert disk.parameters(cell, 5, 7) == sum(p.numel() for p in model.parameters())


def test_what_is_in_the_cache_is_not_downloaded_again(
    full: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNGRAD_CACHE", str(tmp_path))
    assert sum(mirror.size for mirror in disk.downloads(full)) == 268_434_612
    for mirror in (GLOVE[0], JIGSAW["test.csv"][0]):
        with (tmp_path / mirror.name).open("wb") as file:
            file.truncate(mirror.size)
    left = [mirror.name for mirror in disk.downloads(full)]
    assert left == ["train.csv", "test_labels.csv"]
    assert disk.downloads(read_params(ROOT / "params.yaml")) == []


def test_the_disk_holds_more_for_more_comments(full: Params) -> None:
    few, many = (
        disk.disk_needs(*sized(full, per_class))[Path.cwd()] for per_class in (2_000, 20_000)
    )
    assert 1e8 < few < many < 2e9


def test_a_full_disk_stops_the_study_in_one_line(tmp_path: Path) -> None:
    disk.check_disk({tmp_path: 1, tmp_path / "not" / "there": 1})
    with pytest.raises(InputError, match=r"needs about 2000000000\.0 GB below .* are free there"):
        disk.check_disk({tmp_path: 10**18, tmp_path / "not" / "there": 10**18})


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "10 s"), (76, "80 s"), (200, "3 min"), (3.35 * 3600, "3 h 20 min"), (7190, "2 h")],
)
def test_durations_are_coarse(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


TINY = """
train: {hidden: 4, seeds: [3]}
sample: {per_class: 60}
embed: {dimensions: 3, max_length: 40}
probe: {comments: 2, spectral_steps: 3}
"""


@pytest.mark.slow
def test_every_cell_is_estimated_in_workers(
    preset: Callable[..., Preset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    params = preset(TINY).params
    *cells, together = time_lines(params, lengths_of(params))
    assert [line.split(":")[0] for line in cells] == list(params.cells)
    assert "about 10 s to train 1 seed for 10 epochs" in cells[0]
    assert "together about 10 s on" in together


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Calls the command in a project of its own; what it would put in its place, if anything."""
    replaced: list[Any] = []
    shutil.copy2(ROOT / "params.yaml", tmp_path)
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "tiny.yaml").write_text(TINY)

    def estimate(*_: object) -> list[str]:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as workers do
        return ["about a week"]

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("rnngrad.preset.estimate.time_lines", estimate)
    monkeypatch.setattr("os.execvpe", lambda *given: replaced.extend(given))
    monkeypatch.setattr("shutil.which", lambda _: "dvc")

    def run(*arguments: str) -> list[Any]:
        runpy.run_path(str(ROOT / "pipeline" / "preset.py"))["main"](*arguments)
        return replaced

    return run


def test_the_command_says_what_it_takes_and_hands_over_to_dvc(
    command: Callable[..., list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    program, arguments, environment = command("tiny")
    expected = "dvc exp run -S train.hidden=4 -S train.seeds=[3] -S sample.per_class=60"
    assert program == "dvc"
    assert " ".join(arguments).startswith(expected)
    assert "OMP_NUM_THREADS" not in environment
    said = capsys.readouterr().out
    assert "120 comments of up to 40 words; to download: nothing" in said
    assert "about a week" in said


def test_the_command_can_stop_at_the_estimate(
    command: Callable[..., list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("tiny", "--estimate-only") == []
    assert "about a week" in capsys.readouterr().out


def test_the_command_names_an_unknown_preset(command: Callable[..., list[Any]]) -> None:
    with pytest.raises(InputError, match=r"^presets/fll\.yaml: no such preset; there is tiny$"):
        command("fll")


@pytest.mark.slow
def test_dvc_takes_the_full_study_in_a_fresh_clone(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            arguments,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in run(*listed).splitlines():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    run("git", "init", "--quiet")
    run("git", "add", "--all")
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    run("git", *who, "commit", "--quiet", "--message", "fresh")
    full = read_preset("full", tmp_path / "presets", tmp_path / "params.yaml")
    settings = [part for setting in full.settings for part in ("-S", setting)]
    # the first stage is the one that reads all of params.yaml
    assert "Running stage 'check':" in run("dvc", "exp", "run", *settings, "check")
    assert read_params(tmp_path / "params.yaml") == full.params
    assert "(question)" in (tmp_path / "params.yaml").read_text()  # the comments are still there
