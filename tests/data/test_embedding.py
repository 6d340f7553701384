import json

import numpy as np
import pandas as pd
import pytest

from rnngrad.data.embedding import embed_sample
from rnngrad.errors import InputError
from rnngrad.params import EmbedParams

FILE = "the 3 4\na 0 1\nb 0 2\n"


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(FILE)

    def make(**changed):
        own = {"vectors": "file", "path": str(path), "dimensions": 2, "vocabulary": "sample"}
        return EmbedParams(**(own | {"max_length": None} | changed))

    return make


def table(*rows):
    texts, splits = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "text": texts,
            "label": np.array([i % 2 for i in range(len(rows))], dtype=np.int8),
            "split": splits,
            "telling_distance": pd.array([None, 1, 0, None, 1][: len(rows)], dtype="Int32"),
        }
    )


SAMPLE = table(
    ("A the THE", "train"), ("b, zz", "test"), ("the, b the", "validation"), ("...", "train")
)


def test_tokens_vectors_and_card(params):
    sample, vectors, card = embed_sample(SAMPLE, params())
    # the: 4, b: 2, a and zz: 1
    assert vectors.tolist() == [[0, 0], [3, 4], [0, 2], [0, 1], [0, 0]]
    assert [sample.tokens_of(i).tolist() for i in range(3)] == [[3, 1, 1], [2, 4], [1, 2, 1]]
    assert sample.labels.tolist() == [0, 1, 0]
    assert sample.splits.tolist() == ["train", "test", "validation"]
    np.testing.assert_array_equal(sample.telling_distance, np.array([np.nan, 1, 0]))
    arrays = (sample.tokens, sample.offsets, sample.labels, sample.telling_distance, vectors)
    assert " ".join(array.dtype.name for array in arrays) == "int32 int64 int8 float32 float32"
    assert card == {
        "comments": 3,
        "comments_without_tokens": 1,
        "coverage_of_tokens": 7 / 8,
        "coverage_of_types": 3 / 4,
        "dimensions": 2,
        "longest_comment": 3,
        "mean_norm": pytest.approx(8 / 3),
        "tokens": 8,
        "types": 4,
        "vectors": "vectors.txt",
        "vocabulary": 4,
    }


def test_words_outside_the_training_split_are_left_out(params):
    rows = [("a the", "train"), ("b the", "test"), ("zz a", "validation"), ("b", "test")]
    sample, vectors, card = embed_sample(table(*rows), params(vocabulary="train"))
    assert vectors.tolist() == [[0, 0], [0, 1], [3, 4]]
    assert [sample.tokens_of(i).tolist() for i in range(3)] == [[1, 2], [2], [1]]
    assert (card["vocabulary"], card["types"], card["comments_without_tokens"]) == (2, 4, 1)
    assert card["coverage_of_tokens"] == 4 / 7


def test_the_telling_word_is_counted_among_the_words_that_are_left(params):
    rows = [("a b the", "train"), ("a zz b the", "test"), ("zz a", "validation"), ("a b", "test")]
    sample = table(*rows)
    sample["telling_distance"] = pd.array([2, 3, 1, None], dtype="Int32")
    distances = embed_sample(sample, params(vocabulary="train"))[0].telling_distance
    np.testing.assert_array_equal(distances, np.array([2, 2, np.nan, np.nan], dtype=np.float32))
    everything = embed_sample(sample, params())[0].telling_distance
    np.testing.assert_array_equal(everything, np.array([2, 3, 1, np.nan], dtype=np.float32))


def test_a_telling_word_before_the_comment_is_in_no_other(params):
    sample = table(("a", "train"), ("a b", "test"), ("b", "validation"))
    sample["telling_distance"] = pd.array([1, 2, 3], dtype="Int32")
    assert np.isnan(embed_sample(sample, params())[0].telling_distance).all()


@pytest.mark.parametrize("vocabulary", ["sample", "train"])
def test_corpus_vectors_learn_from_the_known_comments_only(params, vocabulary):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), size=12)) for _ in range(60)]
    splits = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10

    def vectors(texts):
        sample = pd.DataFrame({"text": texts, "label": np.int8(0), "split": splits})
        sample["telling_distance"] = pd.array([pd.NA] * 60, dtype="Int32")
        chosen = params(vectors="corpus", path=None, dimensions=3, vocabulary=vocabulary)
        return embed_sample(sample, chosen)[1]

    # "a a a" changes no rank in the vocabulary: a comes first anyway
    texts[:40] = ["a a a a a a " + text for text in texts[:40]]
    first, second = vectors(texts), vectors([*texts[:50], *["a a a"] * 10])
    assert np.array_equal(first, second) == (vocabulary == "train")


def test_a_split_without_tokens(params):
    rows = [("a", "train"), ("b", "validation"), ("!?", "test")]
    with pytest.raises(InputError, match="no comment of the test split has a token"):
        embed_sample(table(*rows), params())


@pytest.mark.parametrize("content", ["the 0 0\na 0 0\n", "x 1 2\ny 1 2\n", ""])
def test_a_file_without_a_vector_of_the_sample(params, tmp_path, content):
    path = tmp_path / "zero.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=r"zero\.txt: no word of the sample has a vector; give"):
        embed_sample(SAMPLE, params(path=str(path)))


@pytest.mark.parametrize("size", ["1e-30", "1e9"])
def test_the_card_holds_numbers_whatever_the_size_of_the_vectors(params, tmp_path, size):
    path = tmp_path / "odd.txt"
    path.write_text(f"the {size} 0\na 0 {size}\nb {size} {size}\n")
    _, _, card = embed_sample(SAMPLE, params(path=str(path)))
    assert card["coverage_of_tokens"] == 7 / 8
    json.dumps(card, allow_nan=False)
