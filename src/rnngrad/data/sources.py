"""Where the comments come from: data.source of params.yaml.

The Jigsaw toxic comments (Kaggle, 2018; text CC BY-SA 3.0) are three files. train.csv has 159,571
rows, 15,294 of them toxic. test.csv has its labels in test_labels.csv, where -1 marks a row that
was not scored; with the 63,978 scored rows there are 21,384 toxic ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rnngrad.data.csv_comments import TEXT, read_csv, read_csv_comments
from rnngrad.data.demo import demo_comments
from rnngrad.data.fetch import Mirror, fetch
from rnngrad.errors import InputError
from rnngrad.params import Params

_NAME = "jigsaw-toxic-comment-classification-challenge"
_FOLDER = f"https://huggingface.co/datasets/thesofakillers/{_NAME}/resolve/main/"
_ZIP = f"https://www.kaggle.com/api/v1/datasets/download/julian3833/{_NAME}"
_FILES = {
    "train": (68_802_655, "bd4084611bd27c939ba98e5e63bc3e5a2c1a4e99477dcba46c829e4c986c429d"),
    "test": (60_354_593, "c2513ce4abb98c4d1d216e3ca0d4377d57589a0989aa8c06a840509a16c786e8"),
    "test_labels": (4_976_930, "2a56dcbeba5c05f965a636f56cb5ae972bad60c3b952c239b49be18d7ab70f49"),
}
JIGSAW = {
    f"{name}.csv": (
        Mirror(f"{_FOLDER}{name}.csv", f"{name}.csv", sha256, size),
        Mirror(_ZIP, f"{name}.csv", sha256, size, archive="jigsaw.zip"),
    )
    for name, (size, sha256) in _FILES.items()
}
"""The files and their mirrors, the first to try first."""


def read_comments(params: Params) -> pd.DataFrame:
    """Read, download or generate comments; parquet keeps their ``attrs["source"]``.

    Columns: ``text`` (str), ``label`` (int8, 0 or 1) and for the demo ``telling_words``.

    Raises:
        InputError: the source cannot be had or is malformed.
    """
    data, source = params.data, params.data.source
    if data.source == "demo":
        comments = demo_comments(data.demo)
    elif data.source == "jigsaw":
        comments = jigsaw_comments(data.label, params.sample.per_class)
    else:
        path = Path(str(data.path))
        comments = read_csv_comments(path, data.label)
        source = f"csv {path.name}"  # its folder would tell machines apart
    comments.attrs["source"] = source
    return comments


def jigsaw_comments(
    label: str, per_class: int | None, files: Mapping[str, Sequence[Mirror]] = JIGSAW
) -> pd.DataFrame:
    """Get all comments of the training set, and of the test set if a class has too few.

    ``per_class`` are wanted of each class of the column ``label``; None takes what there is.

    Raises:
        InputError: a file can neither be downloaded nor found in the cache, or has no such label.
    """
    train = read_csv_comments(fetch(files["train.csv"]), label)
    rarest = np.bincount(train["label"], minlength=2).min()
    if per_class is None or per_class <= rarest:
        return train
    texts, labels = fetch(files["test.csv"]), fetch(files["test_labels.csv"])
    test = read_csv(texts, ["id", TEXT]).merge(read_csv(labels, ["id", label]), on="id")
    if test.empty or not test[label].isin(["-1", "0", "1"]).all():
        raise InputError(
            f"{labels}: no labels -1, 0 and 1 for the ids of {texts.name}; "
            "remove both from the cache and run again"
        )
    scored = test[test[label] != "-1"]
    test = pd.DataFrame({"text": scored[TEXT], "label": scored[label].astype(np.int8)})
    return pd.concat([train, test], ignore_index=True)
