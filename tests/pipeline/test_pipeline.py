"""The whole pipeline, on a tiny configuration in a temporary clone, run as its reader runs it.

One file, since the first run takes a minute and all tests of a file share it.
"""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tiny_clone import STAGES, Clone

from processes import wait_until
from rnngrad.live import EXPERIMENT

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
    names = "cell seed weights state statistic step log10_mean log10_median log10_low log10_high"
    assert {*names.split()} <= {*curves.columns}
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
    assert " ".join(map(str, conditions.columns)) == (
        "condition factor cell examples log10_at_20 log10_at_100 log10_at_400 log10_at_1383 "
        "log10_at_end float32_zero_from decades_per_step_padding decades_per_step_tokens horizon"
    )
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
    assert clone.repro() == ["check"]  # it looks for files of one's own
    assert time.monotonic() - start < 30


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


def test_a_second_clone_pulls_the_results_and_publishes_them(clone: Clone, tmp_path: Path) -> None:
    remote = ("dvc", "remote", "add", "--local", "--default", "team", str(tmp_path / "remote"))
    clone.succeed(*remote)
    clone.succeed("dvc", "push")
    own = shutil.ignore_patterns(
        "build", "cache", "tmp", "config.local", "mlflow.db", "mlartifacts"
    )
    second = Clone(shutil.copytree(clone.folder, tmp_path / "second", ignore=own))  # as git has it
    second.environment |= {
        "PYTHONPATH": str(second.folder / "src"),
        "DVC_SITE_CACHE_DIR": str(tmp_path),
    }
    second.succeed(*remote)
    second.succeed("dvc", "pull")
    assert second.repro() == ["check", "publish"]
    assert second.checksums() == clone.checksums()


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
        f"{cell} {padding} seed {seed}"
        for cell in ("lstm", "rnn")
        for padding in ("none", "pre")
        for seed in (1, 2)
    ]
    assert [name for name in names if "seed" in name] == models
    assert len(runs) == 9
    client = MlflowClient(clone.tracking_uri)
    child = next(run for run in runs if run.info.run_name == "lstm pre seed 1")
    curve = client.get_metric_history(child.info.run_id, "trained_frobenius_log10")
    assert sorted(point.step for point in curve) == list(range(1, 151))
    parent = next(run for run in runs if "seed" not in (run.info.run_name or "seed"))
    assert "dvc.lock" in {each.path for each in client.list_artifacts(parent.info.run_id)}
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
    assert clone.repro() == ["check"]
    assert len(published_runs(clone)) == published
    assert set(clone.checksums()) >= set(before)


SETTINGS = (
    "data.demo.label_noise=0.1",
    "train.padding=[none]",
    "++cells.rnn.epochs=1",
    "+conditions.cases.chrono.steps=200",
)


def test_experiments_take_settings(clone: Clone, params: Path) -> None:
    # which stages they touch is seen above: without --force a dry run stops at the first of them
    given = [part for setting in SETTINGS for part in ("-S", setting)]
    output = clone.succeed("dvc", "exp", "run", "--force", *given, "--dry")
    assert re.findall(r"Running stage '(.+)':", output) == STAGES


# bad settings, interruptions and damaged files cost one line, and nothing that was computed


def test_a_file_of_ones_own_is_read_again_when_it_changes(clone: Clone, params: Path) -> None:
    own = clone.folder / "own.csv"
    table = pd.read_parquet(clone.folder / "build" / "comments.parquet")
    table = table.rename(columns={"text": "comment_text", "label": "toxic"})
    clone.edit("source: demo ", "source: csv ")
    clone.edit("path:   ", "path: own.csv   ")
    done = clone.run("dvc", "repro", "download")
    assert "check: own.csv: No such file or directory; mend it" in done.stderr
    for examples in (40, 60):
        table[["comment_text", "toxic"]][:examples].to_csv(own, index=False)
        assert clone.repro("download") == ["check", "download"]
        assert clone.repro("download") == ["check"]
        read = pd.read_parquet(clone.folder / "build" / "comments.parquet")
        assert len(read) == examples
    cached = (clone.folder / ".dvc" / "cache").rglob("*")
    content = own.read_bytes()
    assert not any(path.is_file() and path.read_bytes() == content for path in cached)
    own.unlink()


def test_an_unknown_key_stops_before_anything_runs(clone: Clone, params: Path) -> None:
    clone.edit("probe:", "prob:")
    done = clone.run("dvc", "repro")
    assert done.returncode != 0
    assert "check: params.yaml: prob: unknown key" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Running stage 'download'" not in done.stdout


@pytest.mark.parametrize(
    ("stage", "cell"), [("report", "x; touch touched"), ("-s train@{cell}", "rnn/../../../touched")]
)
def test_the_name_of_a_cell_is_no_command_and_no_folder(
    stage: str, cell: str, clone: Clone, params: Path
) -> None:
    """A shell would make the file, and DVC would empty the folder before its stage runs."""
    touched = clone.folder / "touched"
    touched.mkdir()
    (touched / "precious").write_text("")
    clone.edit("  rnn: {}\n", f'  "{cell}": {{}}\n')
    done = clone.run("dvc", "repro", *(part.format(cell=cell) for part in stage.split()))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert list(touched.iterdir()) == [touched / "precious"]
    shutil.rmtree(touched)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_nothing_half_written_and_training_resumes(
    clone: Clone, params: Path
) -> None:
    whole = clone.checksums()
    outputs = {name for name in whole if name.startswith("build/train/rnn/")}
    shutil.rmtree(clone.folder / "build" / "train" / "rnn")
    clone.edit("epochs: 2", "epochs: 15")
    command = ["python", "pipeline/train.py", "rnn"]
    process = clone.start(*command, stderr=subprocess.PIPE, start_new_session=True)
    unfinished = clone.folder / "build" / "unfinished"
    wait_until(lambda: list(unfinished.rglob("last.ckpt")))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not list((clone.folder / "build" / "train" / "rnn").rglob("*.*"))
    assert list(unfinished.rglob("last.ckpt"))
    clone.succeed(*command)
    resumed = clone.checksums()
    assert not unfinished.exists() or not list(unfinished.iterdir())
    shutil.rmtree(clone.folder / "build" / "train" / "rnn")
    clone.succeed(*command)
    again = clone.checksums()
    assert {name: again[name] for name in outputs} == {name: resumed[name] for name in outputs}


# what is left of the file, if there is one; other tests damage what other stages read
@pytest.mark.parametrize(
    ("stage", "name", "left"),
    [
        ("train rnn", "build/embed/tokens.npz", 0.5),
        ("probe rnn", "build/embed/vectors.npy", None),
        ("conditions", "build/train/rnn/pre/seed-1/trained-1.pt", 0.5),
        ("report", "build/conditions/curves.csv", None),
        ("publish", "build/train/lstm/pre/seed-1/trained-1.pt", 0.5),
        ("publish", "build/train/lstm/pre/seed-1/trained-1.pt", None),
        ("publish", "reports/answer.txt", 0.5),
    ],
)
def test_an_input_that_is_cut_or_missing_is_named(
    stage: str, name: str, left: float | None, clone: Clone
) -> None:
    before = clone.checksums()
    path, (script, *cell) = clone.folder / name, stage.split()
    content = path.read_bytes()
    path.unlink()  # it may be a link into DVC's cache
    if left is not None:
        path.write_bytes(content[: int(left * len(content))])
    done = clone.run("python", f"pipeline/{script}.py", *cell)
    path.write_bytes(content)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script}: {name}: ")
    assert "dvc repro" in line or "stage" in line
    assert {*clone.checksums()} == {*before}


def test_after_dvc_alone_is_killed_another_repro_ends_well(clone: Clone, params: Path) -> None:
    """The stage that it ran ends as well, and does not write what the next one writes."""
    clone.edit("hidden: 8", "hidden: 9")
    process = clone.start("dvc", "repro", "train@rnn", stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if "Running stage 'train@rnn'" in line:
            break
    time.sleep(2)
    process.kill()
    process.wait()
    process.stdout.close()
    assert clone.repro("train@rnn") in (["check", "train@rnn"], ["check"])
    found = clone.checksums()
    shutil.rmtree(clone.folder / "build" / "train" / "rnn")
    clone.succeed("python", "pipeline/train.py", "rnn")
    assert clone.checksums() == found


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("module", "script"),
    [
        ("rnngrad", "check"),
        ("pydantic", "train rnn"),
        ("pandas", "report"),
        ("sqlalchemy", "publish"),
    ],
)
def test_ctrl_c_while_a_stage_is_imported_is_one_line(
    module: str, script: str, clone: Clone
) -> None:
    name, *cell = script.split()
    command = ["python", "-X", "importtime", f"pipeline/{name}.py", *cell]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = clone.start(*command, **pipes, start_new_session=True)
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            if line.rsplit("|")[-1].strip().startswith(module):
                break
        os.killpg(process.pid, signal.SIGINT)
        errors = [line for line in lines if not line.startswith("import time:")]
    assert (process.wait(timeout=60), errors) in (
        (130, ["interrupted; make study or dvc repro goes on from here\n"]),
        (0, []),  # it was quicker
    )
