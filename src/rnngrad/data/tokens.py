"""From text to tokens by the rules of Keras' ``Tokenizer``, with its default settings.

``keras.preprocessing.text.Tokenizer(num_words=None, oov_token=None)`` (Keras 2, text.py):

1. the text is put in lower case;
2. each of the characters of ``FILTERS``, tab and newline among them, becomes a blank; the
   apostrophe is not among them, so ``don't`` is one token, while ``e-mail`` is two;
3. the text is split at blanks only: other white space, such as a no-break space, stays in a token;
4. tokens are numbered from 1, the most frequent first, ties in the order of first appearance;
5. words that are not in the vocabulary are left out of the sequence; none stands in for them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
_TO_BLANKS = str.maketrans(dict.fromkeys(FILTERS, " "))


def tokenize(text: str) -> list[str]:
    """The tokens of a text, as strings."""
    return [token for token in text.lower().translate(_TO_BLANKS).split(" ") if token]


def build_vocabulary(comments: Iterable[Sequence[str]]) -> dict[str, int]:
    """Number the words of tokenised comments from 1, the most frequent first."""
    counts = Counter(token for comment in comments for token in comment)
    # sorted() is stable and a Counter remembers the order of first appearance
    ranked = sorted(counts, key=lambda word: -counts[word])
    return {word: number for number, word in enumerate(ranked, start=1)}


def encode(comment: Sequence[str], vocabulary: dict[str, int]) -> np.ndarray:
    """(length,) int32, the numbers of those tokens that the vocabulary has."""
    known = [vocabulary[token] for token in comment if token in vocabulary]
    return np.array(known, dtype=np.int32)
