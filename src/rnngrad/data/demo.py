"""The demo corpus: generated comments on the editing of an encyclopedia, friendly and hostile.

Unlike the real comments, it knows where a hostile one says what makes it hostile. It shares
their distribution of word counts, a Zipf vocabulary with topics, newlines, quotes and commas.
Some of its labels are wrong, as theirs are. Every word is exactly one token under the Keras rules.
"""

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd

from rnngrad.params import DemoParams

_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
WORDS: dict[str, list[str]] = {kind: words.split() for kind, words in _DATA["words"].items()}
INSULTS = (*WORDS["ADJECTIVE"], *WORDS["NOUN"])
# these tell the hostile class; nothing else in a comment does
TELLING_WORDS = frozenset((*INSULTS, "away"))
_PHRASES: list[str] = _DATA["phrases"]
_SYLLABLES = [onset + vowel for onset in WORDS["ONSET"] for vowel in "aeio"]
_ENDINGS = ("", "", "n", "s", "l", "ra", "len", "dor")

LONGEST = 1403  # words of the longest of the real comments
VOCABULARY_SIZE, TOPICS = 6000, 20
TOPIC_BOOST = 15.0  # the factor by which a topic's own words are likelier in a comment on it
WITH_NEWLINES, WITH_QUOTES = 0.59, 0.32  # shares of the real comments
DECOYS = 0.08  # friendly comments with a lone telling word: no single word settles the class
ANYWHERE = 0.05  # share of hostile comments whose phrases the filler may overwrite


def demo_comments(params: DemoParams) -> pd.DataFrame:
    """Generate the corpus of ``params``, the same for the same parameters.

    Returns:
        One row per comment: ``text`` (str), ``label`` (int8; 1 is hostile, as many as 0) and
        ``telling_words``. These are int32 arrays of the 0-based positions, sorted, of the words of
        the hostile phrases. A comment whose label was flipped keeps its words and their positions.
    """
    rng, size = np.random.default_rng(params.seed), params.comments_per_class
    hostile = rng.permuted(np.repeat([False, True], size))
    writer, counts = _Writer(rng), rng.permuted(real_word_counts(2 * size))
    texts, telling = zip(*map(writer.comment, counts.tolist(), hostile.tolist()), strict=True)
    labels, flips = hostile.astype(np.int8), round(params.label_noise * size)
    for group in (0, 1):  # as many in both classes: the labels stay balanced
        labels[rng.permutation(np.flatnonzero(hostile == group))[:flips]] = 1 - group
    return pd.DataFrame({"text": texts, "label": labels, "telling_words": telling})


def real_word_counts(size: int) -> np.ndarray:
    """Word counts (int64, ascending) of ``size`` comments at even steps of the real quantiles."""
    shares = (np.arange(size) + 0.5) / size
    logs = np.interp(shares, _DATA["quantiles"]["shares"], np.log(_DATA["quantiles"]["words"]))
    counts = np.rint(np.exp(logs)).astype(np.int64)
    counts[-1] = LONGEST
    return counts


class _Writer:
    """Writes comments with one vocabulary, whose word frequencies depend on the topic.

    Function words lead it, subject words follow, invented ones (syllables, an ending) fill it up.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        words: dict[str, None] = dict.fromkeys(WORDS["FUNCTION"] + WORDS["SUBJECT"])
        while len(words) < VOCABULARY_SIZE:
            syllables = rng.choice(_SYLLABLES, size=3)
            words["".join(syllables) + str(rng.choice(_ENDINGS))] = None
        self.words = np.array([*words], dtype=object)
        zipf = 1 / (np.arange(VOCABULARY_SIZE) + 2.7)
        # function words belong to no topic
        topics = rng.integers(TOPICS, size=len(zipf))
        topics[: len(WORDS["FUNCTION"])] = -1
        laws = zipf * np.where(topics == np.arange(TOPICS)[:, None], TOPIC_BOOST, 1.0)
        self.cumulative = np.cumsum(laws, axis=1) / laws.sum(axis=1, keepdims=True)

    def comment(self, count: int, hostile: bool) -> tuple[str, np.ndarray]:
        law = self.cumulative[self.rng.integers(TOPICS)]
        # cumulative sums may end just below 1
        ranks = np.minimum(np.searchsorted(law, self.rng.random(count)), len(law) - 1)
        words = list(self.words[ranks])
        if hostile:
            self._insult(words)
        telling = [place for place, word in enumerate(words) if word in TELLING_WORDS]
        if not hostile and self.rng.random() < DECOYS:
            words[self.rng.integers(count)] = self.rng.choice(INSULTS)
        return self._punctuated(words), np.array(telling, dtype=np.int32)

    def _insult(self, words: list[str]) -> None:
        # one phrase is common even in long comments: accuracy against distance needs those
        phrases = 1 if self.rng.random() < 0.4 else 1 + min(6, self.rng.poisson(len(words) / 60))
        share = 1.0 if self.rng.random() < ANYWHERE else 0.7
        for _ in range(phrases):
            parts = _PHRASES[self.rng.integers(len(_PHRASES))].split()
            phrase = [str(self.rng.choice(WORDS[p])) if p in WORDS else p for p in parts]
            phrase = phrase[-len(words) :]
            start = self.rng.integers(max(int(share * len(words)) - len(phrase), 0) + 1)
            words[start : start + len(phrase)] = phrase

    def _punctuated(self, words: list[str]) -> str:
        """Join words with blanks, sentences, commas, quotes and newlines; none adds a word."""
        count, rng = len(words), self.rng
        ends = rng.random(count) < 1 / 14
        ends[-1] = True
        marks = np.where(ends, rng.choice([".", ".", ".", "!", "?"], count), "")
        marks[~ends & (rng.random(count) < 0.08)] = ","
        starts = np.append(True, ends[:-1])
        opened, closed = [""] * count, [""] * count
        if rng.random() < WITH_QUOTES:
            start = int(rng.integers(count))
            opened[start] = closed[min(start + int(rng.integers(4)), count - 1)] = '"'
        gaps = [" "] * (count - 1) + [""]
        if count > 1 and rng.random() < WITH_NEWLINES:
            candidates = np.flatnonzero(ends[:-1])
            chosen = candidates[rng.random(len(candidates)) < 0.3]
            for place in chosen if len(chosen) else rng.integers(count - 1, size=1):
                gaps[place] = "\n\n" if rng.random() < 0.5 else "\n"
        words = [w.capitalize() if first else w for w, first in zip(words, starts, strict=True)]
        return "".join(map("".join, zip(opened, words, marks, closed, gaps, strict=True)))
