"""The parts that all pipeline stages share: one-line errors, and outputs that appear only whole."""

import hashlib
import inspect
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.pool import ThreadPool
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from rnngrad.errors import InputError

T = TypeVar("T")
DIGEST = "digest.txt"


def run_stage(main: Callable[..., None], *arguments: str) -> None:
    """Call ``main(*arguments)``; bad input is one line on stderr and exit status 1, Ctrl-C is 130.

    ``main`` imports what takes time, so that this holds meanwhile. A stage ends with the DVC that
    runs it.
    """
    # Arrow's own allocator keeps what it frees: half a gigabyte for a million comments, by chance
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if "DVC_STAGE" in os.environ:
        Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    for folder in filter(Path.is_dir, (Path("build"), Path(".dvc/cache"))):
        with suppress(OSError):  # another user's
            folder.chmod(0o700)  # comments lie in them
    name = Path(sys.argv[0]).stem
    try:
        inspect.signature(main).bind(*arguments)
    except TypeError as error:
        sys.exit(f"{name}: {error}")
    try:
        before = _state()
        main(*arguments)
        changed = _state() != before
    except InputError as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:  # such as a full disk
        reason = error.strerror or error  # NumPy gives no number
        sys.exit(f"{name}: {error.filename or 'output'}: {reason}; mend it, run dvc repro")
    except KeyboardInterrupt:
        print("interrupted; make study or dvc repro goes on from here", file=sys.stderr)
        sys.exit(130)
    if changed:  # DVC would note the new ones as what made the old results
        sys.exit(f"{name}: code or params.yaml changed meanwhile; run the same command again")


def _state() -> str:
    """Digest what a stage reads when it begins, and DVC when it ends."""
    files = filter(Path.is_file, (Path("params.yaml"), Path(sys.argv[0])))
    return code_digest() + seals(files)


def code_digest() -> str:
    """Digest this package's files, wherever they lie."""
    found = Path(__file__).parent.rglob("*")
    return seals(path for path in found if path.is_file() and path.parent.name != "__pycache__")


def end_with(parent: int) -> None:
    """End this process when its parent has ended; for a thread."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def within(seconds: float, function: Callable[[], T]) -> T:
    """Give what a function returns or raises; multiprocessing.TimeoutError where it takes longer.

    This is for libraries that limit each read alone. The call goes on in a thread nobody awaits.
    """
    with ThreadPool(1) as thread:
        return thread.apply_async(function).get(seconds)


def read_output(path: str | Path, stage: str, reader: Callable[[Path], T]) -> T:
    """Have ``reader`` read what a stage wrote; InputError where :func:`seal` saw something else."""
    path = Path(path)
    mark = path.with_name(DIGEST)
    try:
        if mark.exists() and seals([path]) not in mark.read_text():
            raise ValueError("cut or changed")  # noqa: TRY301  half a CSV is a CSV
        return reader(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; run {stage} first") from error
    except Exception as error:  # a damaged file may raise anything
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason}); run {stage} again") from error


def read_json(path: str | Path, stage: str) -> dict[str, Any]:
    """Read an object as :func:`read_output` does."""
    return read_output(path, stage, lambda path: json.loads(path.read_text()))


def seal(folder: Path, head: str = "") -> None:
    """Write into ``digest.txt`` a line for every file of a folder, below ``head``."""
    (folder / DIGEST).write_text(head + seals(folder.iterdir()))


def seals(paths: Iterable[Path]) -> str:
    """Give a line per file with its SHA-256 and name."""
    files = sorted(path for path in paths if not path.is_dir() and path.name != DIGEST)
    return "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in files)


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
    unfinished = target.with_name(f".unfinished-{target.name}")  # writers look at the suffix
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
