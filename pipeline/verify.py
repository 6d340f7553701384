"""Rerun the study from nothing in a clone, and say of every output whether it came out the same.

    python pipeline/verify.py

Compares the checksums in dvc.lock; the last commit is what is rerun.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from rnngrad.stage import run_stage


def main() -> None:
    committed = _outputs(Path())
    with TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", ".", folder], check=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        # an installed rnngrad would run this repository's code, not the clone's
        environment |= {"PYTHONPATH": f"{folder}/src", "MLFLOW_DISABLE_TELEMETRY": "true"}
        repro = ["dvc", "repro", "--force", "--no-run-cache"]
        if subprocess.run(repro, cwd=folder, env=environment, check=False).returncode:
            sys.exit("verify: the study does not run in a fresh clone; see above")
        again = _outputs(Path(folder))
    differ = [name for name in committed if again.get(name) != committed[name]]
    for name in committed:
        print(f"{'different' if name in differ else 'identical'}: {name}")
    if differ:
        sys.exit(f"{len(differ)} of {len(committed)} outputs differ; another processor rounds so")


def _outputs(folder: Path) -> dict[str, str]:
    stages = YAML(typ="safe", pure=True).load(folder / "dvc.lock")["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


if __name__ == "__main__":
    run_stage(main)
