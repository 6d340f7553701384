"""Where the comments come from: data.source of params.yaml."""

from pathlib import Path

import pandas as pd

from rnngrad.data.csv_comments import read_csv_comments
from rnngrad.data.demo import demo_comments
from rnngrad.data.jigsaw import jigsaw_comments
from rnngrad.params import Params


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
