"""The number and the lengths of a study's comments, before anything is downloaded."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnngrad.data.demo import real_word_counts
from rnngrad.data.sampling import word_counts
from rnngrad.data.sources import read_comments
from rnngrad.params import Params

# Jigsaw's labelled comments: rows of train.csv, its toxic ones, and the scored rows of test.csv
JIGSAW_TRAIN, JIGSAW_TOXIC, JIGSAW_SCORED = 159_571, 15_294, 63_978


class Lengths(NamedTuple):
    """Word counts of a study's comments.

    Attributes:
        sample: (n,) int64, ascending: those of the sample, both classes, as many words as are kept.
        words_given: words of all comments of the source.
    """

    sample: NDArray[np.int64]
    words_given: int

    @property
    def steps(self) -> int:
        """T, to which every comment is padded."""
        return int(self.sample[-1])


def lengths_of(params: Params) -> Lengths:
    """The known or expected lengths of the comments of ``params.data.source``.

    A file's are counted. Jigsaw's, and the demo's that are made after them, have the quantiles of
    20,000 real comments.

    Raises:
        InputError: the file of source csv is unusable.
    """
    given, rarest = _source(params)
    per_class = params.sample.per_class or rarest
    shares = (np.arange(2 * per_class) + 0.5) / (2 * per_class)
    sample = np.quantile(given, shares, method="nearest").astype(np.int64)
    # the longest comment sets the number of steps, and is in the sample as likely as not
    sample[-1] = given.max()
    kept = np.minimum(sample, params.embed.max_length or given.max())
    return Lengths(kept, int(given.sum()))


def _source(params: Params) -> tuple[NDArray[np.int64], int]:
    """Word counts of all comments, and the number of comments of the rarer class."""
    match params.data.source:
        case "demo":
            per_class = params.data.demo.comments_per_class
            return real_word_counts(2 * per_class), per_class
        case "jigsaw":
            test = JIGSAW_SCORED if params.sample.per_class else 0
            return real_word_counts(JIGSAW_TRAIN + test), JIGSAW_TOXIC
        case "csv":
            comments = read_comments(params)
            counts = word_counts(comments["text"])
            classes = np.bincount(comments["label"][counts > 0], minlength=2)
            return np.maximum(counts, 1), max(int(classes.min()), 1)
