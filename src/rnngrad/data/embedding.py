"""Stage 3: the sample as tokens, and a vector for each word of its vocabulary.

Tokens are those of Keras 2's ``Tokenizer(num_words=None, oov_token=None)``.

1. The text is put in lower case.
2. Each of the characters of ``FILTERS`` becomes a blank: ``don't`` is one token, ``e-mail`` two.
3. The text is split at blanks only. Other white space, such as a no-break space, stays in a token.
4. Tokens are numbered from 1, the most frequent first, ties in the order of first appearance.
5. Words that are not in the vocabulary are left out of the sequence. None stands in for them.
"""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rnngrad.data.corpus_vectors import corpus_vectors
from rnngrad.data.fetch import fetch
from rnngrad.data.tokenized import SPLITS, TokenizedSample
from rnngrad.data.vector_file import GLOVE, read_vectors
from rnngrad.errors import InputError
from rnngrad.params import EmbedParams

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
_TO_BLANKS = str.maketrans(dict.fromkeys(FILTERS, " "))


def embed_sample(
    sample: pd.DataFrame, params: EmbedParams
) -> tuple[TokenizedSample, np.ndarray, dict]:
    """Tokenise a sample of text, label, split and telling_distance; give each word a vector.

    With ``vocabulary: train`` the training split alone makes the vocabulary and corpus vectors.

    Returns:
        The comments that have tokens, in the order of the sample. (vocabulary + 1, dimensions)
        float32 vectors, zero for the padding (row 0) and words without one. Coverage and sizes.
    """
    is_known = (sample["split"] == "train").to_numpy() | (params.vocabulary == "sample")
    tokenized, vocabulary, counted = tokenize_sample(sample, is_known)
    if params.vectors == "corpus":
        source, lengths = "corpus", tokenized.lengths
        learns = (tokenized.splits == "train") | (params.vocabulary == "sample")
        tokens = tokenized.tokens[np.repeat(learns, lengths)]
        vectors = corpus_vectors(tokens, lengths[learns], len(vocabulary), params.dimensions)
    else:
        path = Path(params.path) if params.path else fetch(*GLOVE)
        # the name alone: a folder would tell machines apart
        source, vectors = path.name, read_vectors(path, vocabulary, params.dimensions)
    has = (vectors != 0).any(axis=1)
    if not has.any():
        line = f"{source}: no word of the sample has a vector; give those of the comments' language"
        raise InputError(line)
    card = counted | {
        # parts of all words of the sample: one outside the vocabulary has no vector either
        "coverage_of_tokens": int(has[tokenized.tokens].sum()) / counted["tokens"],
        "coverage_of_types": int(has.sum()) / counted["types"],
        "dimensions": params.dimensions,
        "longest_comment": tokenized.max_length(),
        "mean_norm": float(np.linalg.norm(vectors, axis=1)[has].mean()),
        "vectors": source,
    }
    return tokenized, vectors, card


def tokenize_sample(
    sample: pd.DataFrame, is_known: np.ndarray
) -> tuple[TokenizedSample, dict[str, int], dict[str, int]]:
    """Tokenise a sample; the tokens of known comments make the vocabulary.

    Returns:
        The comments that have tokens; the vocabulary, numbered from 1; counts for the card.
    """
    tokens, sizes, vocabulary, types = number(sample["text"].array, is_known)
    known, ends = tokens > 0, sizes.cumsum()
    before = np.append(False, known).cumsum(dtype=np.int32)
    lengths = before[ends] - before[ends - sizes]
    # a comment without tokens has no state to read: it is left out, and the card counts it
    kept = lengths > 0
    for split in SPLITS:
        if not (kept & (sample["split"] == split)).any():
            line = f"no comment of the {split} split has a token; give more (sample.per_class)"
            raise InputError(line)
    distance = sample["telling_distance"].to_numpy("float64", na_value=np.nan)
    told = distance < sizes
    at = ends - 1 - np.where(told, distance, 0).astype(int)
    told &= known[at]  # else the telling word is not in the vocabulary
    distances = np.where(told, before[ends] - before[at] - 1, np.nan).astype(np.float32)
    tokenized = TokenizedSample(
        tokens=tokens[known],
        offsets=np.append(0, np.cumsum(lengths[kept])),
        labels=sample["label"].to_numpy(np.int8)[kept],
        splits=sample["split"].to_numpy("U10")[kept],
        telling_distance=distances[kept],
    )
    counted = {
        "comments": len(tokenized),
        "comments_without_tokens": int((~kept).sum()),
        "tokens": len(tokens),
        "types": types,
        "vocabulary": len(vocabulary),
    }
    return tokenized, vocabulary, counted


def tokenize(text: str) -> list[str]:
    """The tokens of a text, as strings."""
    return [*filter(None, text.lower().translate(_TO_BLANKS).split(" "))]


def number(
    texts: Sequence[str], is_known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, int], int]:
    """Number the tokens of all texts; those that are known make the vocabulary.

    Returns:
        (total,) int32 tokens, 0 for words that are not in the vocabulary. (n,) int64, how many each
        text has. The vocabulary, numbered from 1. How many different words there are in all.
    """
    words: defaultdict[str, int] = defaultdict()
    words.default_factory = words.__len__
    found, sizes = array("i"), np.zeros(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        before = len(found)
        found.extend(map(words.__getitem__, tokenize(text)))
        sizes[i] = len(found) - before
    tokens = np.asarray(found, dtype=np.int32)
    known = tokens[np.repeat(is_known, sizes)]
    seen = pd.unique(known)  # in the order of first appearance
    ranked = seen[np.argsort(-np.bincount(known)[seen], kind="stable")]
    numbers = np.zeros(len(words), dtype=np.int32)
    numbers[ranked] = np.arange(1, len(ranked) + 1)
    names = [*words]
    vocabulary = {names[word]: place for place, word in enumerate(ranked.tolist(), start=1)}
    return numbers[tokens], sizes, vocabulary, len(words)
