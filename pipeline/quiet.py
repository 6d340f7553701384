"""Imported first by every stage: Ctrl-C in the middle of an import is one line.

A KeyboardInterrupt there may be swallowed by the import system, or end in a traceback. And the code
is that beside this folder: DVC runs queued experiments in a copy, and installed is another one.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

SRC = str(Path(__file__).resolve().parents[1] / "src")
sys.path.insert(0, SRC)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (SRC, os.environ.get("PYTHONPATH"))))


def _interrupt(_: int, frame: FrameType | None) -> None:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"interrupted; make study or dvc repro goes on from here\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody ignores it
    signal.signal(signal.SIGINT, _interrupt)
