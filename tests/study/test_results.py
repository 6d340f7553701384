"""Results are read from the files of every model, or what is missing is named."""

import json
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rnngrad.errors import InputError
from rnngrad.params import Params
from rnngrad.stage import seal
from rnngrad.study import WEIGHTS
from rnngrad.study.results import GATES, MEASURES, load_results
from tiny import make_params

TRIANGLE = np.array([[0, np.nan], [-2, 0]], dtype=np.float32)


def write(path: Path, *columns: str, rows: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([dict.fromkeys(columns, 1)] * rows, columns=list(columns)).to_csv(
        path, index=False
    )


@pytest.fixture
def params() -> Params:
    cells: dict[str, Any] = {cell: {"seeds": [1, 2, 6]} for cell in ("rnn", "lstm")}
    return make_params({"question": {}}).model_copy(update={"cells": cells})


@pytest.fixture
def build(params: Params, tmp_path: Path) -> Path:
    for cell in params.cells:
        for seed in (1, 2, 6):
            for padding in ("pre", "none"):
                model = tmp_path / "train" / cell / padding / f"seed-{seed}"
                write(model / "history.csv", "seed", "loss")
                (model / "test.json").write_text(json.dumps({"metrics": {"loss": seed / 10}}))
            for weights in WEIGHTS:
                folder = tmp_path / "probe" / cell / f"{weights}-{seed}"
                for name, cells in MEASURES.items():
                    if cell in cells and (name, weights) != ("remembered", "init"):
                        columns = ("cell", "seed", "weights", "step")
                        # the first trained LSTM knows no telling word
                        none = name == "remembered" and seed == 1
                        write(folder / f"{name}.csv", *columns, rows=1 - none)
                np.savez(folder / "triangle.npz", triangle=TRIANGLE + seed)
        (tmp_path / "train" / cell / "model_card.json").write_text('{"settings": {}}')
    write(tmp_path / "probe" / "lstm" / "tutorial" / "tutorial.csv", "loss", "step", "norm")
    (tmp_path / "embed").mkdir()
    for path in (tmp_path / "data_card.json", tmp_path / "embed" / "card.json"):
        path.write_text(json.dumps({"given": {}, "sample": {}, "splits": {}, "dimensions": 3}))
    write(tmp_path / "conditions" / "conditions.csv", "condition")
    write(tmp_path / "conditions" / "seeds.csv", "condition", "seed")
    write(tmp_path / "conditions" / "curves.csv", "condition", "step")
    return tmp_path


def test_the_tables_of_all_models_are_one(build: Path, params: Params) -> None:
    results = load_results(build, params)
    assert len(results.curves) == 2 * 3 * 3
    assert len(results.gates) == 3 * 3
    names = ["cell", "weights", "seed"]
    assert results.tests.set_index(names)["loss"]["lstm", "trained", 6] == 0.6
    assert len(results.tests) == 2 * 2 * 3
    assert {*results.history["weights"]} == {"trained", "trained_without_padding"}
    rows = {name: len(table) for name, table in results.evidence.items()}
    both, one, trained = 18, 9, 8
    assert rows == {
        "influences": both,
        "shares": both,
        "output_gates": one,
        "paths": one,
        "powers": one,
        "reach": both,
        "remembered": trained,
        "tutorial": 1,
    }
    assert {*results.triangles} == {(c, w) for c in ("rnn", "lstm") for w in WEIGHTS}
    for triangle in results.triangles.values():
        np.testing.assert_array_equal(triangle, TRIANGLE + 2)
        assert triangle.dtype == np.float32


def test_a_study_without_an_lstm_has_no_measures_of_one(build: Path, params: Params) -> None:
    results = load_results(build, params.model_copy(update={"cells": {"rnn": {"seeds": [1, 2]}}}))
    assert results.gates.empty
    assert {*GATES} == {*results.gates}
    assert {*results.evidence} == {"influences", "shares", "powers", "reach", "remembered"}
    np.testing.assert_array_equal(results.triangles["rnn", "init"], TRIANGLE + 1.5)


def test_a_study_with_one_way_of_training_has_no_other(build: Path, params: Params) -> None:
    train = params.train.model_copy(update={"padding": ["none"]})
    results = load_results(build, params.model_copy(update={"train": train}))
    assert results.weights == ["init", "trained_without_padding"]
    assert {weights for _, weights in results.triangles} == {*results.weights}
    assert {*results.tests["weights"]} == {"trained_without_padding"}


@pytest.mark.parametrize("name", ["paths.csv", "triangle.npz"])
def test_a_missing_measure_is_named(name: str, build: Path, params: Params) -> None:
    (build / "probe" / "lstm" / "trained-6" / name).unlink()
    with pytest.raises(InputError, match=f"lstm.trained-6.{name}: not found"):
        load_results(build, params)


def test_whatever_file_is_damaged_is_named(build: Path, params: Params) -> None:
    files = [path for path in build.rglob("*") if path.is_file()]
    for folder in {path.parent for path in files}:
        seal(folder)
    one = params.model_copy(update={"cells": {cell: {"seeds": [6]} for cell in params.cells}})
    load_results(build, one)
    files = [path for path in files if not path.parent.name.endswith(("-1", "-2"))]
    for path, what in zip(files, cycle(("cut", "empty", "zeros")), strict=False):
        content = path.read_bytes()
        half = content[: len(content) // 2]
        path.write_bytes({"cut": half, "empty": b"", "zeros": b"\0" * 99}[what])
        with pytest.raises(InputError, match=f"{path.name}: cannot be read .*; run dvc repro"):
            load_results(build, one)
        path.write_bytes(content)
    assert len(files) > 30
