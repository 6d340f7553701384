"""The real data's own paths, from a local server that has small files of the same form."""

import gzip
import hashlib
import io
import zipfile

import numpy as np
import pytest

from rnngrad.data.fetch import Mirror, fetch
from rnngrad.data.sources import JIGSAW, jigsaw_comments
from rnngrad.data.vector_file import GLOVE, read_vectors
from rnngrad.errors import InputError

NAMES = "toxic,severe_toxic,obscene,threat,insult,identity_hate"
TRAIN = (
    "id,comment_text," + NAMES + '\na,"x\n""y""",1,0,0,0,1,0\nb,fine,0,0,0,0,0,0\nc,,0,0,0,0,0,0\n'
)
TEST = 'id,comment_text\nd,"two, three"\ne,unscored\nf,four\ng,five\n'
LABELS = f"id,{NAMES}\ng,1,0,0,0,1,0\nd,1,0,0,0,0,0\ne,-1,-1,-1,-1,-1,-1\nf,0,0,0,0,0,0\n"
FILES = {"train.csv": TRAIN, "test.csv": TEST, "test_labels.csv": LABELS}


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def files(server):
    """Mirrors of the three files, served one by one, and all in one zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
            server.files[name] = content.encode()
    server.files["all"] = buffer.getvalue()
    return {
        name: (
            Mirror(server.url + name, name, _sha256(content)),
            Mirror(server.url + "all", name, _sha256(content), archive="jigsaw.zip"),
        )
        for name, content in FILES.items()
    }


def _sha256(content):
    return hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest()


@pytest.mark.parametrize("per_class", [None, 1])
def test_train_is_enough_for_few_comments(files, server, per_class):
    comments = jigsaw_comments("toxic", per_class, files)
    assert comments["text"].tolist() == ['x\n"y"', "fine", ""]
    assert comments["label"].tolist() == [1, 0, 0]
    assert server.requests == ["train.csv"]


def test_test_is_added_when_train_has_too_few_toxic_comments(files, server):
    comments = jigsaw_comments("toxic", 2, files)
    assert comments["text"].tolist() == ['x\n"y"', "fine", "", "two, three", "four", "five"]
    assert comments["label"].tolist() == [1, 0, 0, 1, 0, 1]
    assert comments["label"].dtype == np.int8
    assert server.requests == ["train.csv", "test.csv", "test_labels.csv"]


def test_another_label(files):
    comments = jigsaw_comments("insult", 2, files)
    assert comments["label"].tolist() == [1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("first", ["gone", "cut short", "wrong"])
def test_the_zip_file_steps_in_and_is_fetched_once(files, server, cache, first):
    for name in FILES:
        if first == "gone":
            del server.files[name]
        elif first == "wrong":
            server.files[name] = b"something else"
        else:
            server.cut_short.add(name)
    assert len(jigsaw_comments("toxic", 2, files)) == 6
    assert server.requests.count("all") == 1
    assert {path.name for path in cache.iterdir()} == {*FILES, "jigsaw.zip"}


def test_an_unknown_label(files):
    with pytest.raises(InputError, match=r"train\.csv: no column rude among its 8"):
        jigsaw_comments("rude", None, files)


@pytest.fixture
def glove(server):
    """Two mirrors of the same 100-dimensional vectors: gzip with a header line, and a zip."""
    rows = np.random.default_rng(0).normal(size=(3, 100)).round(4)
    text = "".join(
        f"{word} {' '.join(map(str, row))}\n"
        for word, row in zip(("the", ",", "café"), rows.tolist(), strict=True)
    ).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("glove.6B.50d.txt", "the 0\n")
        archive.writestr("glove.6B.100d.txt", text)
    server.files = {"gz": gzip.compress(b"3 100\n" + text), "zip": buffer.getvalue()}
    first, second = GLOVE
    return rows, (
        Mirror(server.url + "gz", first.name, _sha256(server.files["gz"])),
        Mirror(server.url + "zip", second.name, _sha256(text), second.archive),
    )


@pytest.mark.parametrize(
    ("first", "used"),
    [
        ("good", "glove-wiki-gigaword-100.gz"),
        ("cut short", "glove.6B.100d.txt"),
        ("wrong", "glove.6B.100d.txt"),
    ],
)
def test_glove_from_either_mirror(server, glove, first, used):
    rows, mirrors = glove
    if first == "wrong":
        server.files["gz"] += b"x"
    elif first == "cut short":
        server.cut_short.add("gz")
    path = fetch(mirrors)
    assert path.name == used
    vectors = read_vectors(path, {"café": 1, "the": 2}, 100)
    np.testing.assert_array_equal(vectors[1:], rows[[2, 0]].astype(np.float32))


def test_no_mirror_of_glove_works(server, glove, cache):
    server.files["gz"] += b"x"
    server.cut_short.add("zip")
    with pytest.raises(InputError, match=r"gz \(wrong checksum\) or .*zip \(Chunked"):
        fetch(glove[1])
    assert list(cache.iterdir()) == []


def test_every_file_has_two_mirrors_of_known_content():
    for mirrors in (*JIGSAW.values(), GLOVE):
        assert len(mirrors) == 2
        for mirror in mirrors:
            assert mirror.url.startswith("https://")
            assert len(bytes.fromhex(mirror.sha256)) == 32
