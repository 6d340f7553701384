"""The real data's own paths, from a local server that has small files of the same form."""

import hashlib

import numpy as np
import pytest

from rnngrad.data.sources import JIGSAW, jigsaw_comments
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
def served(server, monkeypatch):
    """The three files, in place of the real ones."""
    for name, content in FILES.items():
        server.files[name] = content.encode()
        monkeypatch.setitem(JIGSAW, name, (server.url + name, _sha256(content.encode())))


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("per_class", [None, 1])
@pytest.mark.usefixtures("served")
def test_train_is_enough_for_few_comments(server, per_class):
    comments = jigsaw_comments("toxic", per_class)
    assert comments["text"].tolist() == ['x\n"y"', "fine", ""]
    assert comments["label"].tolist() == [1, 0, 0]
    assert server.requests == ["train.csv"]


@pytest.mark.usefixtures("served")
def test_test_is_added_when_train_has_too_few_toxic_comments(server):
    comments = jigsaw_comments("toxic", 2)
    assert comments["text"].tolist() == ['x\n"y"', "fine", "", "two, three", "four", "five"]
    assert comments["label"].tolist() == [1, 0, 0, 1, 0, 1]
    assert comments["label"].dtype == np.int8
    assert server.requests == ["train.csv", "test.csv", "test_labels.csv"]


@pytest.mark.usefixtures("served")
def test_another_label():
    comments = jigsaw_comments("insult", 2)
    assert comments["label"].tolist() == [1, 0, 0, 0, 0, 1]


@pytest.mark.usefixtures("served")
def test_an_unknown_label():
    with pytest.raises(InputError, match=r"train\.csv: no column rude among its 8"):
        jigsaw_comments("rude", None)
