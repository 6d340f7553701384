"""The parts that all pipeline stages share: one-line errors, and outputs that appear only whole."""

import gc
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

from rnngrad.errors import InputError

T = TypeVar("T")


def run_stage(main: Callable[..., None], *arguments: str) -> None:
    """Call ``main(*arguments)``; turn bad input into one line on stderr and exit status 1.

    Ctrl-C exits with status 130, without a traceback; DVC then leaves the stage undone.
    """
    # what a stage imports and reads stays: to look through it for garbage takes a tenth of the time
    gc.set_threshold(50_000)
    name = Path(sys.argv[0]).stem
    wanted = inspect.signature(main)
    try:
        wanted.bind(*arguments)
    except TypeError as error:
        usage = " ".join((sys.argv[0], *wanted.parameters))
        sys.exit(f"{name}: {error}; usage: python {usage}")
    try:
        main(*arguments)
    except InputError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        print("interrupted; make study or dvc repro goes on from here", file=sys.stderr)
        sys.exit(130)


def read_output(path: str | Path, stage: str, reader: Callable[[Path], T]) -> T:
    """Have ``reader`` read what a stage wrote.

    Raises:
        InputError: the file is missing or holds something else; the message says what to run.
    """
    try:
        return reader(Path(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; run {stage} first") from error
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({error}); run {stage} again") from error


def cell_of_stage() -> list[str]:
    """The cell in the name that DVC gives a stage, such as ``train@lstm``; none without DVC."""
    stage, _, cell = os.environ.get("DVC_STAGE", "").rpartition("@")
    return [cell] if stage else []


def leave_out(folder: Path) -> None:
    """Have an output folder hold nothing but a word on why: DVC warns of empty ones."""
    with whole(folder) as path:
        path.mkdir()
        (path / "left_out.txt").write_text("params.yaml does without this cell\n")


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write a file or folder to; rename it when the block succeeds.

    A block that fails leaves nothing behind, so that no reader ever sees half an output.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # the suffixes stay last: writers choose their format by them
    unfinished = target.with_name(f".unfinished-{target.name}")
    remove(unfinished)
    try:
        yield unfinished
        remove(target)
        unfinished.rename(target)
    finally:
        remove(unfinished)


def remove(path: Path) -> None:
    """Delete a file, or a folder and all that lies in it; nothing where there is neither."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
