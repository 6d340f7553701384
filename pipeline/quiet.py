"""Imported first by every stage: Ctrl-C in the middle of an import is one line.

And the code is that beside this folder: DVC runs queued experiments in a copy, and installed is
another one.
"""

import os
import sys
from pathlib import Path

SRC = str(Path(__file__).resolve().parents[1] / "src")
sys.path.insert(0, SRC)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (SRC, os.environ.get("PYTHONPATH"))))

from rnngrad.stage import quiet_imports  # noqa: E402

quiet_imports(b"interrupted; make study or dvc repro goes on from here\n")
