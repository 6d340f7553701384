"""Stage 8: show the result in MLflow; nothing to do where it is shown already.

    python pipeline/publish.py

Writes to MLFLOW_TRACKING_URI, else to mlflow.db in the repository's root. build/published.txt is no
output that DVC shares: the first run in another clone publishes, too.
"""

import quiet  # noqa: F401  # isort: skip

from functools import partial
from pathlib import Path

from rnngrad.stage import DIGEST, read_json, read_output, run_stage, whole

BUILD, REPORTS = Path("build"), Path("reports")


def main() -> None:
    from rnngrad.live import without_password
    from rnngrad.params import read_params
    from rnngrad.study.results import load_results
    from rnngrad.tracking import publish, tracking_uri

    results = load_results(BUILD, read_params())
    cards = [BUILD / "data_card.json", BUILD / "embed" / "card.json"]
    cards += [BUILD / "train" / cell / "model_card.json" for cell in results.cells]
    stages = ("train", "probe", "conditions")
    numbers = [path for stage in stages for path in (BUILD / stage).rglob("*.csv")]
    names = ("report.html", "explore.html", "report.md", "metrics.json", "claims.json")
    pages = [REPORTS / name for name in (*names, "conditions.csv")]
    figures = sorted((REPORTS / "figures").glob("*.svg"))
    uri = tracking_uri()
    metrics = read_json(REPORTS / "metrics.json", "dvc repro")
    note = read_output(
        REPORTS / "answer.txt", "dvc repro", partial(Path.read_text, encoding="utf-8")
    )
    shown, models = [*cards, *pages, *figures], BUILD / "train"
    seeds = ((each, each.name.removeprefix("seed-")) for each in models.glob("*/*/seed-*"))
    names = DIGEST, "init-{}.pt", "trained-{}.pt"
    trained = [each / name.format(seed) for each, seed in seeds for name in names]
    for path in (*shown, *trained):
        read_output(path, "dvc repro", Path.stat)
    done = publish(results, metrics, note, [*cards, *numbers], shown, models, uri)
    print(f"{'published to' if done else 'already in'} MLflow at {without_password(uri)}")
    with whole(BUILD / "published.txt") as path:
        path.write_text("MLflow has this result\n")


if __name__ == "__main__":
    run_stage(main)
