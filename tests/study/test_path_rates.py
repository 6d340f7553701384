"""Paths of small LSTMs against explicit products of one-step Jacobians."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from rnngrad.params import ProbeParams
from rnngrad.probe.problem import problem_of
from rnngrad.probe.sketch import random_directions
from rnngrad.probe.tangents import identity
from rnngrad.probe.trajectory import Chunk, LayerRun, run_layer
from rnngrad.study.evidence.linearised import one_step_jacobians
from rnngrad.study.evidence.path_rates import path_rates, tanh_factors
from rnngrad.study.probing import ProbeInputs, initial_state

B, T, D, H = 3, 90, 3, 4
WORDS = [30, 12, 50]
PROBE = ProbeParams(comments=B, initial_state="uniform", spectral_steps=5, seed=1)


def make_lstm(seed: int = 0) -> nn.LSTM:
    torch.manual_seed(seed)
    return nn.LSTM(D, H, batch_first=True)


@pytest.fixture
def inputs() -> ProbeInputs:
    """Zeros in front of random words."""
    torch.manual_seed(1)
    is_word = np.arange(T) >= T - np.array(WORDS)[:, None]
    x = torch.randn(B, T, D) * torch.from_numpy(is_word)[:, :, None]
    return ProbeInputs(x, torch.full((B,), T), is_word)


def run_of(module: nn.LSTM, x: Tensor, state: tuple[Tensor, Tensor]) -> LayerRun:
    problem = problem_of(module, x, state)
    with torch.no_grad():
        return run_layer(problem, Chunk(torch.arange(len(x)), problem.lengths), 0)


def explicit_curves(run: LayerRun) -> dict[str, np.ndarray]:
    """log10 of the norms of d c_t/d c_0 and its parts, (b, t), without any scaling."""
    steps, b, H = run.path.h[1:].shape
    J = torch.eye(2 * H, dtype=torch.float64)[:, H:].expand(b, -1, -1)
    cell_path = torch.ones(b, H, dtype=torch.float64)
    found = {name: np.empty((b, steps)) for name in ("frobenius", "cell_path", "hidden_path")}
    for t in range(steps):
        J = one_step_jacobians(run.cell, run.path, t) @ J
        cell_path = cell_path * torch.sigmoid(run.path.a[t, :, H : 2 * H])
        rest = J[:, H:] - torch.diag_embed(cell_path)
        if t == 0:
            rest = torch.zeros_like(rest)
        found["frobenius"][:, t] = J[:, H:].norm(dim=(1, 2)).log10()
        found["cell_path"][:, t] = cell_path.norm(dim=1).log10()
        found["hidden_path"][:, t] = rest.norm(dim=(1, 2)).log10()
    return found


def test_rates_and_gates_are_those_of_the_trajectory(inputs: ProbeInputs) -> None:
    module = make_lstm()
    h, c = initial_state(module, B, PROBE)
    run = run_of(module, inputs.inputs, (h, c))
    curves = explicit_curves(run)
    table = path_rates(module, inputs, (h, c), curves).set_index("input")
    first = [T - n for n in WORDS]
    settled = [n - n // 2 for n in first]  # steps of padding that count
    assert table["steps"].to_dict() == {"padding": sum(settled), "words": sum(WORDS)}
    total = curves["frobenius"]
    gained = sum(total[b, -1] - total[b, first[b]] for b in range(B))
    assert table.loc["words", "total"] == pytest.approx(gained / (sum(WORDS) - B))
    hidden = curves["hidden_path"]
    gained = sum(hidden[b, first[b] - 1] - hidden[b, first[b] // 2] for b in range(B))
    assert table.loc["padding", "hidden_path"] == pytest.approx(gained / (sum(settled) - B))
    f = torch.sigmoid(run.path.a[:, :, H : 2 * H]).numpy()
    spread = np.concatenate([f[first[b] :, b].std(axis=0) for b in range(B)])
    middle = np.sort(spread)[(len(spread) - 1) // 2]
    assert table.loc["words", "gate_std"] == pytest.approx(middle)
    largest = np.maximum(curves["cell_path"], hidden)
    below = np.max([(largest - total)[b, first[b] :].max() for b in range(B)])
    assert table.loc["words", "below_largest_path"] == pytest.approx(below)
    assert np.isnan(table.loc["words", ["zero_state_rate", "settled_rate"]].astype(float)).all()


def test_words_without_padding_have_rates_from_the_second_step_on(inputs: ProbeInputs) -> None:
    module = make_lstm()
    h, c = initial_state(module, B, PROBE)
    alone = inputs._replace(is_word=np.ones((B, T), dtype=bool))
    curves = explicit_curves(run_of(module, alone.inputs, (h, c)))
    table, again = (path_rates(module, alone, (h, c), curves) for _ in range(2))
    pd.testing.assert_frame_equal(table, again, check_exact=True)
    assert table["input"].tolist() == ["words"]
    expected = (curves["hidden_path"][:, -1] - curves["hidden_path"][:, 1]).mean() / (T - 2)
    assert table["hidden_path"].item() == pytest.approx(expected)
    assert np.isfinite(table["tanh_factors"]).all()


def test_tanh_factors_equal_autograd(inputs: ProbeInputs) -> None:
    """d ln ||J V|| / d ln z through the equations of a step, z beside every o tanh'(c)."""
    module = make_lstm()
    h, c = (s[:, :1] for s in initial_state(module, B, PROBE))
    run = run_of(module, inputs.inputs[:1], (h, c))
    W_i, W_f, W_g, W_o = run.cell.weight_hh.chunk(4)
    z = torch.ones((), dtype=torch.float64, requires_grad=True)
    dc = random_directions(identity(2 * H, slice(H, 2 * H)), 1, 8, seed=0)[0, H:]
    dh = torch.zeros_like(dc)
    found = tanh_factors(run)
    assert run.path.c is not None
    for t in range(T):
        a_i, a_f, a_g, a_o = run.path.a[t, 0].unsqueeze(1).chunk(4)
        before, after = run.path.c[t, 0].unsqueeze(1), run.path.c[t + 1, 0].unsqueeze(1)
        i, f, g, o = a_i.sigmoid(), a_f.sigmoid(), a_g.tanh(), a_o.sigmoid()
        dc = (
            f * dc
            + before * f * (1 - f) * (W_f @ dh)
            + i * (1 - g**2) * (W_g @ dh)
            + g * i * (1 - i) * (W_i @ dh)
        )
        dh = z * o * (1 - after.tanh() ** 2) * dc + after.tanh() * o * (1 - o) * (W_o @ dh)
        norm = (dc + 0 * z).norm()  # at t = 1 nothing has passed z
        expected = torch.autograd.grad(norm.log(), z, retain_graph=True)[0].item()
        assert found[t] == pytest.approx(expected, abs=1e-4)


def test_all_paths_pass_a_tanh_at_every_step_where_forget_gates_are_shut() -> None:
    module = make_lstm()
    x = torch.zeros(1, 20, D)
    h, c = torch.rand(2, 1, 1, H).unbind()
    weights = dict(module.named_parameters())
    with torch.no_grad():
        weights["weight_hh_l0"][3 * H :] = 0  # nor does h reach itself by the output gate
        weights["bias_ih_l0"][H : 2 * H] = -60
    assert tanh_factors(run_of(module, x, (h, c))) == pytest.approx(np.arange(20), abs=1e-6)
    with torch.no_grad():
        weights["weight_hh_l0"].zero_()
    assert tanh_factors(run_of(module, x, (h, c))) == pytest.approx(np.zeros(20), abs=1e-9)
