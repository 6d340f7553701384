"""The models of a cell: which are trained, and what they come to together."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rnngrad
from rnngrad.models.seeds import train_cell
from tiny import make_sample, make_train_params

# Lightning's advice; pytest shows what the stage itself ignores
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty.*"),
]
FILES = {"digest.txt", "history.csv", "predictions.csv", "test.json"}


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    """Train RNNs on twelve comments; says which models, such as "pre 1", were trained."""
    # a process would take seconds to import Lightning
    monkeypatch.setattr("rnngrad.kept.pool", lambda *_, **__: ThreadPoolExecutor(1))
    sample, vectors = make_sample([3, 5, 2, 4, 6, 3] * 2, ["train", "validation", "test"], 3)
    (tmp_path / "embed").mkdir()
    sample.save(tmp_path / "embed" / "tokens.npz")
    np.save(tmp_path / "embed" / "vectors.npy", vectors)
    folder = tmp_path / "train" / "rnn"

    def made() -> dict[str, int]:
        files = folder.glob("*/*/test.json")
        return {str(p.parent.relative_to(folder)): p.stat().st_mtime_ns for p in files}

    def which(*models: str, **changes: Any) -> set[str]:
        paddings, seeds = (
            dict.fromkeys(names) for names in zip(*map(str.split, models), strict=True)
        )
        params = make_train_params(
            seeds=[int(seed) for seed in seeds], padding=[*paddings], epochs=1, **changes
        )
        before = made()
        train_cell("rnn", params, None, tmp_path)
        after = made()
        assert {*after} == {model.replace(" ", "/seed-") for model in models}
        return {name.replace("/seed-", " ") for name in after if after[name] != before.get(name)}

    return which


def test_one_more_seed_or_padding_trains_the_models_that_are_new(
    train: Callable[..., set[str]], tmp_path: Path
) -> None:
    assert train("pre 1") == {"pre 1"}
    assert train("pre 2", "pre 1") == {"pre 2"}
    assert train("pre 2", "pre 1") == set()
    both = ("none 2", "none 1", "pre 2", "pre 1")
    assert train(*both) == {"none 2", "none 1"}
    folder = tmp_path / "train" / "rnn"
    for padding, seed in (("pre", 1), ("none", 2)):
        weights = {f"init-{seed}.pt", f"trained-{seed}.pt"}
        files = (folder / padding / f"seed-{seed}").iterdir()
        assert {path.name for path in files} == FILES | weights
    card = json.loads((folder / "model_card.json").read_text())
    tests = [(folder / padding / "seed-1" / "test.json").read_text() for padding in ("pre", "none")]
    assert tests[0] != tests[1]
    assert (card["settings"]["seeds"], card["settings"]["padding"]) == ([2, 1], ["none", "pre"])
    predictions = pd.read_csv(folder / "pre" / "seed-1" / "predictions.csv")
    assert card["test_comments"] == len(predictions) == 4
    assert train("none 1") == set()
    assert json.loads((folder / "model_card.json").read_text())["settings"]["seeds"] == [1]
    assert not (folder / "pre").exists()


def test_another_setting_or_line_of_code_trains_all(
    train: Callable[..., set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = shutil.copytree(Path(rnngrad.__path__[0]), tmp_path / "rnngrad")
    monkeypatch.setattr("rnngrad.__path__", [str(package)])
    models = ("pre 1", "pre 2")
    assert train(*models) == {*models}
    assert train(*models, hidden=7) == {*models}
    np.save(tmp_path / "embed" / "vectors.npy", np.load(tmp_path / "embed" / "vectors.npy") * 2)
    assert train(*models, hidden=7) == {*models}
    with (package / "report" / "render.py").open("a") as file:
        file.write("# what a training does not depend on")
    assert train(*models, hidden=7) == set()
    for code in ("models/shared_padding.py", "data/batches.py"):
        with (package / code).open("a") as file:
            file.write("# another step")
        assert train(*models, hidden=7) == {*models}
