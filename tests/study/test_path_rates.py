"""Paths of small LSTMs against explicit products of one-step Jacobians."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import rnngrad
from rnngrad.params import ProbeParams
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


def explicit_curves(path: rnngrad.Trajectory) -> dict[str, np.ndarray]:
    """log10 of the norms of d c_t/d c_0 and its parts, (b, t), without any scaling."""
    f = path.gates["f"]
    b, steps, _ = f.shape
    J, cell_path = np.eye(2 * H)[:, H:], np.ones((b, H))
    found = {name: np.empty((b, steps)) for name in ("frobenius", "cell_path", "hidden_path")}
    for t, M in enumerate(path.jacobians()):
        J = M @ J
        cell_path = cell_path * f[:, t]
        rest = J[:, H:] - cell_path[:, :, None] * np.eye(H)
        if t == 0:
            rest = np.zeros_like(rest)
        parts = (J[:, H:], cell_path[:, :, None], rest)
        with np.errstate(divide="ignore"):
            for name, part in zip(found, parts, strict=True):
                found[name][:, t] = np.log10(np.linalg.norm(part, axis=(1, 2)))
    return found


def test_rates_and_gates_are_those_of_the_trajectory(inputs: ProbeInputs) -> None:
    module = make_lstm()
    h, c = initial_state(module, B, PROBE)
    path = rnngrad.trajectory(module, inputs.inputs, (h, c))
    curves = explicit_curves(path)
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
    spread = np.concatenate([path.gates["f"][b, first[b] :].std(axis=0) for b in range(B)])
    middle = np.sort(spread)[(len(spread) - 1) // 2]
    assert table.loc["words", "gate_std"] == pytest.approx(middle)
    through = path.gates["o"] * (1 - np.tanh(path.c[:, 1:]) ** 2)
    own = np.concatenate([through[b, first[b] :] for b in range(B)])
    assert table.loc["words", "log10_tanh_factor"] == pytest.approx(np.log10(own).mean())
    largest = np.maximum(curves["cell_path"], hidden)
    below = np.max([(largest - total)[b, first[b] :].max() for b in range(B)])
    assert table.loc["words", "below_largest_path"] == pytest.approx(below)
    assert np.isnan(table.loc["words", ["zero_state_rate", "settled_rate"]].astype(float)).all()


def test_predicted_rates_of_long_padding_are_those_of_the_curve() -> None:
    """The state comes to rest on 300 zeros, and from the zero state on no bias leaves it."""
    module = make_lstm()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("bias"):
                parameter.zero_()
    is_word = np.arange(320)[None] >= 300
    torch.manual_seed(1)
    x = torch.randn(1, 320, D) * torch.from_numpy(is_word)[:, :, None]
    long = ProbeInputs(x, torch.tensor([320]), is_word)
    state = initial_state(module, 1, PROBE)
    curves = explicit_curves(rnngrad.trajectory(module, x, state))
    table = path_rates(module, long, state, curves)
    padding = table[table["input"] == "padding"].iloc[0].to_dict()
    assert padding["settled_rate"] == pytest.approx(padding["total"], abs=3e-3)
    # this LSTM rests where it starts from zero
    assert padding["zero_state_rate"] == pytest.approx(padding["settled_rate"], abs=1e-6)


def test_words_without_padding_have_rates_from_the_second_step_on(inputs: ProbeInputs) -> None:
    module = make_lstm()
    h, c = initial_state(module, B, PROBE)
    alone = inputs._replace(is_word=np.ones((B, T), dtype=bool))
    curves = explicit_curves(rnngrad.trajectory(module, alone.inputs, (h, c)))
    table, again = (path_rates(module, alone, (h, c), curves) for _ in range(2))
    pd.testing.assert_frame_equal(table, again, check_exact=True)
    assert table["input"].tolist() == ["words"]
    expected = (curves["hidden_path"][:, -1] - curves["hidden_path"][:, 1]).mean() / (T - 2)
    assert table["hidden_path"].item() == pytest.approx(expected)
    assert np.isfinite(table["tanh_factors"]).all()


def test_factors_are_counted_around_the_step_at_which_words_begin(
    inputs: ProbeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comment with most of both inputs counts, over as many steps of each as the window has."""
    monkeypatch.setattr("rnngrad.study.evidence.path_rates.WINDOW", 25)
    module = make_lstm()
    state = initial_state(module, B, PROBE)
    path = rnngrad.trajectory(module, inputs.inputs, state)
    table = path_rates(module, inputs, state, explicit_curves(path)).set_index("input")
    begin = T - WORDS[2] - 25
    start = [torch.from_numpy(s[2:, begin]).unsqueeze(0) for s in (path.h, path.c)]
    near = rnngrad.trajectory(module, inputs.inputs[2:, begin : begin + 50], (start[0], start[1]))
    factors = tanh_factors(near)
    assert table.loc["words", "tanh_factors"] == pytest.approx((factors[-1] - factors[25]) / 24)
    assert table.loc["padding", "tanh_factors"] == pytest.approx((factors[24] - factors[12]) / 12)


def test_tanh_factors_equal_autograd(inputs: ProbeInputs) -> None:
    """d ln ||d c_t/d c_0|| / d ln z through the equations of a step, z beside every o tanh'(c)."""
    module = make_lstm().double()
    x = inputs.inputs[:1].double()
    h, c = (s[:, :1].double() for s in initial_state(module, B, PROBE))
    found = tanh_factors(rnngrad.trajectory(module, x, (h, c)))
    W_ih, W_hh, b_ih, b_hh = (parameter.detach() for parameter in module.parameters())
    W_i, W_f, W_g, W_o = W_hh.chunk(4)
    h, c = h.flatten(), c.flatten()
    z = torch.ones((), dtype=torch.float64, requires_grad=True)
    dc = torch.eye(H, dtype=torch.float64)
    dh = torch.zeros_like(dc)
    for t in range(T):
        a_i, a_f, a_g, a_o = (W_ih @ x[0, t] + b_ih + W_hh @ h + b_hh).chunk(4)
        i, f, g, o = a_i.sigmoid(), a_f.sigmoid(), a_g.tanh(), a_o.sigmoid()
        before, c = c, f * c + i * g
        h = o * c.tanh()
        dc = (
            f[:, None] * dc
            + (before * f * (1 - f))[:, None] * (W_f @ dh)
            + (i * (1 - g**2))[:, None] * (W_g @ dh)
            + (g * i * (1 - i))[:, None] * (W_i @ dh)
        )
        through, mix = o * (1 - c.tanh() ** 2), c.tanh() * o * (1 - o)
        dh = z * through[:, None] * dc + mix[:, None] * (W_o @ dh)
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
    found = tanh_factors(rnngrad.trajectory(module, x, (h, c)))
    assert found == pytest.approx(np.arange(20), abs=1e-6)
    with torch.no_grad():
        weights["weight_hh_l0"].zero_()
    found = tanh_factors(rnngrad.trajectory(module, x, (h, c)))
    assert found == pytest.approx(np.zeros(20), abs=1e-9)
