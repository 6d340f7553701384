"""Word vectors from a file in GloVe's text format, such as glove.6B (Pennington et al., 2014).

A line is a word and its numbers, separated by single blanks, in UTF-8. The file may begin with a
header line "words dimensions" (word2vec's text format) and may be gzipped.
"""

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rnngrad.errors import InputError

# training squares gradients, which hold products of two such numbers: 1e36 is still float32
LARGEST = 1e9
GLOVE = (  # and its sha256
    "https://github.com/piskvorky/gensim-data/releases/download/glove-wiki-gigaword-100/"
    "glove-wiki-gigaword-100.gz",
    "4934d4708bf3d65f28fc984dbbfa18af9cbd2505d166a7258a1a957808559b43",
)


def read_vectors(path: Path, vocabulary: dict[str, int], dimensions: int) -> np.ndarray:
    """Read the vectors of a vocabulary, which gives words' rows, from 1; the file is checked whole.

    Returns:
        (len(vocabulary) + 1, dimensions) float32; row 0 and those of words that the file does not
        have are zero. The last vector of a word that it has twice counts.
    """
    vectors = np.zeros((len(vocabulary) + 1, dimensions), dtype=np.float32)
    number = promised = 0
    for number, line in enumerate(_lines(path), start=1):
        if number == 1 and (header := re.fullmatch("([0-9]+) [0-9]+", line)):
            promised = int(header[1])
            continue
        word, *values = line.split(" ")
        # every line is converted: a broken one is reported whichever words the sample has
        try:
            vector = np.array(values, dtype=np.float64)
        except ValueError:
            vector = np.full(dimensions, np.nan)
        if len(vector) != dimensions or not (np.abs(vector) <= LARGEST).all():
            raise InputError(
                f"{path}: line {number}: not a word and {dimensions} numbers (embed.dimensions) up "
                f"to {LARGEST:.0e}, separated by single blanks; correct it, or get the file again"
            )
        if word in vocabulary:
            vectors[vocabulary[word]] = vector
    if promised and number <= promised:
        raise InputError(f"{path}: ends after {number - 1} of {promised} vectors; get it again")
    return vectors


def _lines(path: Path) -> Iterator[str]:
    open_file = gzip.open if path.suffix == ".gz" else Path.open
    try:
        with open_file(path, "rb") as file:
            # bytes end lines at newlines only; words may hold other separators
            for line in tqdm(file, path.name, unit=" lines", delay=2, disable=None):
                # word2vec's own tool ends its lines with a blank
                yield line.removeprefix(codecs.BOM_UTF8).rstrip(b" \r\n").decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        line = f"{path}: cannot be read ({reason}); get it again, or correct embed.path"
        raise InputError(line) from error
