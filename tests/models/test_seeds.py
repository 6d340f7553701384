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
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.seeds import train_cell
from rnngrad.params import EmbedParams, TrainParams, read_params

# Lightning's advice; pytest shows what the stage itself ignores
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty.*"),
]
ROOT = Path(__file__).parents[2]
FILES = {"digest.txt", "history.csv", "predictions.csv", "test.json"}


@pytest.fixture
def train(
    make_sample: Callable[..., tuple[TokenizedSample, np.ndarray]],
    make_train_params: Callable[..., TrainParams],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., set[str]]:
    """Train RNNs on twelve comments; says which seeds were trained, not taken as they were."""
    # a process would take seconds to import Lightning
    monkeypatch.setattr("rnngrad.kept.pool", lambda *_, **__: ThreadPoolExecutor(1))
    sample, vectors = make_sample([3, 5, 2, 4, 6, 3] * 2, ["train", "validation", "test"], 3)
    (tmp_path / "embed").mkdir()
    sample.save(tmp_path / "embed" / "tokens.npz")
    np.save(tmp_path / "embed" / "vectors.npy", vectors)
    folder = tmp_path / "train" / "rnn"

    def which(seeds: list[int], padding: str = "pre", **changes: Any) -> set[str]:
        embed = read_params(ROOT / "params.yaml").embed.model_copy(update={"padding": padding})
        before = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/test.json")}
        params = make_train_params(seeds=seeds, epochs=1, **changes)
        train_cell("rnn", params, EmbedParams.model_validate(embed.model_dump()), tmp_path)
        after = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/test.json")}
        assert {*after} == {f"seed-{seed}" for seed in seeds}
        return {name for name in after if after[name] != before.get(name)}

    return which


def test_one_more_seed_trains_one_more_model(
    train: Callable[..., set[str]], tmp_path: Path
) -> None:
    assert train([1]) == {"seed-1"}
    assert train([2, 1]) == {"seed-2"}
    assert train([2, 1]) == set()
    folder = tmp_path / "train" / "rnn"
    for seed in (1, 2):
        weights = {f"init-{seed}.pt", f"trained-{seed}.pt"}
        assert {path.name for path in (folder / f"seed-{seed}").iterdir()} == FILES | weights
    metrics = json.loads((folder / "metrics.json").read_text())
    card = json.loads((folder / "model_card.json").read_text())
    tests = [json.loads((folder / f"seed-{seed}" / "test.json").read_text()) for seed in (2, 1)]
    accuracies = [test["metrics"]["accuracy"] for test in tests]
    assert card["test"]["per_seed"]["accuracy"] == accuracies
    assert metrics["accuracy"]["mean"] == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert card["settings"]["seeds"] == [2, 1]
    assert card["test_comments"] == len(pd.read_csv(folder / "seed-1" / "predictions.csv")) == 4
    assert train([1]) == set()
    assert json.loads((folder / "model_card.json").read_text())["settings"]["seeds"] == [1]


def test_another_setting_or_line_of_code_trains_all(
    train: Callable[..., set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = shutil.copytree(Path(rnngrad.__path__[0]), tmp_path / "rnngrad")
    monkeypatch.setattr("rnngrad.__path__", [str(package)])
    everything = {"seed-1", "seed-2"}
    assert train([1, 2]) == everything
    assert train([1, 2], hidden=7) == everything
    assert train([1, 2], hidden=7, padding="post") == everything
    np.save(tmp_path / "embed" / "vectors.npy", np.load(tmp_path / "embed" / "vectors.npy") * 2)
    assert train([1, 2], hidden=7, padding="post") == everything
    with (package / "report" / "tables.py").open("a") as file:
        file.write("# what a training does not depend on")
    assert train([1, 2], hidden=7, padding="post") == set()
    for code in ("models/shared_padding.py", "data/batches.py"):
        with (package / code).open("a") as file:
            file.write("# another step")
        assert train([1, 2], hidden=7, padding="post") == everything
