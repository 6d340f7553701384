"""Stages 1 to 3 as commands: what they write, that it repeats, and how they refuse bad input."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

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


def test_the_demo_from_end_to_end_twice(study):
    result = study.run("download", "sample", "embed")
    assert result.returncode == 0, result.stderr
    first = study.outputs()
    assert sorted(first) == OUTPUTS
    study.run("download", "sample", "embed")
    assert study.outputs() == first


def test_the_outputs_fit_together(study):
    study.run("download", "sample", "embed")
    build = study.folder / "build"
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


@pytest.mark.parametrize("name", ["comments.csv", "comments.csv.gz"])
def test_a_csv_file_and_a_vectors_file(study, name):
    content = comments_csv().encode()
    (study.folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
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


CSV_FAULTS = {
    "missing": (
        None,
        ["comments.csv: cannot be read (No such file or directory); "],
    ),
    "empty": ("", ["comments.csv: cannot be read (No columns to parse"]),
    "no columns": (
        f"a,b\n1,{SECRET}\n",
        ["comments.csv: no column comment_text or toxic among its 2"],
    ),
    "label": (HEADER + f"1,{SECRET},0\n2,{SECRET},5\n", ["data row 2", "is not 0 or 1"]),
}


@pytest.mark.parametrize("fault", CSV_FAULTS)
def test_download_refuses_a_bad_csv_file(study, fault):
    content, expected = CSV_FAULTS[fault]
    if content is not None:
        (study.folder / "comments.csv").write_text(content)
    study.edit(data__source="csv", data__path="comments.csv")
    refused(study, "download", *expected)


def test_download_without_a_network(study, monkeypatch):
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("RNNGRAD_CACHE", str(study.folder / "cache"))
    study.edit(data__source="jigsaw")
    place = str(study.folder / "cache" / "train.csv")
    refused(study, "download", "train.csv cannot be downloaded from https://", place)
    assert list((study.folder / "cache").iterdir()) == []


def test_sample_refuses_a_class_with_too_few_rows(study):
    study.run("download")
    study.edit(sample__per_class=21)
    refused(study, "sample", "sample.per_class asks for 21", "class 0 has 20")


def test_sample_refuses_comments_without_words(study):
    blank = HEADER + "".join(f"{i}, ,{i % 2}\n" for i in range(10))
    (study.folder / "comments.csv").write_text(blank)
    study.edit(data__source="csv", data__path="comments.csv")
    study.run("download")
    refused(study, "sample", "0 comments of each class leave none")


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
    ("stage", "needed"), [("sample", "comments.parquet"), ("embed", "sample.parquet")]
)
@pytest.mark.parametrize("place", [0.3, 0.5])
def test_a_bit_that_has_changed_in_a_table_is_noticed(study, stage, needed, place):
    study.run("download", "sample")
    path = study.folder / "build" / needed
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    refused(study, stage, f"build/{needed}: cannot be read")


VECTOR_FAULTS = {
    "missing": (None, "(No such file or directory); get it again, or correct embed.path"),
    "dimensions": ("the 1 2\n", "vectors.txt: line 1: not a word and 4 numbers (embed.dimensions)"),
    "text": ("the 1 2 3 4\na 1 2 x 4\n", "vectors.txt: line 2: not a word and 4 numbers"),
    "truncated": ("the 1 2 3 4\na 1 2", "vectors.txt: line 2: not a word and 4 numbers"),
}


@pytest.mark.parametrize("fault", VECTOR_FAULTS)
def test_embed_refuses_a_bad_vectors_file(study, fault):
    content, expected = VECTOR_FAULTS[fault]
    study.run("download", "sample")
    if content is not None:
        (study.folder / "vectors.txt").write_text(content)
    study.edit(embed__vectors="file", embed__path="vectors.txt")
    refused(study, "embed", expected)


def test_embed_refuses_a_sample_too_small_for_its_dimensions(study):
    (study.folder / "comments.csv").write_text(comments_csv())
    study.edit(data__source="csv", data__path="comments.csv", embed__dimensions=50)
    study.run("download", "sample")
    refused(study, "embed", "embed.dimensions is 50, but the sample has", "lower it")


@pytest.mark.parametrize("stage", ["download", "sample", "embed"])
def test_every_stage_checks_the_params(study, stage):
    study.edit(data__colour="blue")
    refused(study, stage, "params.yaml: data.colour: unknown key")


def test_the_data_room_needs_neither_torch_nor_lightning_nor_mlflow():
    code = (
        "import sys, rnngrad.data.embedding, rnngrad.data.sampling, rnngrad.data.sources; "
        "print({'torch', 'pytorch_lightning', 'mlflow', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
