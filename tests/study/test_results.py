from pathlib import Path

import pytest

from rnngrad.errors import InputError
from rnngrad.study import results
from rnngrad.study.results import read_result


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read"),
        ("", "cannot be read"),
        ('a,b\n1,"2', "cannot be read"),
        ("a,c\n1,2\n", "has no column b"),
    ],
)
def test_a_damaged_table_is_one_line(content: str | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=f"table.csv: {expected}.*; run dvc repro") as caught:
        read_result(path, "a", "b")
    assert "\n" not in str(caught.value)


def test_a_missing_table_of_evidence_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "lstm"
    folder.mkdir()
    for name in (*results.EVIDENCE, "tutorial"):
        (folder / f"{name}.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"lstm.paths\.csv: cannot be read"):
        results._evidence([folder])
    (folder / "paths.csv").write_text("a\n1\n")
    assert {*results._evidence([folder])} == {*results.EVIDENCE, "paths", "tutorial"}
