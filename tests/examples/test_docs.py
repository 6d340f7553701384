"""The code of the documentation's pages and of the notebook runs."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[2]
SHAPES = {"howto": (2, 9), "tour": (4, 600)}
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if "```python" in path.read_text())


def without_numbers(text: str) -> str:
    """Other processors round otherwise."""
    return re.sub(r"[-+\d.% ]+", " ", text)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_code_of_a_page_runs_from_top_to_bottom(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, names = page.read_text(), dict[str, Any]()
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
        printed = without_numbers(capsys.readouterr().out)
        output = rf"```python\n{re.escape(block)}```\n\n```text\n(.*?)```"
        for shown in re.findall(output, text, re.DOTALL):
            assert without_numbers(shown) == printed
    assert names["curves"].log10_frobenius.shape == SHAPES[page.stem]
    if page.stem == "tour":
        assert list(names["reach"].layers)[-1] == "encoder.1.backward"


def test_every_cell_of_the_notebook_runs_and_shows_something() -> None:
    notebook = json.loads((ROOT / "examples" / "tour.ipynb").read_text())
    names: dict[str, Any] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            *statements, last = ast.parse("".join(cell["source"])).body
            assert isinstance(last, ast.Expr)
            exec(compile(ast.Module(statements, []), "notebook", "exec"), names)
            shown.append(eval(compile(ast.Expression(last.value), "notebook", "eval"), names))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell, result in zip(cells, shown, strict=True):
        (stored,) = cell["outputs"]
        if "text/html" in stored["data"]:  # else it is a picture
            tables = "".join(stored["data"]["text/html"]), result._repr_html_()
            old, new = (without_numbers(table.partition("<img")[0]) for table in tables)
            assert old == new
    first, picture, reach = shown
    assert "underflow" in first._repr_html_()
    assert [line.get_label() for line in picture.lines][:3] == [
        f"forget bias {b}" for b in (0, 1, 3)
    ]
    assert "encoder.1" in reach._repr_html_()
