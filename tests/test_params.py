from difflib import ndiff
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import modify_yaml

from rnngrad.errors import InputError
from rnngrad.params import read_params

ROOT = Path(__file__).parent.parent
DEFAULT = (ROOT / "params.yaml").read_text()
PADDINGS, SEEDS = "  - pre\n  - none\n", "  - 1\n  - 2\n  - 3\n  - 4\n  - 5\n"

BAD = {
    "another question": (
        "    arithmetic: log ",
        "    arithmetic: float32 ",
        "conditions: question.arithmetic is log; set another one in a case",
    ),
    "training of untrained weights": (
        "{factor: averaging,",
        "{factor: averaging, trained_with: none,",
        "conditions.cases.averaging_bug.trained_with: initial weights are not trained; remove it",
    ),
    "a cell's own padding": (
        "rnn: {}",
        "rnn: {padding: [pre]}",
        "cells.rnn.padding: all cells have train.padding; remove it",
    ),
    "no padding at all": (PADDINGS, "    []\n", "train.padding: list should have"),
    "padding behind": (
        PADDINGS,
        "  - post\n",
        "train.padding.0: input should be 'pre' or 'none', got 'post'",
    ),
    "unknown key": ("hidden: 200", "hiden: 200", "train.hiden: unknown key"),
    "text for a number": ("epochs: 4", "epochs: ten", "train.epochs: input should be a valid"),
    "unknown cell": ("rnn: {}", "elman: {}", "cells.elman"),
    "unknown key of a cell": ("rnn: {}", "rnn: {epoch: 3}", "cells.rnn.epoch: unknown key"),
    "a forget bias without a forget gate": (
        "gru: {}",
        "gru: {forget_bias: 2.0}",
        "cells.gru.forget_bias: it is the LSTM's alone",
    ),
    "csv without a path": ("source: demo", "source: csv", "data.path"),
    "file without a path": ("vectors: corpus", "vectors: file", "embed.path"),
    "the same seed twice": (SEEDS, "  - 1\n  - 1\n", "seeds: must differ from one another"),
    "a bias that is no number": ("forget_bias: 1.0 ", "forget_bias: .nan ", "forget_bias"),
    "unknown key of a case": ("forget_bias: 3.0,", "bias: 3,", "cases.forget_bias_3.bias: unknown"),
    "a case without a factor": (
        "{factor: statistic, statistic: sp",
        "{statistic: sp",
        "factor: field required",
    ),
    "a contradiction": ("initializer: chrono,", "initializer: identity,", "set cells: [rnn]"),
    "units of trained weights": (
        "weights: trained, cells: [rnn, lstm, gru]}",
        "weights: trained, units: 8}",
        "conditions.cases.trained.units: trained weights have that of training; remove it",
    ),
    "a forget bias that the initialiser does not take": (
        "initializer: torch}",
        "initializer: torch, forget_bias: 3.0}",
        "torch_initializer.forget_bias: initializer torch takes none; remove it",
    ),
    "a forget bias of no LSTM": (
        "forget_bias: 3.0, cells: [lstm]",
        "forget_bias: 3.0, cells: [rnn]",
        "forget_bias_3.forget_bias: it is the LSTM's alone; remove it",
    ),
    "padding where no comment is read": (
        "input: random_tokens,",
        "input: random_tokens, padding: none,",
        "minimal_example.padding: of input random_tokens nothing is padded; remove it",
    ),
    "a slice of what a trained model reads": (
        "sliced_input: true, cells: [lstm]",
        "sliced_input: true, weights: trained",
        "sliced_input.sliced_input: trained models read all features; remove it",
    ),
    "a cell's forget bias that its initialiser does not take": (
        "lstm: {}",
        "lstm: {initializer: torch, forget_bias: 2.0}",
        "cells.lstm.forget_bias: initializer torch takes none; remove it",
    ),
    "a path that nothing reads": ("path:       ", "path: a.csv ", "demo reads no data.path"),
    "a path of vectors that nothing reads": (
        "path:                   # file",
        "path: glove.txt         # file",
        "vectors corpus read no embed.path",
    ),
    "a name that is a command": (
        "averaging_bug: {",
        "'x; touch y': {",
        "conditions.cases.x; touch y: string should match pattern",
    ),
    "a name of two lines": ("averaging_bug: {", '"a\\nb": {', r"cases.a\nb: string should match"),
    "a factor that is HTML": ("factor: averaging", "factor: <b>a", "string should match pattern"),
    "no YAML": ("data:", "data: [", "not valid YAML"),
    "5,000 digits": ("epochs: 4", f"epochs: {'9' * 5000}", "not valid YAML: Exceeds the limit"),
    "a list in itself": ("epochs: 4", "epochs: &a [*a]", "train.epochs: input should be a valid"),
    "a long text": ("epochs: 4", f"epochs: {'k' * 5000}", "train.epochs: input should be a valid"),
    "a long key": ("epochs: 4", f"{'k' * 1000}: 3\n  epochs: 4", "kkkk … kkk"),
    "a learning rate that no training stands": (
        "learning_rate: 0.001",
        "learning_rate: 1e3",
        "train.learning_rate: input should be less than or equal to 1, got 1000.0",
    ),
    "a filler of two words": ("filler: the", "filler: a-b", "sample.filler: must be one word"),
    "a filler of none": ("filler: the", "filler: '...'", "sample.filler: must be one word"),
    "steps beyond any comment": ("spectral_steps: 60", "spectral_steps: 2000000000", "100000"),
}


def test_the_committed_params_are_valid() -> None:
    params = read_params(ROOT / "params.yaml")
    assert list(params.cells) == ["rnn", "lstm", "gru"]
    assert params.train_of("lstm") == params.train


@pytest.mark.parametrize("case", BAD)
def test_bad_params_give_one_line_with_file_and_key(case: str, tmp_path: Path) -> None:
    old, new, expected = BAD[case]
    assert old in DEFAULT
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULT.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_params(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert "\n" not in message
    assert len(message) <= 300


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"params\.yaml: cannot be read"):
        read_params(tmp_path / "params.yaml")


def test_exponents_are_numbers_as_for_dvc(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULT.replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert read_params(path).train.learning_rate == 0.001


def test_a_cells_block_overrides_the_shared_settings(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULT.replace("lstm: {}\n  gru: {}", "lstm: {hidden: 7}"))
    params = read_params(path)
    assert params.train_of("lstm").hidden == 7
    assert params.train_of("rnn").hidden == 200
    assert params.has("lstm")
    assert not params.has("gru")
    with pytest.raises(InputError, match="lsmt: no such cell; use one of rnn, lstm, gru"):
        params.has("lsmt")


def test_one_changed_setting_changes_one_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULT)
    with modify_yaml(path) as content:  # as `dvc exp run -S train.hidden=100` does
        content["train"]["hidden"] = 100
    changed = zip(DEFAULT.splitlines(), path.read_text().splitlines(), strict=True)
    assert [(old.split()[:2], new.split()[:2]) for old, new in changed if old != new] == [
        (["hidden:", "200"], ["hidden:", "100"])
    ]


@pytest.mark.parametrize(
    "setting",
    ["train.epochs=5", "++cells.lstm.forget_bias=0.0", "~cells.gru", "train.padding=[none]"],
)
def test_an_experiment_changes_the_lines_of_its_setting_alone(setting: str, tmp_path: Path) -> None:
    """As ``dvc exp run -S`` writes the file: with lists of one item a line, as they stand there."""
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULT)
    apply_overrides(path, [setting])
    before, after = DEFAULT.splitlines(), path.read_text().splitlines()
    changed = [line for line in ndiff(before, after) if line[0] in "+-"]
    assert 1 <= len(changed) <= 3
