"""Steps that are taken together: their maps against autograd, and the curves step by step."""

from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import CELLS, Case, Instance, autograd_jacobians, make, set_weights, weights
from torch import Tensor, nn

import rnngrad
from rnngrad.probe import blocks, cells, tangents
from rnngrad.probe.cells import STABLE
from rnngrad.probe.problem import problem_of

NAMES = ("frobenius", "column_sum", "spectral", "cell_path", "hidden_path", "frobenius_error")
Taken = list[int]


@pytest.fixture
def singly(monkeypatch: pytest.MonkeyPatch) -> Taken:
    """Slots of every step that was taken by itself."""
    taken: Taken = []
    step = tangents.Propagation.step

    def counted(run: tangents.Propagation, one: Any, n: int) -> tangents.Tangents:
        taken.append(n)
        return step(run, one, n)

    monkeypatch.setattr(tangents.Propagation, "step", counted)
    return taken


def both_ways(*args: Any, decades: float = 1e-12, **kwargs: Any) -> rnngrad.JacobianCurves:
    """The curves, which must be those of single steps."""
    found = rnngrad.jacobian_curves(*args, **kwargs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 0)
        expected = rnngrad.jacobian_curves(*args, **kwargs)
    for name in NAMES:
        values, wanted = getattr(found, f"log10_{name}"), getattr(expected, f"log10_{name}")
        assert (values is None) == (wanted is None)
        if values is not None:
            np.testing.assert_allclose(values, wanted, rtol=0, atol=decades, err_msg=name)
    return found


def full_map(instance: Instance, steps: slice) -> Tensor:
    """(t, b, S, S) from V and kept."""
    problem = problem_of(instance.module, instance.inputs, instance.initial_state)
    (cell,) = problem.cells
    c = None if problem.c is None else problem.c[0]
    path = cell.run(problem.inputs.transpose(0, 1), problem.h[0], c)
    one = cell.one_step(path, steps, STABLE)
    w = cell.weight_hh.unflatten(0, (cell.gates, -1))
    one = one.each(lambda v: v.flatten(0, 1))
    room = w.new_empty(len(one.mix), w.shape[-1] * len(cell.states), w.shape[-1])
    V, kept = cell.step_map(one, w, room)
    M = V.new_zeros(len(V), V.shape[1], V.shape[1])
    H = V.shape[2]
    M[:, :, :H] = V
    if kept is not None:
        for i, diagonal in enumerate(kept.unbind(1)):
            M[:, i * H : (i + 1) * H, -H:] += torch.diag_embed(diagonal)
    return M.unflatten(0, (-1, problem.batch))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cell", CELLS)
def test_step_maps_multiply_to_autograds_jacobian(cell: str, seed: int):
    instance = make(Case(cell, seed=seed, steps=6, batch=3))
    M = full_map(instance, slice(None))
    J = autograd_jacobians(instance, "full")
    torch.testing.assert_close(M[0], J[:, 0], rtol=1e-12, atol=1e-14)
    for t in range(1, 6):
        torch.testing.assert_close(M[t] @ J[:, t - 1], J[:, t], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_agrees_with_single_steps(cell: str, layers: int, seed: int, singly: Taken):
    """Examples that end within a block, a last block that is not full, chosen spectral steps."""
    instance = make(Case(cell, layers, seed=seed, steps=140, hidden=6, batch=3))
    args = instance.module, instance.inputs, instance.initial_state
    kwargs: dict[str, Any] = {"lengths": [140, 47, 100], "spectral_steps": [1, 32, 33, 90]}
    rnngrad.jacobian_curves(*args, **kwargs)
    assert not singly
    for state in ("h", "c", "full") if cell == "lstm" else ("h",):
        statistics = ("frobenius", "column_sum", "spectral", "hidden_path")
        names = statistics[: 4 if state == "c" else 3]
        both_ways(*args, state=state, statistics=names, **kwargs)
        both_ways(*args, state=state, method="sketch", statistics="frobenius")


@pytest.mark.parametrize("cell", CELLS)
def test_gate_by_gate(cell: str, singly: Taken, monkeypatch: pytest.MonkeyPatch):
    """Few directions of units too many for a block of maps."""
    monkeypatch.setattr(blocks, "FEW_MAPS", 10**9)
    instance = make(Case(cell, steps=140, hidden=6, batch=3))
    args = instance.module, instance.inputs, instance.initial_state
    both_ways(*args, lengths=[140, 47, 100])
    both_ways(*args, lengths=[140, 47, 100], method="sketch", statistics="frobenius")
    singly.clear()
    rnngrad.jacobian_curves(*args, lengths=[140, 47, 100])
    assert not singly


@pytest.mark.parametrize("cell", CELLS)
def test_float32_steps_together(cell: str, singly: Taken):
    """As exact as single steps; on constant inputs too, where each would be rounded alike."""
    case = Case(cell, steps=600, hidden=100, batch=2)
    x = make(case).inputs
    x[1] = x[1, :1]
    single, double = make(case, torch.float32), make(case)
    args = single.module, x.float(), single.initial_state
    rnngrad.jacobian_curves(*args)
    assert len(singly) < 20  # what a block leaves over
    found = both_ways(*args, decades=4e-6)
    double.module.load_state_dict(single.module.state_dict())
    h, c = (state.float().double() for state in (double.h, double.c))
    state = (h, c) if cell == "lstm" else h
    true = rnngrad.jacobian_curves(double.module, x.float().double(), state)
    np.testing.assert_allclose(found.log10_frobenius, true.log10_frobenius, rtol=0, atol=2e-6)


def test_a_block_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    """The remainders of rounding and the dither are those of before."""
    instance = make(Case("lstm", hidden=100, batch=1), torch.float32)
    problem = problem_of(instance.module, instance.inputs.float(), instance.initial_state)
    (cell,) = problem.cells
    assert problem.c is not None
    path = cell.run(problem.inputs.double().transpose(0, 1), problem.h[0], problem.c[0])
    one = cell.one_step(path, slice(None), STABLE)
    start = tangents.identity(200, slice(100, 200))
    run = tangents.Propagation(cell, start, 1, torch.float32)
    run.step(one.at(0), 1)
    lost, taken = run.lost, run.taken
    monkeypatch.setattr(blocks, "_nothing_lost", lambda *args: False)
    assert blocks._together(run, one.each(lambda v: v[1:9])) is None
    assert run.taken == taken
    assert lost is not None
    assert run.lost is lost


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_numpy_and_torch_agree(cell: str, batch: int, monkeypatch: pytest.MonkeyPatch):
    """What other devices than the CPU do, in maps and in single steps."""
    instance = make(Case(cell, steps=60, hidden=9, batch=batch))
    args = instance.module, instance.inputs, instance.initial_state
    by_numpy = both_ways(*args)
    for module in (cells, blocks):
        monkeypatch.setattr(module, "fits_numpy", lambda *args: False)
    by_torch = both_ways(*args)
    np.testing.assert_allclose(
        by_numpy.log10_column_sum, by_torch.log10_column_sum, rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("cell", CELLS)
def test_shared_beginnings(cell: str):
    instance = make(Case(cell, steps=80, batch=3))
    x = instance.inputs.clone()
    x[:, :50] = x[:1, :1]
    x[2, :70] = x[0, 0]
    both_ways(instance.module, x)


def test_a_row_that_dies_for_good(singly: Taken):
    """ReLU: zero rows are true zeros, and need no scale of their own."""
    module = nn.RNN(1, 6, nonlinearity="relu", batch_first=True).double()
    set_weights(module, weight_hh_l0=0.9 * torch.eye(6), weight_ih_l0=torch.ones(6, 1))
    with torch.no_grad():
        weights(module)["weight_ih_l0"][:2] = -1
    x = torch.full((2, 60, 1), 0.1).double()
    x[1, 40] = -50
    both_ways(module, x)
    singly.clear()
    found = rnngrad.jacobian_curves(module, x).log10_frobenius
    assert not singly
    assert np.isfinite(found[0]).all()
    assert (found[1, 40:] == -np.inf).all()


def drops(size: float) -> tuple[nn.LSTM, Tensor]:
    """At step 41 one unit of four forgets, to exp(-size) of what it held; then the others."""
    module = nn.LSTM(2, 4, batch_first=True).double()
    weight, bias = torch.zeros(16, 2), torch.zeros(16)
    bias[4:8] = 3
    weight[4, 0], weight[5:8, 1] = -size, -2 * size
    set_weights(module, weight_ih_l0=weight, bias_ih_l0=bias)
    x = torch.zeros(1, 100, 2).double()
    x[0, 40, 0] = x[0, 60, 1] = 1
    return module, x


@pytest.mark.parametrize(("size", "alone"), [(40.0, False), (300.0, True), (800.0, False)])
def test_saturated_gates(size: float, alone: bool, singly: Taken):
    """Where a row leaves the range that is safe, some steps are taken by themselves.

    sigmoid(-800) is 0, and what it multiplies truly zero.
    """
    module, x = drops(size)
    found = both_ways(module, x, state="c", decades=1e-10)
    np.testing.assert_allclose(found.log10_cell_path, found.log10_frobenius, atol=1e-10)
    singly.clear()
    rnngrad.jacobian_curves(module, x, state="c")
    assert bool(singly) == alone
    assert len(singly) < 100


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_tiny_and_huge_steps(factor: float):
    module = nn.RNN(1, 4, batch_first=True).double()
    set_weights(module, weight_hh_l0=factor * torch.eye(4))
    found = both_ways(module, torch.zeros(1, 40, 1).double(), decades=1e-9).log10_spectral
    np.testing.assert_allclose(found[0], np.arange(1, 41) * np.log10(factor), atol=1e-9)


def test_an_entry_that_underflows_is_no_true_zero():
    """Unit 1 hears unit 0 through 1e-200, and unit 2 that through 1e-200: the product is 1e-400."""
    module = nn.RNN(1, 3, nonlinearity="relu", batch_first=True).double()
    weight = torch.zeros(3, 3).double()
    weight[1, 0] = weight[2, 1] = 1e-200
    set_weights(module, weight_hh_l0=weight, bias_ih_l0=1.0)
    found = both_ways(module, torch.zeros(1, 3, 1).double(), decades=1e-9).log10_frobenius
    np.testing.assert_allclose(found[0, :2], [-200 + np.log10(2) / 2, -400], atol=1e-9)
    assert found[0, 2] == -np.inf


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm"])
def test_padding_may_hold_anything(cell: str):
    """Beyond an example's length it is not looked at, in the same block neither."""
    instance = make(Case(cell, steps=30, batch=2))
    lengths = [30, 9]
    expected = rnngrad.jacobian_curves(instance.module, instance.inputs, lengths=lengths)
    instance.inputs[1, 9:] = 1e300
    found = rnngrad.jacobian_curves(instance.module, instance.inputs, lengths=lengths)
    np.testing.assert_array_equal(found.log10_frobenius, expected.log10_frobenius)


def test_units_whose_sum_overflows_do_not():
    """The quick look at a block's sum finds inf; every unit is finite."""
    module = nn.RNN(1, 2, nonlinearity="relu", batch_first=True).double()
    set_weights(module, weight_hh_l0=torch.eye(2))
    h = torch.full((1, 1, 2), 1.5e308, dtype=torch.float64)
    found = rnngrad.jacobian_curves(module, torch.zeros(1, 5, 1).double(), h).log10_spectral
    np.testing.assert_allclose(found, 0, atol=1e-12)
