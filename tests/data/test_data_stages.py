"""Stages 1 to 3 as commands: what they write, that it repeats, and how they refuse bad input."""

import gzip
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from study_folder import Study

from rnngrad.data.tokenized import TokenizedSample

OUTPUTS = [
    "comments.parquet",
    "data_card.json",
    "embed/card.json",
    "embed/digest.txt",
    "embed/tokens.npz",
    "embed/vectors.npy",
    "sample.parquet",
]
HEADER = "id,comment_text,toxic\n"
SECRET = "hushhush"


def comments_csv(rows=40):
    return HEADER + "".join(f'{i},"{SECRET} word{i % 7},\nor two",{i % 2}\n' for i in range(rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study after its stages."""
    study = Study(tmp_path_factory.mktemp("made"))
    result = study.run("download", "sample", "embed")
    assert result.returncode == 0, result.stderr
    return study


@pytest.fixture
def copied(study, made):
    """A copy of it, in a folder of its own."""
    shutil.copytree(made.folder / "build", study.folder / "build")
    return study


def test_the_demo_from_end_to_end_twice(copied):
    first = copied.outputs()
    assert sorted(first) == OUTPUTS
    copied.run("download", "sample", "embed")
    assert copied.outputs() == first


def test_the_outputs_fit_together(made):
    build = made.folder / "build"
    table = pd.read_parquet(build / "sample.parquet")
    sample = TokenizedSample.load(build / "embed" / "tokens.npz")
    vectors = np.load(build / "embed" / "vectors.npy")
    card = json.loads((build / "embed" / "card.json").read_text())
    # a word of the demo is a token, so a distance in words is one in tokens
    assert sample.lengths.tolist() == [len(text.split()) for text in table["text"]]
    assert sample.labels.tolist() == table["label"].tolist()
    assert sample.max_length() == card["longest_comment"] == 1403
    assert vectors.shape == (card["vocabulary"] + 1, 4)
    assert sample.tokens.min() == 1
    assert sample.tokens.max() == card["vocabulary"]
    told = ~np.isnan(sample.telling_distance)
    assert told.sum() > 15
    assert (sample.telling_distance[told] < sample.lengths[told]).all()


def test_a_csv_file_and_a_vectors_file(study):
    name = "comments.csv.gz"
    (study.folder / name).write_bytes(gzip.compress(comments_csv().encode()))
    (study.folder / "vectors.txt").write_text(f"the 1 2 3 4\n{SECRET} 1 1 1 1\n")
    study.edit(
        data__source="csv", data__path=name, embed__vectors="file", embed__path="vectors.txt"
    )
    result = study.run("download", "sample", "embed")
    assert result.returncode == 0, result.stderr
    card = json.loads((study.folder / "build" / "data_card.json").read_text())
    assert card["source"] == f"csv {name}"
    assert card["sample"]["classes"] == {"0": 20, "1": 20}
    for text in (result.stdout, result.stderr, json.dumps(card)):
        assert SECRET not in text


def refused(study, stage, *expected):
    """Run a stage that must fail; nothing but its one line may come of it."""
    before = study.outputs()
    result = study.run(stage)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{stage}: ")
    for part in expected:
        assert part in lines[0]
    assert SECRET not in result.stdout + result.stderr
    assert study.outputs() == before


def test_download_refuses_a_bad_csv_file(study):
    (study.folder / "comments.csv").write_text(HEADER + f"1,{SECRET},0\n2,{SECRET},5\n")
    study.edit(data__source="csv", data__path="comments.csv")
    refused(study, "download", "comments.csv: data row 2", "is not 0 or 1")


@pytest.mark.parametrize(
    ("stage", "needed", "before"),
    [("sample", "comments.parquet", "download"), ("embed", "sample.parquet", "sample")],
)
def test_a_stage_says_which_one_to_run_first(study, stage, needed, before):
    refused(study, stage, f"build/{needed}: not found; run the {before} stage first")
    (study.folder / "build").mkdir()
    (study.folder / "build" / needed).write_bytes(b"no parquet")
    refused(study, stage, f"build/{needed}: cannot be read", f"run the {before} stage again")


@pytest.mark.parametrize(
    ("stage", "needed", "place"),
    [("sample", "comments.parquet", 0.3), ("embed", "sample.parquet", 0.5)],
)
def test_a_bit_that_has_changed_in_a_table_is_noticed(copied, stage, needed, place):
    path = copied.folder / "build" / needed
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    refused(copied, stage, f"build/{needed}: cannot be read")


def test_the_data_room_needs_neither_torch_nor_lightning_nor_mlflow():
    code = (
        "import sys, rnngrad.data.embedding, rnngrad.data.sampling, rnngrad.data.sources; "
        "print({'torch', 'pytorch_lightning', 'mlflow', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
