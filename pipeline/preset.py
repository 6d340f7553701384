"""A named study, such as the full one: what it will take, and then the run as a DVC experiment.

    python pipeline/preset.py full [--estimate-only]

Reads presets/<name>.yaml, which holds what it changes in params.yaml. No stage: it runs them all.
"""

import argparse
import os
import shlex
import shutil
import sys

from rnngrad.errors import InputError
from rnngrad.preset.disk import check_disk, disk_needs
from rnngrad.preset.estimate import disk_lines, size_line, time_lines
from rnngrad.preset.lengths import lengths_of
from rnngrad.preset.settings import read_preset
from rnngrad.stage import run_stage


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(description="Estimate and run a named study.")
    parser.add_argument("name", help="full, for presets/full.yaml")
    parser.add_argument("--estimate-only", action="store_true", help="say what it takes and stop")
    options = parser.parse_args(arguments)
    # workers set variables for themselves that must not reach DVC's stages
    environment = dict(os.environ)
    preset = read_preset(options.name)
    lengths = lengths_of(preset.params)
    needs = disk_needs(preset.params, lengths)
    command = ["dvc", "exp", "run", *(part for s in preset.settings for part in ("-S", s))]
    print(shlex.join(command), size_line(preset.params, lengths), *disk_lines(needs), sep="\n")
    check_disk(needs)
    print(*time_lines(preset.params, lengths), sep="\n", flush=True)
    if options.estimate_only:
        return
    if shutil.which("dvc") is None:
        raise InputError("dvc is not on the PATH; activate .venv, or use make")
    print("params.yaml takes these settings over; git restore params.yaml undoes that", flush=True)
    # DVC in place of this process: the terminal, Ctrl-C and the exit status are its own
    os.execvpe("dvc", command, environment)


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
