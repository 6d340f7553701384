"""The benchmark refuses wrong results, goes on where it stopped, and compares with its goals."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import bench, rounds, turns
from benchmarks.cases import CASES, EVERYBODY, Case, Work
from benchmarks.rounds import FOREIGN, make_problem, run_case
from benchmarks.study_ways import stage_seconds
from benchmarks.summary import figure, goal_row, table
from benchmarks.torch_ways import layer_of
from benchmarks.turns import Problem, call, one_by_one, timed
from torch.autograd.functional import jacobian

# torch says so to itself when its forward mode is first used
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

T, H, B = 22, 5, 4
MACHINE = {
    "processor": "a chip",
    "cores": 2,
    "threads": 2,
    "torch": "2",
    "numpy": "2",
    "numba": "0",
}
_, JAX, *_ = EVERYBODY


@pytest.fixture(autouse=True)
def denormals():
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(Work(T, H, B, question=True))


@pytest.fixture(scope="module")
def curves(problem: Problem) -> dict[str, np.ndarray]:
    return true_curves(problem)


def true_curves(problem: Problem) -> dict[str, np.ndarray]:
    """By torch's own layer in float64, one Jacobian per example and step."""
    layer, inputs, start = layer_of(problem)
    layer.double()
    parts = [p.double() for p in (start if isinstance(start, tuple) else (start,))]
    curves = np.empty((3, len(inputs), inputs.shape[1]))
    for b, t in np.ndindex(curves.shape[1:]):
        x, others = inputs[b : b + 1, : t + 1].double(), [p[:, b : b + 1] for p in parts[:-1]]

        def last(s: torch.Tensor, x=x, others=others) -> torch.Tensor:
            end = layer(x, (*others, s) if others else s)[1]
            return (end[-1] if others else end).flatten()

        J = torch.as_tensor(jacobian(last, parts[-1][:, b : b + 1])).reshape(H, H)
        sizes = [J.sum(dim=0).abs().mean(), J.norm(), torch.linalg.matrix_norm(J, 2)]
        curves[:, b, t] = torch.stack(sizes).log10().numpy()
    return dict(zip(("column_sum", "frobenius", "spectral"), curves, strict=True))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_reference_is_the_jacobian_in_float64(cell: str):
    problem = make_problem(Work(T, H, B, question=cell == "lstm", cell=cell))
    assert call("reference.curves", problem)(true_curves(problem), True) < 1e-11


SPOILT = [
    (lambda c: c | {"column_sum": c["column_sum"] + 0.01}, False, "off by 2e-02"),
    (lambda c: c | {"frobenius": c["frobenius"] + 1e-8}, True, "off by 2e-08"),
    (lambda c: c | {"column_sum": c["column_sum"][:, 2:]}, False, "broadcast"),
    (lambda c: c | {"column_sum": c["column_sum"] * np.nan}, False, "off by nan"),
    (lambda c: {"frobenius": c["frobenius"]}, False, "column_sum"),
]


@pytest.mark.parametrize(("spoil", "exact", "message"), SPOILT)
def test_a_wrong_result_is_refused(
    spoil, exact: bool, message: str, problem: Problem, curves: dict[str, np.ndarray]
):
    check = call("reference.curves", problem)
    with pytest.raises((ValueError, KeyError), match=message):
        check(spoil(curves), exact)


def test_underflow_in_float32_counts_and_tells_its_error(
    problem: Problem, curves: dict[str, np.ndarray]
):
    found = copy.deepcopy(curves)
    found["column_sum"][:, T - 1] = -np.inf
    check = call("reference.curves", problem)
    assert check(found, False) == 1
    with pytest.raises(ValueError, match="off by 1e"):
        check(found, True)


# a case's quick work may be that of another
QUICK = {
    (case.quick().work, *case.ways, case.check): name for name, case in CASES.items() if case.check
}


@pytest.mark.parametrize("name", QUICK.values())
def test_every_way_of_a_case_is_right(name: str):
    case = CASES[name].quick()
    problem = make_problem(case.work)
    check = call(f"reference.{case.check}", problem)
    for way in case.ways:
        if way.startswith(FOREIGN) or "busy" in way:
            continue
        seconds, found, _ = call(way, problem)
        assert seconds > 0
        exact = way.startswith("rnngrad_ways")
        assert not found or check(found, exact) < (1e-9 if exact else 1e-4), way


def test_a_part_stands_for_the_whole(monkeypatch: pytest.MonkeyPatch):
    now, asked = [0.0], []

    def work(seconds: float) -> dict[str, np.ndarray]:
        now[0] += seconds
        return {}

    monkeypatch.setattr(turns, "perf_counter", lambda: now[0])
    turn = one_by_one(lambda: work(7.0), lambda t: np.array(work(t)), 100)
    assert turn.seconds == pytest.approx(7 + 5050)  # 1 + 2 + ... + 100, from three of them
    assert [*turn.found] == ["at_1", "at_50", "at_100"]
    assert turn.extrapolated

    turn = timed(lambda steps: asked.append(steps) or work(0.125 * len(asked)), part=0.25)
    assert turn.seconds == pytest.approx(4 * 0.375)  # the median of those after the first
    assert turn.extrapolated
    assert asked[0]
    assert asked[1:] == [None, None, None]


@pytest.mark.slow
def test_competitors_work_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(rounds, "BENCH_PYTHON", rounds.ROOT / ".nowhere/python")
    ways = [JAX, "torch_ways.no_such_way", "rnngrad_ways.curves busy=2"]
    case = Case("≥ 1", Work(20, 4, 2), ways=ways, rounds=2)
    found = run_case(case)
    assert [len(found[way]["seconds"]) for way in ways] == [0, 0, 2]
    assert found[ways[2]]["error"] < 1e-9
    assert found[JAX]["refused"] == ".nowhere/python is missing"
    assert "no_such_way" in found[ways[1]]["refused"]
    said = capsys.readouterr().err
    assert f"{JAX} is left out: .nowhere/python is missing" in said


def result(*seconds: float, extrapolated: bool = False, **others: Any) -> dict[str, Any]:
    return {"seconds": [*seconds], "extrapolated": extrapolated, **others}


def test_goals_are_compared_round_by_round():
    case = Case("≥ 2", Work(1, 1, 1), what="work", unit="times", ways=["ours", "other"])
    found = {"ours": result(1.0, 3.0, 4.0, error=2e-10), "other": result(2.0, 9.0, 4.0)}
    assert goal_row(case, found) == ["work", "2 (1 to 3) times", "≥ 2", "reached", "2e-10"]
    row = goal_row(case._replace(goal="≥ 2.1"), found)
    assert row[3] == "**not reached**"
    row = goal_row(case._replace(goal="≤ 0.4"), found | {"other": result(2.0, extrapolated=True)})
    assert row[1:4] == ["≈ 0.5 (0.5 to 0.5) times", "≤ 0.4", "**not reached**"]
    alone = case._replace(goal="≤ 3", unit="s", ways=["ours"])
    assert goal_row(alone, found)[1:4] == ["3 (1 to 4) s", "≤ 3", "reached"]
    assert goal_row(case, None)[3] == "not measured"
    nothing = {"ours": {"seconds": [], "refused": "off"}, "other": result(1.0)}
    assert goal_row(case, nothing)[3] == "**not reached**: no time counts"


def made_up(name: str) -> dict[str, Any]:
    """Everybody takes some time, but JAX, which is refused."""
    found = {way: result(1.0 + n, 2.0 + n, error=1e-3) for n, way in enumerate(CASES[name].ways)}
    return found | {JAX: {"seconds": [], "refused": "off by 1e-02"}}


def test_table_and_figure_show_everybody():
    results = {"50x32x1": made_up("50x32x1")}
    text = table(CASES, results, MACHINE)
    assert "| rnngrad, float64 | 0.196 (1e-03) |" in text
    assert "| JAX scan of jvp, float64 | – |" in text
    assert "- No time counts of JAX scan of jvp, float64 in 50x32x1: off by 1e-02" in text
    assert text.count("not measured") == len(CASES) - 1
    drawn = figure(CASES, results)
    assert drawn == figure(CASES, results)
    assert drawn is not None
    assert "<svg" in drawn
    assert figure(CASES, {}) is None


def test_a_second_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    ran: list[str] = []

    def pretend(case: Case, tell: Any) -> dict[str, Any]:
        ran.append(case.what)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return {way: result(1.0) for way in case.ways}

    monkeypatch.setattr(bench, "run_case", pretend)
    arguments = ["--only", "padded", "spectral", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="interrupted: the same command goes on"):
        bench.main(arguments)
    assert [*json.loads((tmp_path / "results.json").read_text())["cases"]] == ["padded"]
    bench.main(arguments)
    bench.main(arguments)
    assert ran == [CASES[name].what for name in ("padded", "spectral", "spectral")]
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out

    # another size is another result; what was made on another machine is not this one's
    bench.main([*arguments, "--quick"])
    assert len(ran) == 5
    found = json.loads((tmp_path / "results.json").read_text())
    found["machine"]["processor"] = "another"
    (tmp_path / "results.json").write_text(json.dumps(found))
    bench.main([*arguments, "--quick"])
    assert len(ran) == 7
    assert "2 results of other code or another machine" in capsys.readouterr().out


def test_the_stages_seconds_are_written_for_the_report(tmp_path: Path, monkeypatch):
    found = {"study_ways.stages": result(3.5, parts={"train@rnn": 1.5, "report": 2.0})}
    monkeypatch.setattr(bench, "run_case", lambda case, tell: found)
    bench.main(["--only", "study", "--out", str(tmp_path)])
    stages = json.loads((tmp_path / "stages.json").read_text())
    assert stages["seconds"] == {"train@rnn": 1.5, "report": 2.0}
    assert stages["cores"] > 0
    assert "make study, all stages, after installation | 3.5" in (tmp_path / "table.md").read_text()


def test_the_seconds_of_a_stage_end_where_the_next_begins():
    lines = [
        (1.0, "a warning\n"),
        (2.0, "Running stage 'train@rnn':\n"),
        (3.5, "> python pipeline/train.py rnn\n"),
        (7.25, "Running stage 'report':\n"),
        (9.0, "To track the changes with git, run:\n"),
        (9.5, "Running stage '"),
    ]
    assert stage_seconds(lines) == {"train@rnn": 5.2, "report": 2.2}
