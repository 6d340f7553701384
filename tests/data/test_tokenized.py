import zipfile

import numpy as np
import pytest

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.errors import InputError


@pytest.fixture
def sample():
    return TokenizedSample(
        tokens=np.array([5, 6, 7, 8, 1, 2], dtype=np.int32),
        offsets=np.array([0, 3, 4, 6], dtype=np.int64),
        labels=np.array([0, 1, 1], dtype=np.int8),
        splits=np.array(["train", "test", "train"]),
        telling_distance=np.array([np.nan, 2, 0], dtype=np.float32),
    )


def test_comments_by_position_and_by_split(sample):
    assert len(sample) == 3
    assert [sample.tokens_of(i).tolist() for i in range(3)] == [[5, 6, 7], [8], [1, 2]]
    assert sample.lengths.tolist() == [3, 1, 2]
    assert sample.indices_of("train").tolist() == [0, 2]
    assert sample.indices_of("validation").tolist() == []


@pytest.mark.parametrize(("limit", "expected"), [(None, 3), (2, 2), (9, 9)])
def test_longest_comment(sample, limit, expected):
    assert sample.max_length(limit) == expected


def test_a_file_gives_back_the_sample(sample, tmp_path):
    sample.save(tmp_path / "tokens.npz")
    loaded = TokenizedSample.load(tmp_path / "tokens.npz")
    for name in ("tokens", "offsets", "labels", "splits", "telling_distance"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(sample, name))
        assert getattr(loaded, name).dtype == getattr(sample, name).dtype


def test_the_file_does_not_depend_on_the_time(sample, tmp_path):
    sample.save(tmp_path / "first.npz")
    sample.save(tmp_path / "second.npz")
    with zipfile.ZipFile(tmp_path / "first.npz") as archive:
        assert {each.date_time for each in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"not an npz file", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_sample(tmp_path, content):
    if content is not None:
        (tmp_path / "tokens.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"tokens\.npz: .*; run the embed stage"):
        TokenizedSample.load(tmp_path / "tokens.npz")


def test_an_npz_file_with_other_arrays(tmp_path):
    np.savez(tmp_path / "tokens.npz", tokens=np.zeros(3))
    with pytest.raises(InputError, match=r"tokens\.npz: cannot be read"):
        TokenizedSample.load(tmp_path / "tokens.npz")
