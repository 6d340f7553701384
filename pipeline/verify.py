"""Rerun the study from nothing in a clone, and say of every output whether it came out the same.

    python pipeline/verify.py

Reruns the last commit and compares with what it recorded: by checksum, and where that differs by
the numbers in the files. Exits with status 1 where one is beyond the tolerance.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rnngrad.errors import InputError
from rnngrad.stage import DIGEST, run_stage

# Of the largest number of a column, array or picture; of a number in a text, or of 1 if more.
TOLERANCE = 0.01  # other processors round otherwise
UNKNOWN = "other bytes, and the committed ones are not in DVC's cache"
# a number that is no part of a word, as of a picture's ids
NUMBER = re.compile(r"(?<![\w#.-])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
PICTURE = re.compile("(<svg.*?</svg>)", re.DOTALL)


def main() -> None:
    with TemporaryDirectory() as before, TemporaryDirectory() as again:
        for folder in (before, again):
            if subprocess.run(["git", "clone", "--quiet", ".", folder], check=False).returncode:
                raise InputError("git cannot clone this repository, see above")
        # what the cache does not have cannot be compared by its numbers
        cache = ["dvc", "config", "--local", "cache.dir", str(Path(".dvc/cache").resolve())]
        _run(before, *cache)
        _run(before, "dvc", "checkout", "--quiet", "--force", "--allow-missing")
        if _run(again, "dvc", "repro", "--force", "--no-run-cache"):
            sys.exit("verify: the study does not run in a fresh clone; see above")
        committed, found = _outputs(Path(before)), _outputs(Path(again))
        differ = 0
        for name in committed:
            same = found.get(name) == committed[name]
            verdict = "identical" if same else compare(Path(before, name), Path(again, name))
            print(f"{verdict}: {name}")
            differ += verdict in ("different", UNKNOWN)
    if differ:
        sys.exit(
            f"verify: {differ} of {len(committed)} outputs differ by more than {TOLERANCE:.0%}, or "
            "have other bytes (another Python writes other headers) and nothing to compare with"
        )


def compare(before: Path, again: Path) -> str:
    """Say how far apart the numbers of two files, or of two folders' files, are."""
    if not before.exists():  # a fresh clone's cache is empty
        return UNKNOWN
    names = {
        path.relative_to(folder)
        for folder in (before, again)
        for path in (folder, *folder.rglob("*"))
        if path.is_file() and path.name != DIGEST
    }
    gap = max((_gap(before / name, again / name) for name in names), default=float("inf"))
    if gap > TOLERANCE:
        return "different"
    return f"within {gap:.0e}" if gap else "the same numbers"


def _gap(before: Path, again: Path) -> float:
    """The largest difference of two files' numbers, in units of the largest of each array."""
    import numpy as np

    if not (before.is_file() and again.is_file()):
        return float("inf")
    (text, old), (others, new) = _content(before), _content(again)
    if text != others or [a.shape for a in old] != [a.shape for a in new]:
        return float("inf")
    gap = 0.0
    for a, b in zip(old, new, strict=True):
        finite = np.isfinite(a)
        if not np.array_equal(np.where(finite, 0, a), np.where(np.isfinite(b), 0, b), True):
            return float("inf")
        size = np.abs([a[finite], b[finite]]).max(initial=0)
        if size:
            gap = max(gap, np.abs(a[finite] - b[finite]).max() / size)
    return gap


def _content(path: Path) -> tuple[Any, list[Any]]:
    """Give the text beside a file's numbers, and these as float64 arrays."""
    import numpy as np

    found: dict[str, Any] = {}
    if path.suffix in (".npy", ".npz"):
        loaded = np.load(path, allow_pickle=False)
        found = dict(loaded) if path.suffix == ".npz" else {"": loaded}
    elif path.suffix == ".pt":
        import torch

        found = {name: w.numpy() for name, w in torch.load(path, weights_only=True).items()}
    elif (table := _table(path)) is not None:
        found = {str(name): column.to_numpy() for name, column in table.items()}
    else:
        text = path.read_text(encoding="utf-8")
        return NUMBER.sub("0", text), [*_numbers(text, rounded=path.suffix != ".json")]
    words = {name: v.tolist() for name, v in found.items() if v.dtype.kind not in "fiub"}
    return (list(found), words), [v.astype(float) for k, v in found.items() if k not in words]


def _table(path: Path) -> Any:
    """Read a table; None where a file holds none, or one that is empty or cut: that is text."""
    import pandas as pd

    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    with suppress(ValueError):
        if path.suffix == ".csv":
            return pd.read_csv(path, keep_default_na=False, na_values=["", "nan"])
    return None


def _numbers(text: str, rounded: bool) -> Iterator[Any]:
    """Yield a picture's numbers as one array, any other number beside what it is measured by."""
    import numpy as np

    for part in PICTURE.split(text):
        numbers = NUMBER.findall(part)
        if part.startswith("<svg"):
            yield np.array(numbers, dtype=float)
            continue
        for number in numbers:  # prose rounds: its last digit may be another one
            last = 1.01 * 10.0 ** -len(number.partition(".")[2]) / TOLERANCE
            yield np.array([float(number), last if rounded and "." in number else 1.0])


def _run(folder: str, *command: str) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def _outputs(folder: Path) -> dict[str, str]:
    from ruamel.yaml import YAML

    stages = YAML(typ="safe", pure=True).load(folder / "dvc.lock")["stages"]
    outs = [out for stage in stages.values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if Path(out["path"]).name != DIGEST}


if __name__ == "__main__":
    run_stage(main)
