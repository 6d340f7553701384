import gzip

import numpy as np
import pytest

from rnngrad.data.vector_file import read_vectors
from rnngrad.errors import InputError

VOCABULARY = {"the": 1, "a": 2, "none": 3, "it's": 4}
GOOD = "a 1 2 3\nthe 0.5 -1e-2 4.25\nother 7 8 9\nit's 0 0 1\n"
EXPECTED = [[0, 0, 0], [0.5, -0.01, 4.25], [1, 2, 3], [0, 0, 0], [0, 0, 1]]


def write(tmp_path, content, name="vectors.txt"):
    data = content if isinstance(content, bytes) else content.encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.txt.gz"])
@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        "4 3\n" + GOOD,
        GOOD.rstrip("\n"),
        GOOD.replace("\n", "\r\n"),
        # as word2vec's own tool writes them
        "4 3\n" + GOOD.replace("\n", " \n"),
        # the last vector of a word counts
        "a 9 9 9\n" + GOOD,
        # a line ends at newlines only
        GOOD.replace("other", "oth\u2028er\x85\u00a0\x1c"),
    ],
    ids=[
        "plain",
        "header",
        "no newline at the end",
        "CRLF",
        "word2vec",
        "twice",
        "odd white space",
    ],
)
def test_vectors_of_the_vocabulary(tmp_path, name, content):
    vectors = read_vectors(write(tmp_path, content, name), VOCABULARY, 3)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.array(EXPECTED, dtype=np.float32))


BAD = {
    "dimensions": ("a 1 2\nb 1 2\n", r"line 1: not a word and 3 numbers \(embed.dimensions\) up"),
    "too few": ("a 1 2 3\nb 1 2\nc 1 2 3\n", "line 2: not a word and 3 numbers"),
    "two blanks": ("a 1 2 3\nb  1 2 3\n", "line 2: .* separated by single"),
    "blank line": ("a 1 2 3\n\nb 1 2 3\n", "line 2: not"),
    "text": ("a 1 2 3\nb 1 x 3\n", "line 2: not .*; correct it"),
    "text in a word not needed": ("a 1 2 3\nother 1 x 3\n", "line 2: not"),
    "nan": ("a 1 2 3\nb 1 nan 3\n", r"line 2: not .* up to 1e\+09"),
    "beyond float32": ("a 1 2 3\nb 1 1e99 3\n", r"line 2: not"),
    "cut last line": ("a 1 2 3\nthe 1 2 3\nb 1", "line 3: not .* or get the file again"),
    "a first word that is a number": ("1990 1 2\na 1 2\n", "line 1: not"),
    "not UTF-8": (b"a 1 2 3\n\xff 1 2 3\n", "cannot be read .*codec"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_with_its_line(tmp_path, case):
    content, message = BAD[case]
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        read_vectors(path, VOCABULARY, 3)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_gzip_file_cut_short(tmp_path):
    path = write(tmp_path, "".join(f"w{i} {i} {i * i} {i**3}\n" for i in range(5000)), "v.txt.gz")
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(
        InputError, match=r"cannot be read \(Compressed file ended before .*; get it again"
    ):
        read_vectors(path, VOCABULARY, 3)


def test_a_text_file_that_is_called_gz(tmp_path):
    path = tmp_path / "v.txt.gz"
    path.write_text(GOOD)
    with pytest.raises(InputError, match=r"cannot be read \(Not a gzipped file"):
        read_vectors(path, VOCABULARY, 3)


def test_fields_that_are_not_separated_by_blanks(tmp_path):
    with pytest.raises(InputError, match=r"line 1: .*by single blanks"):
        read_vectors(write(tmp_path, GOOD.replace(" ", "\t")), VOCABULARY, 3)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.txt", r"none\.txt: .*No such file or directory\); get it again, or correct embed"),
        (".", r"cannot be read \(Is a directory\)"),
    ],
)
def test_what_is_no_file(tmp_path, name, says):
    with pytest.raises(InputError, match=says):
        read_vectors(tmp_path / name, VOCABULARY, 3)
