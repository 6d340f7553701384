"""The benchmark's arithmetic, its refusal of wrong outputs, and its tables; times mean nothing."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import bench
from benchmarks.cases import Case, Problem, make_problem
from benchmarks.competitors import EXACT, JAX, LABELS, PROBE, UNIT, Curves
from benchmarks.competitors.probe import lstm_of, state_of, turns
from benchmarks.extrapolation import from_some_steps
from benchmarks.findings import Finding, ratio
from benchmarks.goals import CASES, MEASUREMENTS
from benchmarks.rounds import ROOT
from benchmarks.stages import stage_seconds
from benchmarks.summary import table, write_summary
from benchmarks.verification import RefusedError, exponents, reference, verify
from torch import nn

# torch says so to itself when its forward mode is first used
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

CASE = Case(steps=30, hidden=6, batch=4)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(CASE)


@pytest.fixture(scope="module")
def true(problem: Problem) -> Curves:
    inputs = torch.from_numpy(problem.inputs)
    return reference(lstm_of(problem), inputs, state_of(problem), {30})


def double_jacobian(module: nn.Module, inputs: torch.Tensor, state: tuple) -> torch.Tensor:
    """d s_T / d s_0 of the last state of one example, by torch's own layer in float64."""
    exact = copy.deepcopy(module).double()

    def last(s: torch.Tensor) -> torch.Tensor:
        end = exact(inputs[None].double(), (*state[:-1], s) if len(state) > 1 else s)[1]
        return (end if len(state) == 1 else end[-1]).flatten()

    return torch.as_tensor(torch.autograd.functional.jacobian(last, state[-1]))[:, 0, 0]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_reference_is_the_jacobian_in_float64(kind: type):
    torch.manual_seed(0)
    module, inputs = kind(3, 4, batch_first=True), torch.randn(3, 12, 3)
    state = tuple(torch.rand(1, 3, 4) for _ in range(2 if kind is nn.LSTM else 1))
    found = reference(module, inputs, state, {12})
    for b in range(3):
        J = double_jacobian(module, inputs[b], tuple(s[:, b : b + 1].double() for s in state))
        norms = [torch.linalg.matrix_norm(J), torch.linalg.matrix_norm(J, 2)]
        sizes = torch.stack([J.sum(dim=0).abs().mean(), *norms]).log10().numpy()
        values = [curve[b, -1] for curve in found if curve is not None]
        np.testing.assert_allclose(values, sizes, rtol=1e-10)


def test_exponents_sum_to_the_log_determinant():
    torch.manual_seed(0)
    rnn, inputs = nn.RNN(3, 4, batch_first=True), torch.randn(1, 20, 3)
    zero = torch.zeros(1, 1, 4)
    found = exponents(rnn, inputs, (zero,))
    J = double_jacobian(rnn, inputs[0], (zero.double(),))
    assert 20 * found.sum() == pytest.approx(float(torch.linalg.slogdet(J)[1]), rel=1e-9)
    assert (np.diff(found) <= 0).all()


@pytest.mark.parametrize("name", [PROBE, "jacfwd", "autograd"])
def test_competitors_agree_with_the_reference(name: str, problem: Problem, true: Curves):
    _, steps, found = turns(problem)[name]()
    assert [*steps] == ([1, 15, 30] if name == "autograd" else [*range(1, 31)])
    exact = name in EXACT
    errors, accurate = verify(found, true, CASE.batch, exact, steps)
    assert accurate
    assert max(errors.values()) < (1e-12 if exact else 1e-5)


SPOILT = [
    (lambda c: c._replace(column_sum=c.column_sum + 0.01), False, "column_sum is off by 2e-02"),
    (lambda c: c._replace(frobenius=c.frobenius + 1e-8), True, "frobenius is off by 2e-08"),
    (lambda c: c._replace(column_sum=c.column_sum + 1e-8), True, "column_sum is off by 2e-08"),
    (lambda c: c._replace(spectral=c.spectral + 1e-8), True, "spectral is off by 2e-08"),
    (lambda c: c._replace(frobenius=c.column_sum), False, "frobenius is off"),
    (lambda c: c._replace(column_sum=c.column_sum[:, 1:]), False, "has shape"),
    (lambda c: c._replace(column_sum=np.full_like(c.column_sum, np.nan)), False, "NaN"),
    (lambda c: c._replace(column_sum=None), False, "no column sums"),
]


@pytest.mark.parametrize(("spoil", "exact", "message"), SPOILT)
def test_a_wrong_output_is_refused(spoil, exact: bool, message: str, true: Curves):
    whole = Curves(*(curve[[0, 0, 1, 2]] for curve in true if curve is not None))  # 0, 2, 3 count
    assert verify(whole, true, CASE.batch, exact=True)[1]
    with pytest.raises(RefusedError, match=message):
        verify(spoil(whole), true, CASE.batch, exact)


def test_an_inaccurate_output_in_float32_counts_and_is_marked(problem: Problem, true: Curves):
    _, _, found = turns(problem)[PROBE]()
    assert found.column_sum is not None
    found.column_sum[:, 25] += 1e-3
    found.column_sum[:, 29] = -np.inf  # an underflow
    errors, accurate = verify(found, true, CASE.batch, exact=False)
    assert not accurate
    assert errors["column_sum"] == 1
    assert errors["frobenius"] < 1e-12


def test_column_sums_that_cancel_are_promised_less():
    true = Curves(np.array([[0.0, -5.0, -7.0]]), np.zeros((1, 3)))
    for column, off, kept in ((0, 1e-8, False), (1, 1e-8, True), (1, 1e-6, False), (2, 1e-4, True)):
        sums = np.array([[0.0, -5.0, -7.0]])
        sums[0, column] += off
        if kept:
            assert verify(Curves(sums, true.frobenius), true, 1, exact=True)[1]
        else:
            with pytest.raises(RefusedError, match="column_sum is off"):
                verify(Curves(sums, true.frobenius), true, 1, exact=True)


def test_extrapolation():
    # 1 + 2 + ... + 100, from three of them
    assert from_some_steps({1: 1.0, 50: 50.0, 100: 100.0}, of=100) == pytest.approx(5050)
    assert from_some_steps(dict.fromkeys(range(1, 9), 0.5), of=8) == pytest.approx(4)


def test_ratios_are_taken_round_by_round_and_meet_goals():
    seconds = {"slow": [2.0, 9.0, 4.0], "quick": [1.0, 3.0, 4.0]}
    found = ratio("what", seconds, "slow", "quick", "times", factor=10, goal="≥ 20")
    assert (found.value, found.low, found.high) == (20, 10, 30)
    assert found.met
    assert not found._replace(goal="≤ 19.9").met


def made_up_results() -> dict:
    """Two cases, in the second of which JAX is refused; two further measurements."""

    def result(*seconds: float, error: float | None = None, extrapolated: bool = False) -> dict:
        found = {"seconds": list(seconds), "extrapolated": extrapolated}
        errors = {"errors": {"frobenius": error}, "accurate": (error or 0) < 1e-5}
        return found if error is None else found | errors

    first = {
        PROBE: result(4.0, 2.0, 3.0, error=2e-10),
        UNIT: result(0.5, 0.5, 0.5),
        "jax_float32": result(1.0, error=4e-3),
        "tensorflow": result(3210.0, error=1.0, extrapolated=True),
    }
    second = {UNIT: result(1.0), JAX: {"seconds": [], "refused": "its process has ended"}}
    curves = Finding("curves", 3.0, 2.0, 4.0, "times as fast", "accurate", "≥ 3.5")._asdict()
    padded = Finding("padded", 1.5, 1.0, 2.0, "plain forwards", "accurate", "≤ 2")._asdict()
    return {
        "machine": {"processor": "a chip", "threads": 2, "torch": "2", "numpy": "2", "numba": "0"},
        "finished": False,
        "found": [
            curves | {"case": "one", "competitors": first},
            {"what": "curves", "refused": "JAX: off", "case": "two", "competitors": second},
            padded,
            {"what": "spectral", "refused": "RefusedError: off"},
        ],
    }


def test_the_tables_hold_goals_ratios_and_marks():
    lines = table(made_up_results()).splitlines()
    assert "| curves | 3.00 (2.00 to 4.00) times as fast | ≥ 3.5: missed | accurate |" in lines
    assert "| curves | – |  | JAX: off |" in lines
    assert "| padded | 1.50 (1.00 to 2.00) plain forwards | ≤ 2: met | accurate |" in lines
    assert "| spectral | – |  | RefusedError: off |" in lines
    assert "| rnngrad, float64 | 6.00 | – |" in lines
    assert f"| {LABELS['jax_float32']} | 2.00 (a) | – |" in lines
    assert f"| {LABELS['tensorflow']} | ≈ 6,400 (a) | – |" in lines
    assert f"- {LABELS[JAX]}, two: its process has ended" in lines
    assert "interrupted" in lines[0]


def test_the_summary_is_the_same_for_the_same_results(tmp_path: Path):
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_summary(made_up_results(), tmp_path / name)
        texts.append((tmp_path / name / "figure.svg").read_bytes())
    assert texts[0] == texts[1]
    assert texts[0].lstrip().startswith(b"<?xml")


def test_the_command_in_small(tmp_path: Path, capsys):
    bench.main(["--only", "cells", "--quick", "--rounds", "2", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["finished"]
    assert [found["what"].split(",")[0] for found in results["found"]] == ["RNN", "GRU"]
    assert all(found["low"] <= found["value"] <= found["high"] for found in results["found"])
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench.main(["--quick"])
    assert "need --out" in capsys.readouterr().err


def test_every_measurement_in_small():
    """One case stands for all; JAX and TensorFlow are where the benchmarks install them, if so."""
    cases = ["x".join(map(str, case)) for case in CASES]
    names = [name for name in MEASUREMENTS if name not in cases[:-1]]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.goals", *names, "--quick", "--rounds", "1"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    case, *findings = json.loads(done.stdout)
    for name in (PROBE, UNIT, "floor", "jacfwd", "autograd"):
        assert len(case["competitors"][name]["seconds"]) == 1
    assert [found for found in findings if "refused" in found] == []
    assert len(findings) == 11
    assert sum(bool(found["goal"]) for found in findings) == 9


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
