"""The whole pipeline, on a tiny configuration in a temporary clone, run as its reader runs it."""

import json
import math
import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tiny_clone import STAGES, Clone

from rnngrad.models.live import EXPERIMENT

VERDICTS = {"holds", "holds only if", "does not hold"}

pytestmark = pytest.mark.slow


def published_runs(clone: Clone) -> list[Run]:
    client = MlflowClient(clone.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_the_first_run_leaves_a_whole_report(clone: Clone) -> None:
    reports = clone.folder / "reports"
    curves = pd.read_csv(reports / "curves.csv")
    assert {
        "cell",
        "seed",
        "weights",
        "state",
        "statistic",
        "step",
        "log10_mean",
        "log10_median",
        "log10_low",
        "log10_high",
    } <= {*curves.columns}
    assert curves["step"].max() == 150
    assert curves.groupby("cell")["state"].first().to_dict() == {"lstm": "c", "rnn": "h"}
    assert not curves["log10_mean"].isna().any()
    answer = (reports / "answer.txt").read_text().splitlines()
    html = (reports / "report.html").read_text()
    assert 2 <= len(answer) <= 6
    assert all(re.split(r"[\d|]", line)[0] in html for line in answer)
    figures = {path.stem for path in (reports / "figures").iterdir()}
    assert figures >= {"conditions", "jacobian", "training", "remembered", "gates", "triangle"}


def test_every_condition_and_claim_is_written(clone: Clone) -> None:
    reports = clone.folder / "reports"
    conditions = pd.read_csv(reports / "conditions.csv")
    assert conditions.columns.tolist() == [
        "condition",
        "factor",
        "cell",
        "examples",
        "log10_at_20",
        "log10_at_100",
        "log10_at_400",
        "log10_at_1383",
        "log10_at_end",
        "float32_zero_from",
        "decades_per_step_padding",
        "decades_per_step_tokens",
        "horizon",
    ]
    cells = conditions.groupby("condition")["cell"].agg(set)
    assert cells["question"] == {"rnn", "lstm", "gru"}
    assert cells["trained"] == {"rnn", "lstm"}  # nobody trained a GRU
    ends = conditions.set_index(["condition", "cell"])["log10_at_end"]
    for cell in ("rnn", "lstm"):
        assert ends["averaging_bug", cell] == pytest.approx(
            ends["question", cell] - math.log10(2), abs=2e-4
        )
        assert ends["float64", cell] == pytest.approx(ends["question", cell], abs=2e-4)
    examples = conditions.set_index(["condition", "cell"])["examples"]
    assert examples["question", "lstm"] == 2
    assert examples["no_padding", "lstm"] == 1  # a stream
    assert examples["emptied_comments", "lstm"] == 1
    claims = json.loads((reports / "claims.json").read_text())
    assert [claim["id"] for claim in claims] == list(range(1, 12))
    assert {claim["verdict"] for claim in claims} <= VERDICTS
    fields = {"id", "source", "verdict", "condition", "measured", "interval"}
    assert all(set(claim) == fields for claim in claims)


def test_a_second_run_does_nothing_in_seconds(clone: Clone) -> None:
    start = time.monotonic()
    assert clone.repro() == []
    assert time.monotonic() - start < 30
    assert "up to date" in clone.succeed("dvc", "repro")


def test_git_sees_no_large_or_intermediate_files(clone: Clone) -> None:
    changed = clone.succeed("git", "status", "--porcelain", "--untracked-files=all").split("\n")
    names = [line[3:] for line in changed if line]
    assert all(name == "dvc.lock" or name.startswith("reports/") for name in names)
    assert "reports/curves.csv" not in names
    # a figure that this small study has no reason to draw is gone
    left = [clone.folder / name for name in names if (clone.folder / name).exists()]
    assert all(path.stat().st_size < 1_000_000 for path in left)


def test_metrics_and_plots_work(clone: Clone, tmp_path: Path) -> None:
    shown = json.loads(clone.succeed("dvc", "metrics", "show", "--json"))
    metrics = shown[""]["data"]["reports/metrics.json"]["data"]
    assert 0 <= metrics["lstm"]["trained"]["test"]["accuracy"] <= 1
    ways = metrics["conditions"].keys() & {"trained_on_words", "trained_without_padding"}
    assert all("log10_at_end" in metrics["conditions"][way]["rnn"] for way in ways)
    assert len(ways) == 2
    clone.succeed("dvc", "metrics", "diff")
    clone.succeed("dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    assert (tmp_path / "plots" / "index.html").exists()


def test_the_same_inputs_give_the_same_bytes(clone: Clone) -> None:
    before = clone.checksums()
    shutil.rmtree(clone.folder / "build")
    assert clone.repro("--force", "--no-run-cache") == STAGES
    assert clone.checksums() == before


def test_one_more_seed_trains_one_more_model(clone: Clone, params: Path) -> None:
    def made() -> dict[str, int]:
        folder = clone.folder / "build" / "train" / "rnn"
        files = folder.rglob("trained-*.pt")
        return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}

    before = made()
    clone.edit("  - 1\n  - 2\n  hidden", "  - 2\n  - 3\n  - 1\n  hidden")
    assert clone.repro("train@rnn") == ["check", "train@rnn"]
    assert before.items() < made().items()
    assert made().keys() - before == {f"{way}/seed-3/trained-3.pt" for way in ("pre", "none")}


def test_the_result_is_in_mlflow_once(clone: Clone) -> None:
    clone.succeed("python", "pipeline/publish.py")
    runs = published_runs(clone)
    names = sorted(run.info.run_name or "" for run in runs)
    models = [
        f"{cell} seed {seed} padding {padding}"
        for cell in ("lstm", "rnn")
        for seed in (1, 2)
        for padding in ("none", "pre")
    ]
    assert [name for name in names if "seed" in name] == models
    assert len(runs) == 9
    client = MlflowClient(clone.tracking_uri)
    child = next(run for run in runs if run.info.run_name == "lstm seed 1 padding pre")
    curve = client.get_metric_history(child.info.run_id, "trained_frobenius_log10")
    assert sorted(point.step for point in curve) == list(range(1, 151))
    parent = next(run for run in runs if "seed" not in (run.info.run_name or "seed"))
    assert parent.data.tags["dvc.build/embed"]
    assert client.list_artifacts(parent.info.run_id, "reports/figures")


RERUNS = {
    "a key of one cell's block": (
        "lstm: {}",
        "lstm: {forget_bias: 2.0}",
        ["check", "train@lstm", "probe@lstm", "conditions", "report", "publish"],
    ),
    "a probe key": (
        "initial_state: uniform",
        "initial_state: zero",
        ["check", "probe@rnn", "probe@lstm", "probe@gru", "report", "publish"],
    ),
}


@pytest.mark.parametrize("case", RERUNS)
def test_a_key_reruns_exactly_what_it_touches(case: str, clone: Clone, params: Path) -> None:
    old, new, stages = RERUNS[case]
    clone.edit(old, new)
    assert clone.repro() == stages


def test_with_another_sample_and_no_padding_all_but_the_download_is_made_anew(
    clone: Clone, params: Path
) -> None:
    clone.edit("filler: the", "filler: of")
    clone.edit("  - pre\n  - none\n", "  - none\n")
    done = clone.run("dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    ran = re.findall(r"Running stage '(.+)':", done.stdout)
    assert {*ran} == {*STAGES} - {"download"}
    assert "train.padding or cells lack the models of trained, trained_on_words" in done.stderr
    conditions = pd.read_csv(clone.folder / "reports" / "conditions.csv")["condition"]
    assert "trained_without_padding" in set(conditions)
    assert not {"trained", "trained_on_words"} & set(conditions)
    words = (clone.folder / "reports" / "answer.txt").read_text()
    assert "Trained without padding" in words


def test_going_back_comes_from_the_cache_and_publishes_nothing(clone: Clone) -> None:
    published = len(published_runs(clone))
    before = clone.checksums()
    assert set(clone.repro()) <= {"check", "report", "publish"}
    assert clone.repro() == []
    assert len(published_runs(clone)) == published
    assert set(clone.checksums()) >= set(before)


@pytest.mark.parametrize(
    "setting",
    [
        "data.demo.label_noise=0.1",
        "train.padding=[none]",
        "++cells.rnn.epochs=1",
        "probe.comments=2",
        "+conditions.cases.chrono.steps=200",
    ],
)
def test_experiments_take_a_setting(setting: str, clone: Clone, params: Path) -> None:
    # which stages it touches is seen above: without --force a dry run stops at the first of them
    output = clone.succeed("dvc", "exp", "run", "--force", "-S", setting, "--dry")
    assert re.findall(r"Running stage '(.+)':", output) == STAGES
