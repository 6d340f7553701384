"""Comments and 0/1 labels from a CSV file.

Comments may hold slurs and personal data: no message from here repeats a word of one.
"""

import gzip
import re
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from rnngrad.errors import InputError

TEXT = "comment_text"
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
PACKED = (".zip", ".tar", ".bz2", ".xz", ".zst", ".7z")


def read_csv(path: str | Path, columns: list[str]) -> pd.DataFrame:
    """Read ``columns`` of a CSV file (UTF-8, with a header; .gz is unpacked) as text.

    Raises:
        InputError: the file is missing, empty, broken, no CSV, lacks a column, or has it twice.
    """
    table = _parsed(Path(path))
    header = table.iloc[0].tolist()
    missing = [column for column in columns if column not in header]
    if {*missing} & {*re.split("[;\t]", header[0])}:
        raise InputError(
            f"{path}: columns are separated by semicolons or tabs; save it with commas"
        )
    for column in columns:
        if header.count(column) > 1:
            raise InputError(
                f"{path}: {header.count(column)} columns are named {column}; rename all but one"
            )
    if missing:
        # without a header, the first comment would stand among the names
        known = f": {', '.join(header)}" if len(missing) < len(columns) else ""
        raise InputError(
            f"{path}: no column {' or '.join(missing)}; it has {len(header)} columns{known}; "
            "rename a column, or set data.label to the one with the labels"
        )
    if len(table) == 1:
        raise InputError(f"{path}: a header but no rows; give a file with comments")
    wanted = table.iloc[1:, [header.index(column) for column in columns]]
    return wanted.set_axis(columns, axis=1).reset_index(drop=True)


def _parsed(path: Path) -> pd.DataFrame:
    if path.suffix in PACKED:
        raise InputError(f"{path}: a packed file; unpack it, or pack the one CSV with gzip")
    open_file = gzip.open if path.suffix == ".gz" else Path.open
    try:
        with open_file(path, "rb") as file, warnings.catch_warnings():
            # rows longer than the header would lose their last fields
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # with the header among the rows: pandas would rename the second of two equal names
            return pd.read_csv(file, dtype=str, na_filter=False, header=None, index_col=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; correct data.path") from error
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path}: the file is empty; give a CSV with a header") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: broken or cut short as a gzip file; get it again") from error
    except UnicodeDecodeError as error:
        misnamed = path.suffix != ".gz" and error.object.startswith(b"\x1f\x8b")
        mend = "it is gzipped: name it .csv.gz" if misnamed else "save it as CSV in UTF-8"
        raise InputError(f"{path}: not UTF-8 text; {mend}") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        found = re.search(r"(?:line|row) (\d+)", str(error))
        place = f" (near line {found[1]})" if found else ""
        raise InputError(f"{path}: not a valid CSV file{place}; correct it") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_csv_comments(path: str | Path, label: str) -> pd.DataFrame:
    """Read the columns ``comment_text`` and ``label`` of a CSV file, .csv or .csv.gz.

    Returns:
        ``text`` (str) and ``label`` (int8, 0 or 1), all rows in the file's order, those with an
        empty text included.

    Raises:
        InputError: as :func:`read_csv`, or a label is not 0 or 1.
    """
    table = read_csv(path, [TEXT, label])
    labels = table[label].str.strip().map(LABELS)
    wrong = np.flatnonzero(labels.isna())
    if len(wrong):
        found = table[label][wrong[0]]
        # a number is safe to show; text may be part of a comment, if the wrong column was named
        number = re.fullmatch(r"[-+\d.eE]{1,20}", found)
        shown = found if number else "text" if found.strip() else "empty"
        raise InputError(
            f"{path}: data row {wrong[0] + 1} (the header not counted): label in column {label} is "
            f"{shown}, not 0 or 1 ({len(wrong)} such rows); correct it, or set data.label"
        )
    return pd.DataFrame({"text": table[TEXT], "label": labels.astype(np.int8)})
