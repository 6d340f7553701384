from fractions import Fraction
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnngrad.data.sampling import data_card, replaced_count, sample_comments, with_filler
from rnngrad.errors import InputError
from rnngrad.params import SampleParams

WORDS = st.lists(st.sampled_from(["a", "b,", "don't", '"c"']), max_size=40)


def params(**changed):
    defaults = {
        "per_class": None,
        "replace_fraction": 0.3,
        "filler": "the",
        "validation": 0.15,
        "test": 0.15,
        "seed": 1,
    }
    return SampleParams(**(defaults | changed))


def comments(friendly, hostile, **columns):
    size = friendly + hostile
    texts = [f"comment {i} says " + "word " * (i % 30) for i in range(size)]
    table = pd.DataFrame({"text": texts, "label": [0] * friendly + [1] * hostile, **columns})
    table.attrs["source"] = "a test"
    return table


@pytest.mark.parametrize(
    ("words", "fraction", "replaced"),
    [
        (3, 0.3, 0),
        (1403, 0.3, 420),
        # 0.29 * 100 is 28.999999999999996 in floating point
        (100, 0.29, 29),
        (7, 0.999, 6),
    ],
)
def test_how_many_words_are_replaced(words, fraction, replaced):
    assert replaced_count(words, fraction) == replaced


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("one two three", "one two three"),
        ("one two\n\nthree  four", "one two three the"),
        ("a b c d e f g h i j", "a b c d e f g the the the"),
    ],
)
def test_the_filler_takes_the_place_of_the_last_words(text, expected):
    assert with_filler(text, 0.3, "the") == expected


@given(WORDS, st.integers(0, 99))
def test_the_filler_keeps_the_number_of_words_and_the_first_ones(words, percent):
    replaced = with_filler("\n".join(words), percent / 100, "X").split()
    kept = len(words) - int(Fraction(percent, 100) * len(words))
    assert replaced == words[:kept] + ["X"] * (len(words) - kept)


@given(
    friendly=st.integers(8, 40),
    hostile=st.integers(8, 40),
    seed=st.integers(0, 9),
    shares=st.sampled_from([(0.15, 0.15), (0.1, 0.3), (0.5, 0.25)]),
)
def test_a_sample_is_balanced_in_every_split(friendly, hostile, seed, shares):
    validation, test = shares
    given = comments(friendly, hostile)
    sample = sample_comments(given, params(seed=seed, validation=validation, test=test))
    size = min(friendly, hostile)
    sizes = sample.groupby(["split", "label"]).size().to_dict()
    assert len(sample) == 2 * size
    for label in (0, 1):
        assert sizes["validation", label] == round(validation * size)
        assert sizes["test", label] == round(test * size)
    numbers = sample["text"].str.split().str[1].astype(int)
    assert len(set(numbers)) == len(numbers)
    assert given["label"].loc[numbers].tolist() == sample["label"].tolist()


def test_the_seed_makes_the_sample():
    given = comments(50, 30)
    first, again, other = (sample_comments(given, params(seed=seed)) for seed in (1, 1, 2))
    assert first.equals(again)
    assert set(first["text"]) != set(other["text"])


def test_classes_and_splits_are_shuffled():
    sample = sample_comments(comments(200, 200), params())
    for column in ("label", "split"):
        assert sum(left != right for left, right in pairwise(sample[column].tolist())) > 100


def test_per_class_comments_of_each_class():
    sample = sample_comments(comments(50, 30), params(per_class=20))
    assert sample["label"].value_counts().to_dict() == {0: 20, 1: 20}


def test_comments_without_a_word_are_not_drawn():
    given = comments(20, 20)
    given.loc[[0, 1, 39], "text"] = ["", " \n\t ", " "]
    sample = sample_comments(given, params())
    assert sample["label"].value_counts().to_dict() == {0: 18, 1: 18}
    assert data_card(given, sample, params())["given"]["without_words"] == 3


@pytest.mark.parametrize(
    ("friendly", "hostile", "changed", "message"),
    [
        (50, 7, {"per_class": 20}, "asks for 20 comments of each class, but class 1 has 7; lower"),
        (0, 9, {}, "0 comments of each class, of 0 and 9, leave none for the train split"),
        (50, 3, {}, "of 50 and 3, leave none for the validation split"),
        (50, 5, {"test": 0.01}, "of 50 and 5, leave none for the test split"),
        (9, 9, {"validation": 0.9}, "of 9 and 9, leave none for the train split"),
    ],
)
def test_too_few_comments(friendly, hostile, changed, message):
    with pytest.raises(InputError, match=message):
        sample_comments(comments(friendly, hostile), params(**changed))


def test_telling_distance_counts_the_words_after_the_last_one_left():
    # ten words each, of which the last three are replaced
    places = [[], [0], [0, 6], [6, 7], [7, 9], [2, 8]] * 4
    table = pd.DataFrame(
        {
            "text": ["0 1 2 3 4 5 6 7 8 9"] * 24,
            "label": [0] * 12 + [1] * 12,
            "telling_words": [np.array(p, dtype=np.int32) for p in places],
        }
    )
    sample = sample_comments(table, params())
    expected = {(): None, (0,): 9, (0, 6): 3, (6, 7): 3, (7, 9): None, (2, 8): 7}
    drawn = [expected[tuple(places[row])] for row in sample.index]
    found = [None if pd.isna(value) else value for value in sample["telling_distance"]]
    assert found == drawn


def test_telling_distance_is_missing_where_nobody_recorded_it():
    sample = sample_comments(comments(20, 20), params())
    assert str(sample["telling_distance"].dtype) == "Int32"
    assert sample["telling_distance"].count() == 0


def test_the_card_counts():
    given = pd.DataFrame(
        {
            "text": ["one two three"] * 10 + ["0 1 2 3 4 5 6 7 8 9"] * 10,
            "label": [0] * 10 + [1] * 10,
            "telling_words": [np.array([], dtype=np.int32)] * 10 + [np.array([4])] * 10,
        }
    )
    given.attrs["source"] = "a test"
    card = data_card(given, sample_comments(given, params()), params())
    words = {"mean": 6.5, "median": 6.5, "p90": 10.0, "p95": 10.0, "p99": 10.0, "max": 10}
    summary = {"comments": 20, "classes": {"0": 10, "1": 10}, "words": words}
    assert card == {
        "source": "a test",
        "given": summary | {"without_words": 0},
        "sample": summary,
        "filler": {"word": "the", "fraction": 0.3, "words_replaced": 30, "comments_left_whole": 10},
        "splits": {
            "train": {"0": 6, "1": 6},
            "validation": {"0": 2, "1": 2},
            "test": {"0": 2, "1": 2},
        },
        "telling_distance": {
            "comments": 10,
            **dict.fromkeys(("mean", "median", "p90", "p95", "p99"), 5.0),
            "max": 5,
        },
    }
