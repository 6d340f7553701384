"""Paths of small LSTMs against explicit products of one-step Jacobians."""

from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch
from ready import ready
from torch import Tensor, nn

import rnngrad
from rnngrad.models.initializers import initialize_like_keras
from rnngrad.study.measures.paths import paths, rate_at, rate_at_settled_state, tanh_factors
from rnngrad.study.runs.open_model import Inputs, initial_state

B, T, D, H = 3, 90, 3, 4
WORDS = [30, 12, 50]


def make_lstm(seed: int = 0) -> nn.LSTM:
    torch.manual_seed(seed)
    return nn.LSTM(D, H, batch_first=True)


@pytest.fixture
def inputs() -> Inputs:
    """Zeros in front of random words."""
    torch.manual_seed(1)
    is_word = np.arange(T) >= T - np.array(WORDS)[:, None]
    x = torch.randn(B, T, D) * torch.from_numpy(is_word)[:, :, None]
    return Inputs(x, [range(T - n, T) for n in WORDS], torch.full((B,), T))


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


def test_rates_and_gates_are_those_of_the_trajectory(inputs: Inputs) -> None:
    module = make_lstm()
    h, c = initial_state(module, B, "uniform", 1)
    path = rnngrad.trajectory(module, inputs.x, (h, c))
    curves = explicit_curves(path)
    table = paths(ready(module, inputs, (h, c)), curves).set_index("input")
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
    long = Inputs(x, [range(300, 320)], torch.tensor([320]))
    state = initial_state(module, 1, "uniform", 1)
    curves = explicit_curves(rnngrad.trajectory(module, x, state))
    table = paths(ready(module, long, state), curves)
    padding = table[table["input"] == "padding"].iloc[0].to_dict()
    assert padding["settled_rate"] == pytest.approx(padding["total"], abs=3e-3)
    # this LSTM rests where it starts from zero
    assert padding["zero_state_rate"] == pytest.approx(padding["settled_rate"], abs=1e-6)


def test_words_without_padding_have_rates_from_the_twentieth_step_on(inputs: Inputs) -> None:
    module = make_lstm()
    h, c = initial_state(module, B, "uniform", 1)
    alone = inputs._replace(words=[range(T)] * B)
    curves = explicit_curves(rnngrad.trajectory(module, alone.x, (h, c)))
    table, again = (paths(ready(module, alone, (h, c)), curves) for _ in range(2))
    pd.testing.assert_frame_equal(table, again, check_exact=True)
    assert table["input"].tolist() == ["words"]
    expected = (curves["hidden_path"][:, -1] - curves["hidden_path"][:, 20]).mean() / (T - 21)
    assert table["hidden_path"].item() == pytest.approx(expected)
    assert np.isfinite(table["tanh_factors"]).all()


def test_factors_are_counted_around_the_step_at_which_words_begin(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comment with most of both inputs counts, over as many steps of each as the window has."""
    monkeypatch.setattr("rnngrad.study.measures.paths.WINDOW", 25)
    module = make_lstm()
    state = initial_state(module, B, "uniform", 1)
    path = rnngrad.trajectory(module, inputs.x, state)
    table = paths(ready(module, inputs, state), explicit_curves(path)).set_index("input")
    begin = T - WORDS[2] - 25
    start = [torch.from_numpy(s[2:, begin]).unsqueeze(0) for s in (path.h, path.c)]
    near = rnngrad.trajectory(module, inputs.x[2:, begin : begin + 50], (start[0], start[1]))
    factors = tanh_factors(near)
    assert table.loc["words", "tanh_factors"] == pytest.approx((factors[-1] - factors[25]) / 24)
    assert table.loc["padding", "tanh_factors"] == pytest.approx((factors[24] - factors[12]) / 12)


def test_tanh_factors_equal_autograd(inputs: Inputs) -> None:
    """d ln ||d c_t/d c_0|| / d ln z through the equations of a step, z beside every o tanh'(c)."""
    module = make_lstm().double()
    x = inputs.x[:1].double()
    h, c = (s[:, :1].double() for s in initial_state(module, B, "uniform", 1))
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


def last_step(module: nn.LSTM, steps: int, seed: int) -> np.ndarray:
    """States before and after the last of some zero inputs, from a state of its own."""
    zeros = torch.zeros(1, steps, D, dtype=torch.float64)
    h, c = torch.rand(2, 1, 1, H, generator=torch.Generator().manual_seed(seed)).double()
    path = rnngrad.trajectory(module, zeros, (h, c))
    return np.concatenate([path.h, path.c], axis=2)[0, -2:]


def test_the_rate_at_a_state_is_that_of_autograd_s_jacobian() -> None:
    module = make_lstm().double()
    before = torch.rand(2 * H, dtype=torch.float64)

    def step(s: Tensor) -> Tensor:
        h, c = (part.reshape(1, 1, H) for part in s.split(H))
        after = module(torch.zeros(1, 1, D, dtype=torch.float64), (h, c))[1]
        return torch.cat([part.flatten() for part in after])

    M = cast("Tensor", torch.autograd.functional.jacobian(step, before))
    expected = torch.linalg.eigvals(M).abs().max().log10().item()
    assert rate_at(module, before.numpy()) == pytest.approx(expected, abs=1e-9)


def test_keras_lstm_at_the_zero_state_is_the_gate_and_a_quarter_of_its_kernel() -> None:
    """dc_t = (sigmoid(1) I + 0.25 U_g) dc_(t-1)."""
    module = nn.LSTM(D, 30, batch_first=True).double()
    initialize_like_keras(module)
    U_g = cast("Tensor", module.weight_hh_l0).detach()[60:90]
    gate = torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))
    expected = torch.linalg.eigvals(gate * torch.eye(30).double() + 0.25 * U_g).abs().max().log10()
    assert rate_at(module, np.zeros(60)) == pytest.approx(float(expected), abs=1e-9)


def test_states_of_rest_with_rates_of_their_own_are_averaged() -> None:
    """h = o tanh(c) and c = f c + g of one unit: two states of rest, on either side of zero."""
    module = nn.LSTM(D, 1, batch_first=True).double()
    weights = dict(module.named_parameters())
    with torch.no_grad():
        for parameter in weights.values():
            parameter.zero_()
        weights["weight_hh_l0"][2] = 1.2
        weights["bias_ih_l0"].add_(torch.tensor([20.0, 0.0, 0.3, 20.0]))
    ends = []
    for start in (2.0, -2.0, -1.5):
        s = torch.full((1, 1, 1), start).double()
        path = rnngrad.trajectory(module, torch.zeros(1, 400, D).double(), (s.tanh(), s))
        ends.append(np.concatenate([path.h, path.c], axis=2)[0, -2:])
    rates = [rate_at(module, before) for before, _ in ends]
    assert abs(rates[0] - rates[1]) > 0.05
    assert rates[1] == pytest.approx(rates[2], abs=1e-6)
    assert rate_at_settled_state(module, ends) == pytest.approx(np.mean(rates), abs=1e-9)


def test_a_state_that_still_moves_has_no_rate() -> None:
    module = make_lstm().double()
    assert np.isnan(rate_at_settled_state(module, [last_step(module, 5, seed=1)]))
    assert np.isnan(rate_at_settled_state(module, []))
    at_rest = [last_step(module, 400, seed) for seed in (1, 2)]
    assert np.isfinite(rate_at_settled_state(module, at_rest))
    assert np.isnan(rate_at_settled_state(module, [*at_rest, last_step(module, 5, seed=1)]))
