"""Stage 0: refuse a params.yaml with an unknown, missing or ill-typed key before anything runs.

Writes a cell's training settings to build/cells/<cell>.json, on which its stages depend. They are
null where params.yaml does without the cell. build/own/ holds the checksums of the files that
data.path and embed.path name: this stage runs each time, so that DVC sees a change. dvc.yaml
itself holds no value of params.yaml. DVC would hand it to a shell, or delete a folder of that name.
"""

import quiet  # noqa: F401  # isort: skip

import hashlib
import json
from pathlib import Path
from typing import get_args

from rnngrad.stage import run_stage, whole


def main() -> None:
    from rnngrad.params import Cell, read_params

    params = read_params()
    for cell in get_args(Cell):
        settings = params.train_of(cell).model_dump() if cell in params.cells else None
        with whole(f"build/cells/{cell}.json") as path:
            path.write_text(json.dumps(settings, indent=2) + "\n")
    for key, file in {"data.path": params.data.path, "embed.path": params.embed.path}.items():
        found = "no file"
        if file:
            with Path(file).open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        with whole(f"build/own/{key}") as path:
            path.write_text(f"{found}\n")


if __name__ == "__main__":
    run_stage(main)
