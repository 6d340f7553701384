"""The tables that stages hand to one another."""

from pathlib import Path

import pandas as pd
from pyarrow import ArrowInvalid

from rnngrad.errors import InputError


def read_table(path: str | Path, stage: str) -> pd.DataFrame:
    """Read the parquet file that ``stage`` writes.

    Raises:
        InputError: it is missing or no parquet file; the message says which stage to run.
    """
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; run the {stage} stage first") from error
    except (OSError, ArrowInvalid) as error:
        raise InputError(f"{path}: not a parquet file; run the {stage} stage again") from error
