"""Stage 2: a balanced sample, the filler in place of the last words, and the splits."""

from collections.abc import Iterable
from decimal import Decimal
from functools import partial

import numpy as np
import pandas as pd

from rnngrad.params import SampleParams
from rnngrad.stage import read_output


def read_table(path: str, stage: str) -> pd.DataFrame:
    """Read comments or a sample as its stage wrote it; InputError where that was changed since."""
    return read_output(path, stage, partial(pd.read_parquet, page_checksum_verification=True))


def replaced_count(words: int, fraction: float) -> int:
    """The number of a comment's ``words`` words to become filler: floor(``fraction`` * ``words``).

    At 0.3 that is none for three words or fewer, and such a comment stays whole. The code that the
    question published wrote ``x[-0:] = []`` there, which emptied it.
    """
    return int(words * Decimal(repr(fraction)))  # in floating point, 0.29 * 100 is just below 29


def with_filler(text: str, fraction: float, filler: str) -> str:
    """``text`` with its last words replaced by ``filler``, joined by single blanks."""
    words = text.split()
    kept = len(words) - replaced_count(len(words), fraction)
    return " ".join(words[:kept] + [filler] * (len(words) - kept))


def sample_comments(comments: pd.DataFrame, params: SampleParams) -> pd.DataFrame:
    """Draw as many comments of each class, replace their last words, split them by class.

    Comments have ``text``, ``label`` (0 or 1) and perhaps ``telling_words`` (positions).

    Returns:
        Rows in random order: ``text`` (replaced), ``label`` (int8), ``split`` (str) and
        ``telling_distance`` (Int32). It counts the words after the last telling word that the
        filler has left. It is missing where there is none or none is recorded.
    """
    rng, fraction = np.random.default_rng(params.seed), params.replace_fraction
    labels = comments["label"].to_numpy(np.int8)
    # a comment without a word gives a network nothing to read
    words = word_counts(comments["text"])
    usable = words > 0
    zeros, ones = np.bincount(labels[usable], minlength=2).tolist()
    sizes = params.split_sizes((zeros, ones))
    size = sum(sizes.values())
    chosen = [rng.permutation(np.flatnonzero(usable & (labels == c)))[:size] for c in (0, 1)]
    order = rng.permutation(2 * size)
    places = np.concatenate(chosen)[order]
    drawn = comments["text"].iloc[places]
    filled = drawn.apply(with_filler, args=(fraction, params.filler))
    distances: list[int | None] = [None] * len(places)
    told = comments["telling_words"].iloc[places] if "telling_words" in comments else ()
    for row, (count, positions) in enumerate(zip(words[places].tolist(), told, strict=False)):
        left = positions[positions < count - replaced_count(count, fraction)]
        distances[row] = count - 1 - int(left[-1]) if len(left) else None
    return pd.DataFrame(
        {
            "text": filled,
            "label": labels[places],
            "split": np.tile(np.repeat([*sizes], [*sizes.values()]), 2)[order],
            "telling_distance": pd.array(distances, dtype="Int32"),
        },
        index=drawn.index,
    )


def word_counts(texts: Iterable[str]) -> np.ndarray:
    """(n,) int64, the words of each text."""
    return np.array([len(text.split()) for text in texts], dtype=np.int64)


def data_card(comments: pd.DataFrame, sample: pd.DataFrame, params: SampleParams) -> dict:
    """The composition of the comments and of the sample, in plain numbers."""
    given = word_counts(comments["text"])
    words = given[comments.index.get_indexer(sample.index)]  # the filler changes no count
    replaced = np.array([replaced_count(n, params.replace_fraction) for n in words.tolist()])
    distances = sample["telling_distance"].dropna().to_numpy(np.int64)
    return {
        "source": comments.attrs["source"],
        "given": _summary(comments, given) | {"without_words": int((given == 0).sum())},
        "sample": _summary(sample, words),
        "filler": {
            "word": params.filler,
            "fraction": params.replace_fraction,
            "words_replaced": int(replaced.sum()),
            "comments_left_whole": int((replaced == 0).sum()),
        },
        "splits": {split: _class_counts(own) for split, own in sample.groupby("split")["label"]},
        "telling_distance": {"comments": len(distances), **_statistics(distances)},
    }


def _summary(table: pd.DataFrame, words: np.ndarray) -> dict:
    return {
        "comments": len(table),
        "classes": _class_counts(table["label"]),
        "words": _statistics(words),
    }


def _class_counts(labels: pd.Series) -> dict[str, int]:
    return dict(zip("01", np.bincount(labels, minlength=2).tolist(), strict=True))


def _statistics(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    shares = {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    found = {"mean": values.mean()} | {k: np.quantile(values, v) for k, v in shares.items()}
    return {k: round(float(v), 2) for k, v in found.items()} | {"max": int(values.max())}
