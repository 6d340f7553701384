"""Stage 3: the sample as tokens, and a vector for each word of its vocabulary.

Tokens are those of Keras 2's ``Tokenizer(num_words=None, oov_token=None)``:

1. the text is put in lower case;
2. each of the characters of ``FILTERS``, tab and newline among them, becomes a blank; the
   apostrophe is not among them, so ``don't`` is one token, while ``e-mail`` is two;
3. the text is split at blanks only: other white space, such as a no-break space, stays in a token;
4. tokens are numbered from 1, the most frequent first, ties in the order of first appearance;
5. words that are not in the vocabulary are left out of the sequence; none stands in for them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, compress
from pathlib import Path

import numpy as np
import pandas as pd

from rnngrad.data.corpus_vectors import corpus_vectors
from rnngrad.data.tokenized import SPLITS, TokenizedSample
from rnngrad.data.vector_file import fetch_glove, read_vectors
from rnngrad.errors import InputError
from rnngrad.params import EmbedParams

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
_TO_BLANKS = str.maketrans(dict.fromkeys(FILTERS, " "))


def embed_sample(
    sample: pd.DataFrame, params: EmbedParams
) -> tuple[TokenizedSample, np.ndarray, dict]:
    """Tokenise a sample and give each word of its vocabulary a vector.

    With ``vocabulary: train`` only words of the training split are known, and only its comments
    train ``vectors: corpus``. The sample has text, label, split and telling_distance.

    Returns:
        The comments that have tokens, in the order of the sample; (vocabulary + 1, dimensions)
        float32 vectors, zero for the padding (row 0) and words without one; coverage and sizes.
    """
    comments = [tokenize(text) for text in sample["text"]]
    is_known = (sample["split"] == "train").to_numpy() | (params.vocabulary == "sample")
    vocabulary = build_vocabulary(compress(comments, is_known))
    encoded = [encode(comment, vocabulary) for comment in comments]
    given = zip(comments, sample["telling_distance"].array, strict=True)
    distances = [_telling_distance(*each, vocabulary) for each in given]
    tokenized = _tokenized(sample, encoded, np.array(distances, dtype=np.float32))
    if params.vectors == "corpus":
        source, known = "corpus", [*compress(encoded, is_known)]
        vectors = corpus_vectors(known, len(vocabulary), params.dimensions)
    else:
        path = Path(params.path) if params.path else fetch_glove(params.dimensions)
        # the name alone: a folder would tell machines apart
        source, vectors = path.name, read_vectors(path, vocabulary, params.dimensions)
    has = (vectors != 0).any(axis=1)
    if not has.any():
        raise InputError(f"{source}: the vectors of all the sample's words are zero; give others")
    tokens = [*chain(*comments)]
    types = len(set(tokens))
    card = {
        "comments": len(tokenized),
        "comments_without_tokens": len(sample) - len(tokenized),
        # of all words of the sample: one that is not in the vocabulary has no vector either
        "coverage_of_tokens": int(has[tokenized.tokens].sum()) / len(tokens),
        "coverage_of_types": int(has.sum()) / types,
        "dimensions": params.dimensions,
        "longest_comment": tokenized.max_length(),
        "mean_norm": float(np.linalg.norm(vectors, axis=1)[has].mean()),
        "tokens": len(tokens),
        "types": types,
        "vectors": source,
        "vocabulary": len(vocabulary),
    }
    return tokenized, vectors, card


def tokenize(text: str) -> list[str]:
    """The tokens of a text, as strings."""
    return [token for token in text.lower().translate(_TO_BLANKS).split(" ") if token]


def build_vocabulary(comments: Iterable[Sequence[str]]) -> dict[str, int]:
    """Number the words of tokenised comments from 1, the most frequent first."""
    ranked = Counter(chain.from_iterable(comments)).most_common()
    return {word: number for number, (word, _) in enumerate(ranked, start=1)}


def encode(comment: Sequence[str], vocabulary: dict[str, int]) -> np.ndarray:
    """(length,) int32, the numbers of those tokens that the vocabulary has."""
    return np.array([vocabulary[t] for t in comment if t in vocabulary], dtype=np.int32)


def _telling_distance(comment: list[str], distance: int, vocabulary: dict[str, int]) -> float:
    """In tokens that the vocabulary has; NaN where the telling word is not in it."""
    if pd.isna(distance):
        return np.nan
    known = [token in vocabulary for token in comment[-1 - distance :]]
    return sum(known) - 1 if known and known[0] else np.nan


def _tokenized(
    sample: pd.DataFrame, encoded: Sequence[np.ndarray], telling_distances: np.ndarray
) -> TokenizedSample:
    lengths = np.array([len(comment) for comment in encoded], dtype=np.int64)
    # no step, no state to read: a comment without tokens is left out, and the card counts it
    kept = lengths > 0
    for split in SPLITS:
        if not (kept & (sample["split"] == split)).any():
            raise InputError(
                f"build/sample.parquet: no comment of the {split} split has a token; "
                "give more comments (sample.per_class)"
            )
    return TokenizedSample(
        tokens=np.concatenate(encoded),
        offsets=np.append(0, np.cumsum(lengths[kept])),
        labels=sample["label"].to_numpy(np.int8)[kept],
        splits=sample["split"].to_numpy("U10")[kept],
        telling_distance=telling_distances[kept],
    )
