import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnngrad.data.embedding import FILTERS, number, tokenize

# what keras.preprocessing.text.text_to_word_sequence gives with its default settings
EXPECTED = [
    ("", []),
    ("  \n\t ", []),
    ("Hello, World!", ["hello", "world"]),
    ("don't stop", ["don't", "stop"]),
    ("'quoted'", ["'quoted'"]),
    ('"quoted"', ["quoted"]),
    ("e-mail", ["e", "mail"]),
    ("a\nb\tc", ["a", "b", "c"]),
    ("one...two", ["one", "two"]),
    ("User:Name_2 (talk)", ["user", "name", "2", "talk"]),
    ("http://a.org/b?c=d&e", ["http", "a", "org", "b", "c", "d", "e"]),
    ("C:\\x [y] {z} ~ ^ ` | @ # $ % * + < > ;", ["c", "x", "y", "z"]),
    # only the blank separates: other white space stays in a token
    ("a\u00a0b c\rd", ["a\u00a0b", "c\rd"]),
    ("ÉCOLE «x» – ’", ["école", "«x»", "–", "’"]),
    # lower case of U+0130 is two characters
    ("\u0130", ["i\u0307"]),
]


@pytest.mark.parametrize(("text", "tokens"), EXPECTED)
def test_tokens_are_those_of_keras(text, tokens):
    assert tokenize(text) == tokens


@given(st.text(max_size=60))
def test_tokens_hold_no_separator_and_are_their_own_tokens(text):
    tokens = tokenize(text)
    assert all(tokens)
    assert not set("".join(tokens)) & {*FILTERS, " "}
    assert tokenize(" ".join(tokens)) == [t for token in tokens for t in tokenize(token)]


def test_words_are_numbered_by_frequency_then_by_first_appearance():
    tokens, sizes, vocabulary, types = number(["b c", "", "a c a d"], np.array([True] * 3))
    assert vocabulary == {"c": 1, "a": 2, "b": 3, "d": 4}
    assert (tokens.dtype, tokens.tolist()) == (np.int32, [3, 1, 2, 1, 2, 4])
    assert (sizes.tolist(), types) == ([2, 0, 4], 4)


def test_words_of_unknown_texts_alone_have_no_number():
    tokens, sizes, vocabulary, types = number(["x b a x", "a b"], np.array([False, True]))
    assert vocabulary == {"a": 1, "b": 2}
    assert tokens.tolist() == [0, 2, 1, 0, 1, 2]
    assert (sizes.tolist(), types) == ([4, 2], 3)


@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=9), min_size=1, max_size=9))
def test_a_vocabulary_covers_its_own_comments(comments):
    texts = [" ".join(comment) for comment in comments]
    tokens, sizes, vocabulary, _ = number(texts, np.ones(len(texts), dtype=bool))
    assert sorted(vocabulary.values()) == list(range(1, len(vocabulary) + 1))
    words = {number: word for word, number in vocabulary.items()}
    assert [words[token] for token in tokens.tolist()] == [t for c in comments for t in c]
    assert sizes.tolist() == [len(comment) for comment in comments]
