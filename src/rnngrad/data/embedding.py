"""Stage 3: the sample as tokens, and a vector for each word of its vocabulary."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

from rnngrad.data.corpus_vectors import corpus_vectors
from rnngrad.data.tokenized import SPLITS, TokenizedSample
from rnngrad.data.tokens import build_vocabulary, encode, tokenize
from rnngrad.data.vector_file import fetch_glove, read_vectors
from rnngrad.errors import InputError
from rnngrad.params import EmbedParams
from rnngrad.stage import seal


@dataclass(frozen=True)
class Embedding:
    """A tokenised sample, the vectors of its words and what they cover.

    Attributes:
        sample: the comments that have tokens, in the order of the sample.
        vectors: (vocabulary + 1, dimensions) float32; zero rows: 0, the padding, and words
            without a vector.
        card: coverage and sizes, in plain numbers.
    """

    sample: TokenizedSample
    vectors: np.ndarray
    card: dict

    def save(self, folder: Path) -> None:
        """Write tokens.npz, vectors.npy, card.json and digest.txt into a new folder."""
        folder.mkdir(parents=True)
        self.sample.save(folder / "tokens.npz")
        np.save(folder / "vectors.npy", self.vectors)
        (folder / "card.json").write_text(json.dumps(self.card, indent=2, sort_keys=True) + "\n")
        seal(folder)


def embed_sample(sample: pd.DataFrame, params: EmbedParams) -> Embedding:
    """Tokenise a sample and give each word of its vocabulary a vector.

    With ``vocabulary: train`` only words of the training split are known, and only its comments
    train ``vectors: corpus``. The sample has text, label, split and telling_distance.

    Raises:
        InputError: nothing to embed, or the vectors cannot be had or do not fit.
    """
    comments = [tokenize(text) for text in sample["text"]]
    is_known = (sample["split"] == "train").to_numpy() | (params.vocabulary == "sample")
    vocabulary = build_vocabulary(compress(comments, is_known))
    encoded = [encode(comment, vocabulary) for comment in comments]
    tokenized = _tokenized(sample, encoded, _telling_distances(sample, comments, vocabulary))
    source, vectors = _vectors([*compress(encoded, is_known)], vocabulary, params)
    if not vectors.any():
        raise InputError(f"{source}: the vectors of all the sample's words are zero; give others")
    card = {
        **_coverage(comments, vocabulary, vectors),
        "comments": len(tokenized),
        "comments_without_tokens": len(sample) - len(tokenized),
        "longest_comment": tokenized.max_length(),
        "vectors": source,
    }
    return Embedding(tokenized, vectors, card)


def _telling_distances(
    sample: pd.DataFrame, comments: Sequence[Sequence[str]], vocabulary: dict[str, int]
) -> np.ndarray:
    """(n,) float32, in tokens that the vocabulary has; NaN where the telling word is not in it."""
    distances = np.full(len(comments), np.nan, dtype=np.float32)
    given = zip(comments, sample["telling_distance"].array, strict=True)
    for i, (comment, distance) in enumerate(given):
        known = distance is not pd.NA and distance < len(comment)
        if known and comment[-1 - distance] in vocabulary:
            after = comment[len(comment) - distance :]
            distances[i] = sum(token in vocabulary for token in after)
    return distances


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


def _vectors(
    known: Sequence[np.ndarray], vocabulary: dict[str, int], params: EmbedParams
) -> tuple[str, np.ndarray]:
    if params.vectors == "corpus":
        return "corpus", corpus_vectors(known, len(vocabulary), params.dimensions)
    path = fetch_glove(params.dimensions) if params.vectors == "glove" else Path(params.path or "")
    # the name alone: a folder would tell machines apart
    return path.name, read_vectors(path, vocabulary, params.dimensions)


def _coverage(
    comments: Sequence[Sequence[str]], vocabulary: dict[str, int], vectors: np.ndarray
) -> dict:
    # over all words of the sample: one that is not in the vocabulary has no vector either
    has = (vectors != 0).any(axis=1)
    norms = np.linalg.norm(vectors, axis=1)
    covered = {word for word, number in vocabulary.items() if has[number]}
    tokens = [token for comment in comments for token in comment]
    types = set(tokens)
    return {
        "coverage_of_tokens": sum(token in covered for token in tokens) / len(tokens),
        "coverage_of_types": len(covered & types) / len(types),
        "dimensions": vectors.shape[1],
        "mean_norm": float(norms[has].mean()),
        "tokens": len(tokens),
        "types": len(types),
        "vocabulary": len(vocabulary),
    }
