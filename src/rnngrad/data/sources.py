"""Where the comments come from: data.source of params.yaml."""

from pathlib import Path

import pandas as pd

from rnngrad.data.csv_comments import read_csv_comments
from rnngrad.data.demo import demo_comments
from rnngrad.data.jigsaw import jigsaw_comments
from rnngrad.params import Params


def read_comments(params: Params) -> pd.DataFrame:
    """Read, download or generate the comments of ``params.data.source``.

    Returns:
        ``text`` (str), ``label`` (int8, 0 or 1) and for the demo ``telling_words``; what they are
        is named in ``attrs["source"]``, which parquet keeps.

    Raises:
        InputError: the source cannot be had or is malformed.
    """
    comments = _read(params)
    comments.attrs["source"] = _name(params)
    return comments


def _read(params: Params) -> pd.DataFrame:
    data = params.data
    if data.source == "demo":
        return demo_comments(data.demo)
    if data.source == "csv":
        return read_csv_comments(str(data.path), data.label)
    return jigsaw_comments(data.label, params.sample.per_class)


def _name(params: Params) -> str:
    # of a file the name alone: its folder would tell machines apart
    source = params.data.source
    return f"csv {Path(str(params.data.path)).name}" if source == "csv" else source
