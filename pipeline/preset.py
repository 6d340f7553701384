"""A named study, such as the full one, as a DVC experiment. No stage: it runs them all.

    python pipeline/preset.py full

Reads presets/<name>.yaml: what it says beforehand, the disk it needs, its settings.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from rnngrad.errors import InputError
from rnngrad.stage import run_stage

GB = 1e9


def main(name: str) -> None:
    known = {path.stem: path for path in sorted(Path("presets").glob("*.yaml"))}
    if name not in known:
        raise InputError(f"presets/{name}.yaml: no such preset; there is {' or '.join(known)}")
    preset: dict[str, Any] = YAML(typ="safe", pure=True).load(known[name])
    free = shutil.disk_usage(".").free / GB
    if free < preset["disk"]:
        raise InputError(
            f"the study needs about {preset['disk']} GB, but only {free:.1f} GB are free below "
            f"{Path.cwd()}; make room"
        )
    command = ["dvc", "exp", "run", *(part for s in preset["settings"] for part in ("-S", s))]
    print(preset["says"], shlex.join(command), sep="\n")
    undo = "git restore params.yaml dvc.lock reports, then dvc checkout"
    print(f"params.yaml takes these settings over; to go back: {undo}", flush=True)
    # DVC in place of this process: the terminal, Ctrl-C and the exit status are its own
    os.execvp("dvc", command)


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
