"""Where the comments come from: data.source of params.yaml, a CSV file or the demo.

Comments may hold slurs and personal data: no message from here repeats a word of one.

The Jigsaw toxic comments (Kaggle, 2018; text CC BY-SA 3.0) are three files. train.csv has 159,571
rows, 15,294 of them toxic. test.csv has its labels in test_labels.csv, where -1 marks a row that
was not scored. With the 63,978 scored rows there are 21,384 toxic ones.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from rnngrad.data.demo import demo_comments
from rnngrad.data.fetch import fetch
from rnngrad.errors import InputError
from rnngrad.params import Params

TEXT = "comment_text"
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
_FOLDER = (
    "https://huggingface.co/datasets/thesofakillers/jigsaw-toxic-comment-classification-challenge/"
    "resolve/main/"
)
_FILES = {
    "train.csv": "bd4084611bd27c939ba98e5e63bc3e5a2c1a4e99477dcba46c829e4c986c429d",
    "test.csv": "c2513ce4abb98c4d1d216e3ca0d4377d57589a0989aa8c06a840509a16c786e8",
    "test_labels.csv": "2a56dcbeba5c05f965a636f56cb5ae972bad60c3b952c239b49be18d7ab70f49",
}
JIGSAW = {name: (_FOLDER + name, sha256) for name, sha256 in _FILES.items()}


def read_comments(params: Params) -> pd.DataFrame:
    """Read, download or generate comments; parquet keeps their ``attrs["source"]``.

    Columns: ``text`` (str), ``label`` (int8, 0 or 1) and for the demo ``telling_words``.
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


def jigsaw_comments(label: str, per_class: int | None) -> pd.DataFrame:
    """Get all comments of the training set, and where a class lacks ``per_class`` the test set."""
    train = read_csv_comments(fetch(*JIGSAW["train.csv"]), label)
    rarest = np.bincount(train["label"], minlength=2).min()
    if per_class is None or per_class <= rarest:
        return train
    test = read_csv(fetch(*JIGSAW["test.csv"]), ["id", TEXT])
    test = test.merge(read_csv(fetch(*JIGSAW["test_labels.csv"]), ["id", label]), on="id")
    scored = test[test[label] != "-1"]
    test = pd.DataFrame({"text": scored[TEXT], "label": scored[label].astype(np.int8)})
    return pd.concat([train, test], ignore_index=True)


def read_csv(path: str | Path, columns: list[str]) -> pd.DataFrame:
    """Read a CSV file (UTF-8, with a header; .gz is unpacked) that has ``columns``, as text."""
    try:
        with warnings.catch_warnings():
            # rows longer than the header would lose their last fields
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(Path(path), dtype=str, na_filter=False, index_col=False)
    except Exception as error:  # a broken file may raise anything; no message holds a word of it
        reason = getattr(error, "strerror", None) or str(error).strip()
        raise InputError(
            f"{path}: cannot be read ({reason}); give a CSV file in UTF-8, packed as .csv.gz or "
            "not at all, or correct data.path"
        ) from error
    if missing := [column for column in columns if column not in table]:
        raise InputError(
            f"{path}: no column {' or '.join(missing)} among its {len(table.columns)}; separate "
            "them by commas, rename one, or set data.label"
        )
    return table


def read_csv_comments(path: str | Path, label: str) -> pd.DataFrame:
    """Read the columns ``comment_text`` and ``label`` of a CSV file, .csv or .csv.gz.

    They become ``text`` (str, perhaps empty) and ``label`` (int8, 0 or 1), in the file's order.
    """
    table = read_csv(path, [TEXT, label])
    labels = table[label].str.strip().map(LABELS)
    wrong = np.flatnonzero(labels.isna())
    if len(wrong):
        raise InputError(
            f"{path}: data row {wrong[0] + 1} (the header not counted): label in column {label} is "
            f"not 0 or 1 ({len(wrong)} such rows); correct it, or set data.label"
        )
    return pd.DataFrame({"text": table[TEXT], "label": labels.astype(np.int8)})
