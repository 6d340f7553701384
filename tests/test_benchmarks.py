"""The benchmark's arithmetic, its refusal of wrong outputs, and its tables; nothing is timed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.cases import Case, Problem, make_problem
from benchmarks.competitors import (
    COMPETITORS,
    FLOOR,
    PROBE,
    UNIT,
    Curves,
    torch_forward,
    torch_reverse,
)
from benchmarks.competitors import probe as probe_competitor
from benchmarks.extrapolation import from_first_steps, from_some_steps, longest_prefix
from benchmarks.findings import ratio
from benchmarks.process import Process, RefusedError, installed
from benchmarks.rounds import installed_competitors
from benchmarks.stages import stage_seconds
from benchmarks.summary import table, write_summary
from benchmarks.verification import reference, verify

# torch says so to itself when its forward mode is first used
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

CASE = Case(steps=12, hidden=6, batch=4)
STEPS = np.arange(1, CASE.steps + 1)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(CASE)


@pytest.fixture(scope="module")
def true(problem: Problem) -> Curves:
    return reference(problem)


def made_up_results() -> dict:
    """Two cases, in the second of which JAX is refused; one further measurement."""

    def result(*seconds: float, error: float | None = None, extrapolated: bool = False) -> dict:
        found = {"seconds": list(seconds), "extrapolated": extrapolated, "steps_run": 12}
        if error is not None:
            accuracy = {"relative_error": error, "log10_error": error, "within_limit": error < 1e-5}
            found["accuracy"] = {"frobenius": accuracy}
        return found

    first = {
        PROBE: result(4.0, 2.0, 3.0, error=2e-7),
        UNIT: result(0.5, 0.5, 0.5),
        FLOOR: result(1.0),
        "jax_float32": result(1.0, error=4e-3),
        "tensorflow": result(3210.0, error=1.0, extrapolated=True),
    }
    second = {UNIT: result(1.0), "jax_float32": {"refused": "no answer within 900 s"}}
    sizes = {"steps": 12, "hidden": 6, "batch": 4}
    return {
        "machine": {"processor": "a chip", "threads": 2, "torch": "2", "numpy": "2"},
        "finished": False,
        "cases": [{**sizes, "results": first}, {**sizes, "steps": 50, "results": second}],
        "measurements": [
            ratio("sketch", {"a": [3.0, 1.0, 2.0], "b": [1.0] * 3}, "a", "b", "forwards")._asdict(),
            {"what": "padded", "refused": "no answer"},
        ],
    }


def test_the_reference_is_the_jacobian_in_float64(problem: Problem, true: Curves):
    weights = torch_forward.weights_of(problem, torch.float64)
    x, h, c = (torch.from_numpy(v).double() for v in (problem.inputs, problem.h, problem.c))
    a = torch_forward.projected(weights, x)
    last = [
        torch.autograd.functional.jacobian(
            lambda c_0, b=b: torch_forward.cell_states(weights, a[b], h[b], c_0)[-1], c[b]
        )
        for b in (0, 2, 3)
    ]
    J = torch.stack([torch.as_tensor(value) for value in last])
    assert true.frobenius is not None
    assert true.column_sum is not None
    norm = torch.linalg.matrix_norm(J).log10()
    np.testing.assert_allclose(true.frobenius[:, -1], norm.numpy(), rtol=1e-12)
    column_sum = J.sum(dim=1).abs().mean(dim=1).log10()
    np.testing.assert_allclose(true.column_sum[:, -1], column_sum.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "prepare",
    [
        probe_competitor.curves,
        torch_forward.vmap_jvp,
        torch_forward.jacfwd,
        torch_reverse.jacrev,
    ],
)
def test_competitors_agree_with_the_reference(prepare, problem: Problem, true: Curves):
    found = prepare(problem, CASE.steps)()
    accuracy = verify(found, STEPS, true, CASE.batch)
    assert set(accuracy) == {"frobenius", "column_sum"}
    assert all(curve.within_limit for curve in accuracy.values())
    part = prepare(problem, 5)()
    np.testing.assert_allclose(part.frobenius, found.frobenius[:, :5], atol=1e-6)


def test_one_t_at_a_time_agrees_with_the_reference(problem: Problem, true: Curves):
    once, at = torch_reverse.autograd(problem)
    once()
    found = Curves(np.concatenate([np.asarray(at(t).column_sum) for t in (3, 12)], axis=1))
    assert verify(found, np.array([3, 12]), true, CASE.batch)["column_sum"].within_limit


def curves_of(problem: Problem) -> Curves:
    return probe_competitor.curves(problem, CASE.steps)()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: Curves(c.column_sum + 0.01, c.frobenius), "column_sum is off by 2e-02"),
        (lambda c: Curves(c.column_sum, c.column_sum), "frobenius is off"),
        (lambda c: Curves(c.column_sum[:, 1:], c.frobenius), "has shape"),
        (lambda c: Curves(np.full_like(c.column_sum, np.nan), c.frobenius), "NaN"),
        (lambda c: Curves(frobenius=c.frobenius), "no column sums"),
    ],
)
def test_a_wrong_output_is_refused(spoil, message: str, problem: Problem, true: Curves):
    with pytest.raises(RefusedError, match=message):
        verify(spoil(curves_of(problem)), STEPS, true, CASE.batch)


def test_an_inaccurate_output_counts_and_is_marked():
    long = make_problem(Case(steps=30, hidden=6, batch=1))
    true, found = reference(long), probe_competitor.curves(long, 30)()
    assert found.column_sum is not None
    found.column_sum[:, 25] += 1e-3
    found.column_sum[:, 29] = -np.inf  # an underflow
    accuracy = verify(found, np.arange(1, 31), true, 1)
    assert accuracy["frobenius"].within_limit
    assert not accuracy["column_sum"].within_limit
    assert accuracy["column_sum"].relative_error == 1
    assert accuracy["column_sum"].log10_error is None


def test_problems_survive_a_file(problem: Problem, tmp_path: Path):
    problem.save(tmp_path / "problem.npz")
    loaded = Problem.load(tmp_path / "problem.npz")
    assert (loaded.steps, loaded.hidden, loaded.batch) == (12, 6, 4)
    np.testing.assert_array_equal(loaded.inputs, problem.inputs)
    np.testing.assert_array_equal(loaded.weight_hh, make_problem(CASE).weight_hh)


def test_extrapolation():
    assert from_first_steps(2.0, 10, of=100, power=1) == 20
    assert from_first_steps(2.0, 10, of=100, power=2) == 200
    # 1 + 2 + ... + 100, from three of them
    assert from_some_steps({1: 1.0, 50: 50.0, 100: 100.0}, of=100) == pytest.approx(5050)
    assert from_some_steps(dict.fromkeys(range(1, 9), 0.5), of=8) == pytest.approx(4)


def test_the_part_that_is_run_fits_the_budget():
    assert longest_prefix(2.0, 10, of=100, power=1, budget=20) == 100
    assert longest_prefix(2.0, 10, of=100, power=1, budget=19) == 47  # half of the budget
    assert longest_prefix(2.0, 10, of=100, power=2, budget=64) == 40
    assert longest_prefix(2.0, 10, of=100, power=1, budget=0.1) == 10


def test_ratios_are_taken_round_by_round():
    seconds = {"slow": [2.0, 9.0, 4.0], "quick": [1.0, 3.0, 4.0]}
    found = ratio("what", seconds, "slow", "quick", "times", factor=10)
    assert (found.value, found.low, found.high) == (20, 10, 30)


def test_the_table_holds_ratios_and_marks():
    text = table(made_up_results())
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "|" in line}
    assert rows["rnngrad"] == "| rnngrad | 6.00 | – |"
    assert rows[COMPETITORS["jax_float32"].label].endswith("| 2.00 (a) | – |")
    assert rows[COMPETITORS["tensorflow"].label].endswith("| ≈ 6,400 (a) | – |")
    assert rows["sketch"] == "| sketch | 2.00 (1.00 to 3.00) forwards |  |"
    assert rows["padded"] == "| padded | – | no answer |"
    assert "JAX scan of jvp, float32, T 50, H 6, batch 4: no answer within 900 s" in text
    assert "interrupted" in text
    assert "3210" not in text  # no seconds


def test_the_summary_is_the_same_for_the_same_results(tmp_path: Path):
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_summary(made_up_results(), tmp_path / name)
        texts.append((tmp_path / name / "figure.svg").read_bytes())
    assert texts[0] == texts[1]
    assert texts[0].lstrip().startswith(b"<?xml")


def test_who_is_not_installed_is_named_and_left_out(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setattr("benchmarks.rounds.BENCH_PYTHON", tmp_path / "python")
    assert set(installed_competitors([PROBE, "jax_float64"])) == {PROBE}
    assert "skipped: JAX scan of jvp, float64 (jax is not installed)" in capsys.readouterr().out
    assert not installed(Path(sys.executable), "no_such_package")


def test_a_process_answers_and_survives_an_error(problem: Problem, true: Curves, tmp_path: Path):
    problem.save(tmp_path / "problem.npz")
    request = {"budget": 5.0, "curves": str(tmp_path / "curves.npz")}
    process = Process(Path(sys.executable), "vmap_jvp", tmp_path / "log", threads=1)
    try:
        missing = process.ask({**request, "problem": str(tmp_path / "none.npz")}, limit=60)
        assert "FileNotFoundError" in missing["error"]
        answer = process.ask({**request, "problem": str(tmp_path / "problem.npz")}, limit=60)
        assert answer["seconds"] > 0
        assert not answer["extrapolated"]
    finally:
        process.end()
    with np.load(tmp_path / "curves.npz") as arrays:
        found = Curves(arrays["column_sum"], arrays["frobenius"])
        assert verify(found, arrays["steps"], true, CASE.batch)["frobenius"].within_limit
    assert json.loads(json.dumps(answer)) == answer


def test_the_seconds_of_a_stage_end_where_the_next_begins():
    lines = [
        (1.0, "a warning\n"),
        (2.0, "Running stage 'train@rnn':\n"),
        (3.5, "> python pipeline/train.py rnn\n"),
        (7.25, "Running stage 'report':\n"),
        (9.0, "To track the changes with git, run:\n"),
        (9.5, ""),
    ]
    assert stage_seconds(lines) == {"train@rnn": 5.2, "report": 2.2}
