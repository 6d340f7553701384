"""The study on real comments, for reports/real/ alone. No stage: it runs them all in a clone.

    python pipeline/real_study.py train.csv.gz glove.6B.100d.txt.gz

Takes the last commit's code and settings, real comments (a CSV with the columns comment_text and
toxic) and real vectors (GloVe's text format). Nothing but reports/real/ changes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rnngrad.errors import InputError
from rnngrad.stage import run_stage, whole

REAL = Path("reports/real")
SETTINGS = ["data.source=csv", "sample.per_class=1000", "embed.vectors=file"]
LEFT_OUT = shutil.ignore_patterns("real", "plots", "curves.csv", "digest.txt")
ABOUT = """The study on real comments, made by `make real-study`; no comment's text is in it.

- comments: {0.name}, {1} of each class, SHA-256 {2}
- vectors: {3.name}, SHA-256 {4}
"""


def main(comments: str, vectors: str) -> None:
    data, glove = Path(comments), Path(vectors)
    for path in (data, glove):
        if not path.is_file():
            raise InputError(f"{path}: not found; give comments and vectors, see README")
    settings = [*SETTINGS, f"data.path={data.name}", f"embed.path={glove.name}"]
    with TemporaryDirectory() as folder:
        clone = Path(folder)
        # dvc exp run commits
        who = ["--config=user.name=rnngrad", "--config=user.email=rnngrad"]
        if subprocess.run(["git", "clone", "--quiet", *who, ".", clone], check=False).returncode:
            raise InputError("git cannot clone this repository, see above")
        # the report of real comments shows no other one
        (clone / REAL / "metrics.json").unlink(missing_ok=True)
        for path in (data, glove):
            shutil.copyfile(path, clone / path.name)  # the report then names no folder
        command = ["dvc", "exp", "run", *(part for s in settings for part in ("-S", s)), "report"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        if subprocess.run(command, cwd=clone, env=environment, check=False).returncode:
            raise InputError("the study stopped, see above; nothing has changed here")
        with whole(REAL) as made:
            shutil.copytree(clone / "reports", made, ignore=LEFT_OUT)
            per_class = SETTINGS[1].partition("=")[2]
            about = ABOUT.format(data, per_class, _digest(data), glove, _digest(glove))
            (made / "README.md").write_text(about, encoding="utf-8")
    print((REAL / "answer.txt").read_text(encoding="utf-8"))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
