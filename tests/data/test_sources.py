import gzip

import numpy as np
import pytest

from rnngrad.data.sources import read_csv_comments
from rnngrad.errors import InputError

SECRET = "hushhush"
GOOD = 'id,comment_text,toxic\n1,"a, ""b""\nc",0\n2,,1\n3,NA,1\n4,nan,0\n'


@pytest.mark.parametrize("name", ["comments.csv", "comments.csv.gz"])
def test_comments_are_read_as_they_are(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(GOOD.encode()) if name.endswith("gz") else GOOD.encode())
    comments = read_csv_comments(path, "toxic")
    # an empty text, NA and nan are texts like any other
    assert comments["text"].tolist() == ['a, "b"\nc', "", "NA", "nan"]
    assert comments["label"].tolist() == [0, 1, 1, 0]
    assert comments["label"].dtype == np.int8


def test_labels_may_be_written_as_decimals_and_with_blanks(tmp_path):
    path = tmp_path / "comments.csv"
    path.write_text("comment_text,toxic\na,1.0\nb, 0\nc,0.0\n")
    assert read_csv_comments(path, "toxic")["label"].tolist() == [1, 0, 0]


def test_columns_that_nobody_reads_may_share_a_name(tmp_path):
    path = tmp_path / "comments.csv"
    path.write_text("x,comment_text,,toxic,,x,toxic.1\n1,a,,0,,2,1\n1,b,,1,,2,0\n")
    assert read_csv_comments(path, "toxic")["label"].tolist() == [0, 1]


def rows(*labels):
    return "comment_text,toxic\n" + "".join(f"{SECRET},{label}\n" for label in labels)


BAD = {
    "empty": (b"", r"\(No columns to parse from file\); give a CSV"),
    "no text": (b"id,text,toxic\n1,a,0\n", "no column comment_text among its 3; separate"),
    "no label": (b"id,comment_text\n1,a\n", "no column toxic among its 2; separate"),
    "neither": (b"a;b\n1;2\n", "no column comment_text or toxic among its 1; separate"),
    "semicolons": (b"id;comment_text;toxic\n1;a;0\n", "among its 1; separate them by commas"),
    "gzipped": (
        gzip.compress(b"comment_text,toxic\na,0\n"),
        r"codec.*; give a CSV file in UTF-8, packed as \.csv\.gz or not at all",
    ),
    "label 2": (
        rows(0, 1, 2, 3),
        r"data row 3 \(the header not counted\): label in column toxic is "
        r"not 0 or 1 \(2 such rows\); correct it, or set data.label",
    ),
    "label text": (rows(0, SECRET), "data row 2 .*label in column toxic is not 0 or 1"),
    "no last field": (f"comment_text,toxic\na,0\n{SECRET}\n", "data row 2 .*is not 0 or 1"),
    "a field too many": (
        f"comment_text,toxic\na,0\n{SECRET},{SECRET},0\n",
        r"cannot be read \(.*in line 3, saw 3",
    ),
    "open quote": (f'comment_text,toxic\na,0\n"{SECRET},1\nb,0\n', "cannot be read"),
    "latin-1": (rows(0, 1).replace("u", "ü").encode("latin-1"), "codec"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_and_none_of_its_comments(tmp_path, case):
    content, message = BAD[case]
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_csv_comments(path, "toxic")
    assert str(caught.value).startswith(f"{path}: ")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [GOOD.encode(), gzip.compress(GOOD.encode() * 50)[:60], gzip.compress(b"a" * 99)[:-4]],
    ids=["no gzip", "cut", "without its checksum"],  # a gzip file has the time in it
)
def test_a_broken_gzip_file(tmp_path, content):
    path = tmp_path / "bad.csv.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.csv\.gz: cannot be read \(.+\); give"):
        read_csv_comments(path, "toxic")


def test_a_gzipped_file_under_its_own_name_is_told_of_its_text(tmp_path):
    path = tmp_path / "bad.csv.gz"
    path.write_bytes(gzip.compress("comment_text,toxic\nü,0\n".encode("latin-1")))
    with pytest.raises(InputError, match=r"codec.* give a CSV file in UTF-8"):
        read_csv_comments(path, "toxic")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("none.csv", r"none\.csv: .*No such file or directory\); give .*, or correct data\.path"),
        (".", r"cannot be read \(Is a directory\)"),
        ("https://example.org/comments.csv", "cannot be read"),
    ],
)
def test_what_is_no_file(path, says):
    with pytest.raises(InputError, match=says):
        read_csv_comments(path, "toxic")
