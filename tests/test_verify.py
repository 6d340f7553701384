"""How far apart two runs' outputs are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pipeline.verify import compare

# a column is measured by its own largest number, and not by that of another one
TEXT = "step,log10\n1,-0.5\n2,-95.25\n1403,-inf\n"


def write(path: Path, change: float) -> None:
    """One file of every kind, whose numbers are changed by a share of the largest."""
    path.mkdir()
    values = np.array([1.0, 2.0, np.nan, 4.0 + 4 * change])
    np.save(path / "a.npy", values)
    np.savez(path / "a.npz", values=values, names=np.array(["x", "y"]))
    torch.save({"weight": torch.from_numpy(values)}, path / "a.pt")
    pd.DataFrame({"text": list("abcd"), "value": values}).to_parquet(path / "a.parquet")
    (path / "a.json").write_text(f'{{"step": 1, "loss": {4.0 + 4 * change!r}}}')
    (path / "digest.txt").write_text(f"{change}")


@pytest.mark.parametrize("name", ["", "a.npy", "a.npz", "a.pt", "a.parquet", "a.json"])
def test_numbers_are_compared_beside_the_largest(name: str, tmp_path: Path) -> None:
    for folder, change in (("before", 0.0), ("same", 0.0), ("near", 1e-4), ("far", 0.1)):
        write(tmp_path / folder, change)
    verdicts = [
        compare(tmp_path / "before" / name, tmp_path / folder / name)
        for folder in ("same", "near", "far", "none")
    ]
    assert verdicts == ["the same numbers", "within 1e-04", "different", "different"]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (TEXT.replace("-95.25", "-95.26"), "within 1e-04"),
        (TEXT.replace("-95.25", "-45.25"), "different"),
        (TEXT.replace("-95.25", "-97.25"), "different"),
        (TEXT.replace("-inf", "inf"), "different"),
        (TEXT + "4,-0.5\n", "different"),
        (TEXT.replace("step", "time"), "different"),
    ],
)
def test_text_is_the_same_but_for_its_numbers(text: str, verdict: str, tmp_path: Path) -> None:
    for name, content in (("before.csv", TEXT), ("again.csv", text)):
        (tmp_path / name).write_text(content)
    assert compare(tmp_path / "before.csv", tmp_path / "again.csv") == verdict


def test_a_number_is_not_measured_by_a_larger_one_beside_it(tmp_path: Path) -> None:
    for name, accuracy in (("before.json", 0.9), ("again.json", 0.8)):
        (tmp_path / name).write_text(f'{{"comments": 1000, "accuracy": {accuracy}}}')
    assert compare(tmp_path / "before.json", tmp_path / "again.json") == "different"


@pytest.mark.parametrize(
    ("name", "text", "other", "verdict"),
    [
        ("a.md", "-1.2 decades of 1403", "-1.3 decades of 1403", "within 1e-02"),
        ("a.md", "-1.2 decades of 1403", "-1.4 decades of 1403", "different"),
        ("a.md", "2 of 11 claims", "3 of 11 claims", "different"),
        ("a.svg", "<svg>M 100 0.5</svg>", "<svg>M 100 0.6</svg>", "within 1e-03"),
        ("a.html", "0.5 <svg>M 100 0.5</svg>", "0.5 <svg>M 100 0.6</svg>", "within 1e-03"),
        ("a.html", "0.5 <svg>M 1 0.5</svg>", "7.5 <svg>M 1 0.5</svg>", "different"),
        ("a.svg", "<svg>#m9e73 1 0.5</svg>", "<svg>#m9e73 1 0.7</svg>", "different"),
        ("a.svg", "<svg>#m9e73 1</svg>", "<svg>#m9e74 1</svg>", "different"),
        ("a.csv", "", "", "the same numbers"),
        ("a.csv", "x\n1\n1,2,300\n", "x\n1\n1,2,400\n", "different"),
        ("a.csv", "x\nNA\n", "x\nnull\n", "different"),
    ],
)
def test_prose_rounds_and_pictures_have_one_scale(
    name: str, text: str, other: str, verdict: str, tmp_path: Path
) -> None:
    for folder, content in (("before", text), ("again", other)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(content)
    assert compare(tmp_path / "before" / name, tmp_path / "again" / name) == verdict


def test_one_more_file_is_another_folder(tmp_path: Path) -> None:
    for folder in ("before", "again"):
        write(tmp_path / folder, 0.0)
    (tmp_path / "again" / "more.csv").write_text(TEXT)
    assert compare(tmp_path / "before", tmp_path / "again") == "different"
    assert compare(tmp_path / "again", tmp_path / "before") == "different"


def test_what_was_committed_may_not_be_there_to_compare(tmp_path: Path) -> None:
    (tmp_path / "again").write_text(TEXT)
    assert compare(tmp_path / "before", tmp_path / "again").startswith("other bytes, and")
