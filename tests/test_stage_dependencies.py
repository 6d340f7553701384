"""dvc.yaml names the code that a stage depends on: all that its script comes to import."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
STAGES: dict[str, dict] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# How a stage runs and fails, and how params.yaml is read, whose values DVC knows: no number depends
# on it, and an error message is not worth hours of training.
MACHINERY = {
    f"src/rnngrad/{name}.py"
    for name in ("errors", "params", "stage", "workers", "kept", "live", "quick_imports")
}
# The code on which kept results depend, see rnngrad.kept, stands in the files that keep them
KEPT = [
    path
    for folder in ("src", "pipeline")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "run_kept(" in path.read_text() and path.name != "kept.py"
]
# What is made of them is made each time
MADE_OF_THEM = {
    f"src/rnngrad/{name}.py" for name in ("intervals", "study/condition_tables", "study/results")
}


def imported(source: str) -> Iterator[str]:
    """Names of modules of this project, wherever in the file they are imported."""
    tree = ast.parse(source)
    skipped = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if file_of(name) else node.module for name in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "start_workers":
            yield from (str(name.value) for name in node.args if isinstance(name, ast.Constant))


def file_of(module: str) -> Path | None:
    path = ROOT / "src" / Path(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def closure(script: Path) -> set[Path]:
    """The script and every file of this project that it comes to import."""
    found, new = set(), {script}
    while new:
        found |= new
        modules = {name for file in new for name in imported(file.read_text())}
        files = {file_of(name) for name in modules if name.split(".")[0] == "rnngrad"}
        new = {file for file in files if file is not None} - found
    return found


def test_the_closure_follows_imports_to_their_end() -> None:
    found = {str(file.relative_to(ROOT)) for file in closure(ROOT / "pipeline/train.py")}
    assert {"pipeline/train.py", "src/rnngrad/models/training.py"} <= found
    assert {"src/rnngrad/data/batches.py", "src/rnngrad/models/shared_padding.py"} <= found
    assert "src/rnngrad/report/render.py" not in found


@pytest.mark.parametrize("name", STAGES)
def test_no_value_of_params_yaml_stands_in_a_command_or_a_path(name: str) -> None:
    """DVC hands a command to a shell, and empties the folder that an output names."""
    # a list of its own, and no value of params.yaml
    assert set(STAGES[name].get("foreach", [])) <= {"rnn", "lstm", "gru"}
    assert set(re.findall(r"\$\{.*?\}", str(STAGES[name]))) <= {"${item}"}


def test_dvc_yaml_takes_no_other_variables() -> None:
    assert set(yaml.safe_load((ROOT / "dvc.yaml").read_text())) == {"stages", "plots"}


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_checks_its_parameters(name: str) -> None:
    script = STAGES[name].get("do", STAGES[name])["cmd"].split()[1]
    tree = ast.parse((ROOT / script).read_text())
    (main,) = [node for node in tree.body if getattr(node, "name", "") == "main"]
    assert "read_params()" in ast.unparse(main)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_results_depend_on_all_code_that_makes_them(path: Path) -> None:
    values = [
        ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CODE"
    ]
    declared = [ROOT / "src" / "rnngrad" / part for (*parts,) in values for part in parts]
    assert declared
    assert all(part.exists() for part in declared)
    assert missing(path, [*declared, path]) <= MACHINERY | MADE_OF_THEM


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_that_its_script_imports(name: str) -> None:
    stage = STAGES[name].get("do", STAGES[name])
    script = stage["cmd"].split()[1]
    declared = [ROOT / dependency for dependency in stage["deps"] if "${" not in dependency]
    assert missing(ROOT / script, declared) <= MACHINERY


def missing(script: Path, declared: list[Path]) -> set[str]:
    return {
        str(file.relative_to(ROOT))
        for file in closure(script)
        # a package's own file only passes names on
        if file.name != "__init__.py" and not any(file.is_relative_to(path) for path in declared)
    }
