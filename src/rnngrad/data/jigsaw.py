"""The Jigsaw toxic comments (Kaggle, 2018; text CC BY-SA 3.0): where they are, how files combine.

train.csv has 159,571 rows, 15,294 of them toxic. test.csv has its labels in test_labels.csv, where
-1 marks a row that was not scored; with the 63,978 scored rows there are 21,384 toxic ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rnngrad.data.csv_comments import TEXT, read_csv, read_csv_comments
from rnngrad.data.fetch import Mirror, fetch
from rnngrad.errors import InputError

_FOLDER = (
    "https://huggingface.co/datasets/thesofakillers/"
    "jigsaw-toxic-comment-classification-challenge/resolve/main/"
)
_ZIP = (
    "https://www.kaggle.com/api/v1/datasets/download/julian3833/"
    "jigsaw-toxic-comment-classification-challenge"
)


JIGSAW = {
    name: (
        Mirror(_FOLDER + name, name, sha256, size),
        Mirror(_ZIP, name, sha256, size, archive="jigsaw.zip"),
    )
    for name, size, sha256 in (
        (
            "train.csv",
            68_802_655,
            "bd4084611bd27c939ba98e5e63bc3e5a2c1a4e99477dcba46c829e4c986c429d",
        ),
        (
            "test.csv",
            60_354_593,
            "c2513ce4abb98c4d1d216e3ca0d4377d57589a0989aa8c06a840509a16c786e8",
        ),
        (
            "test_labels.csv",
            4_976_930,
            "2a56dcbeba5c05f965a636f56cb5ae972bad60c3b952c239b49be18d7ab70f49",
        ),
    )
}
"""The files and their mirrors, the first to try first."""


def jigsaw_comments(
    label: str, per_class: int | None, files: Mapping[str, Sequence[Mirror]] = JIGSAW
) -> pd.DataFrame:
    """Get all comments of the training set, and of the test set if a class has too few.

    ``per_class`` are wanted of each class of the column ``label``; None takes what there is.
    Columns: ``text`` (str) and ``label`` (int8, 0 or 1).

    Raises:
        InputError: a file can neither be downloaded nor found in the cache, or has no such label.
    """
    train = read_csv_comments(fetch(files["train.csv"]), label)
    rarest = np.bincount(train["label"], minlength=2).min()
    if per_class is None or per_class <= rarest:
        return train
    test = scored(fetch(files["test.csv"]), fetch(files["test_labels.csv"]), label)
    return pd.concat([train, test], ignore_index=True)


def scored(texts: Path, labels: Path, label: str) -> pd.DataFrame:
    """Join test texts with their labels by id and leave out what was not scored (label -1)."""
    rows = read_csv(texts, ["id", TEXT]).merge(read_csv(labels, ["id", label]), on="id")
    marks = rows[label]
    if rows.empty or not marks.isin(["-1", "0", "1"]).all():
        raise InputError(
            f"{labels}: no labels -1, 0 and 1 for the ids of {texts.name}; "
            "remove both from the cache and run again"
        )
    kept = rows[marks != "-1"]
    return pd.DataFrame({"text": kept[TEXT], "label": kept[label].astype(np.int8)})
