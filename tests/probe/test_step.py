"""Curves of any step function, against the closed forms and autograd."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import Case, log10_statistics, make
from torch import Tensor, nn

import rnngrad

NAMES = ("log10_frobenius", "log10_column_sum", "log10_spectral")


def cell_like(module: nn.RNNBase) -> nn.RNNCellBase:
    kinds = {nn.RNN: nn.RNNCell, nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell}
    cell = kinds[type(module)](module.input_size, module.hidden_size, bias=module.bias).double()
    state = {k.removesuffix("_l0"): v for k, v in module.state_dict().items()}
    cell.load_state_dict(state)
    return cell


@pytest.mark.parametrize("name", ["rnn_tanh", "gru", "lstm"])
def test_agrees_with_the_closed_forms(name: str):
    instance = make(Case(name, steps=40, hidden=5))
    cell = cell_like(instance.module)
    lstm = name == "lstm"
    initial = (instance.h[0], instance.c[0]) if lstm else instance.h[0]
    for state, key in (("h", 0), ("c", 1), ("full", None)) if lstm else (("h", None),):
        closed = rnngrad.jacobian_curves(
            instance.module, instance.inputs, instance.initial_state, state=state
        )
        found = rnngrad.jacobian_curves_of_step(
            lambda s, x: cell(x, s), instance.inputs, initial, state=key
        )
        for statistic in NAMES:
            np.testing.assert_allclose(
                getattr(found, statistic), getattr(closed, statistic), rtol=0, atol=1e-9
            )


def layer_normalised_lstm(hidden: int) -> Callable[[Any, Tensor], Any]:
    torch.manual_seed(0)
    W, U = nn.Linear(3, 4 * hidden).double(), nn.Linear(hidden, 4 * hidden, bias=False).double()
    norm_a, norm_c = nn.LayerNorm(4 * hidden).double(), nn.LayerNorm(hidden).double()

    def step(state: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        i, f, g, o = norm_a(W(x) + U(state["h"])).chunk(4, dim=-1)
        c = torch.sigmoid(f) * state["c"] + torch.sigmoid(i) * torch.tanh(g)
        return {"h": torch.sigmoid(o) * torch.tanh(norm_c(c)), "c": c}

    return step


@pytest.mark.parametrize("state", ["c", None])
def test_another_recurrence_against_autograd(state: str | None):
    H, T, B = 4, 15, 2
    step = layer_normalised_lstm(H)
    x = torch.randn(B, T, 3, dtype=torch.float64)
    initial = {k: torch.randn(B, H, dtype=torch.float64) for k in ("h", "c")}
    found = rnngrad.jacobian_curves_of_step(step, x, initial, state=state)
    keys = sorted(initial) if state is None else [state]

    def states(s0: Tensor) -> Tensor:
        now = dict(initial)
        now.update(zip(keys, s0.split(H, dim=-1), strict=True))
        out = []
        for t in range(T):
            now = step(now, x[:, t])
            out.append(torch.cat([now[k] for k in keys], dim=-1))
        return torch.stack(out).sum(dim=1)

    start = torch.cat([initial[k] for k in keys], dim=-1)
    J = torch.autograd.functional.jacobian(states, start)
    assert isinstance(J, Tensor)
    for name, expected in log10_statistics(J.permute(2, 0, 1, 3)).items():
        np.testing.assert_allclose(getattr(found, name), expected.numpy(), rtol=0, atol=1e-9)


def test_scale_of_an_entry_that_is_not_read():
    """The other entry stays at 1 while the one that is read falls to 2^-1100."""
    found = rnngrad.jacobian_curves_of_step(
        lambda s, x: (s[0] + s[1], 0.5 * s[1]),
        torch.zeros(1, 1100, 1, dtype=torch.float64),
        (torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)),
        state=1,
    )
    expected = 0.5 * np.log10(2) - np.arange(1, 1101) * np.log10(2)
    np.testing.assert_allclose(found.log10_frobenius, [expected], rtol=1e-12)


@pytest.mark.parametrize(
    "mix",
    [
        lambda s: s - s.mean(dim=0),
        lambda s: s + 1e-6 * s.mean(dim=0),
        lambda s: s.cumsum(dim=0),  # the first example alone is as it was
    ],
)
def test_mixing_that_the_initial_state_hides(mix: Callable[[Tensor], Tensor]):
    cell, zero = nn.GRUCell(1, 4).double(), torch.zeros(3, 4).double()
    x = torch.randn(3, 5, 1).double()
    with pytest.raises(ValueError, match="mixes examples"):
        rnngrad.jacobian_curves_of_step(lambda s, x: cell(x, mix(s)), x, zero)
    rnngrad.jacobian_curves_of_step(lambda s, x: cell(x, s), x, zero)


def test_refuses_what_it_cannot_do():
    x, s = torch.zeros(2, 3, 1), torch.ones(2, 4)
    with pytest.raises(ValueError, match="of a single tensor use state=None"):
        rnngrad.jacobian_curves_of_step(lambda s, x: s, x, s, state=0)
    wrong: Any
    for start, wrong in (((s, ()), 1), ((s, ()), ()), ({"h": s}, "c")):
        with pytest.raises(ValueError, match="is no entry"):
            rnngrad.jacobian_curves_of_step(lambda s, x: s, x, start, state=wrong)
    with pytest.raises(ValueError, match="at step 1"):
        rnngrad.jacobian_curves_of_step(lambda s, x: s.sqrt() * x, x, s * 0)
    with pytest.raises(ValueError, match=r"expected \(2, ...\)"):
        rnngrad.jacobian_curves_of_step(lambda s, x: s, x, s[:1])
    with pytest.raises(TypeError, match="floating point"):
        rnngrad.jacobian_curves_of_step(lambda s, x: s, x.long(), s)
    for wrong in (nn.GRUCell, 5):
        with pytest.raises(TypeError, match=r"step must be a function .*, got (<class|5)"):
            rnngrad.jacobian_curves_of_step(wrong, x, s)  # type: ignore[arg-type]


def energy_step(s: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        return torch.autograd.grad((s**4).sum(), s)[0]


def test_names_what_fails_in_a_step():
    x, s = torch.zeros(2, 3, 4), torch.ones(2, 4)
    steps: dict[str, Any] = {
        "step fails at step 1: RuntimeError: ": lambda s, x: s @ x,
        "step cannot go through torch.func.vmap and jvp: write it in torch, without NumPy": (
            lambda s, x: torch.from_numpy(np.tanh(s.numpy()))
        ),
        "use torch.func.grad in place of autograd.grad": energy_step,
    }
    for expected, step in steps.items():
        with pytest.raises(rnngrad.InputError) as error:
            rnngrad.jacobian_curves_of_step(step, x, s)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)


class WithoutSetup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.tanh()


class WithoutRule(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.tanh()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass


class WithoutJvp(WithoutRule):
    generate_vmap_rule = True


@pytest.mark.parametrize("function", [WithoutSetup, WithoutRule, WithoutJvp])
def test_a_custom_function_is_told_of_all_that_it_needs(function: Any):
    x, s = torch.zeros(2, 3, 4), torch.ones(2, 4)
    with pytest.raises(rnngrad.InputError, match="setup_context, generate_vmap_rule = True and"):
        rnngrad.jacobian_curves_of_step(lambda s, x: function.apply(s + x), x, s)


def test_a_step_without_a_derivative_is_not_taken_for_a_zero():
    cell = nn.GRUCell(3, 4)
    x, zero = torch.randn(2, 5, 3), torch.zeros(2, 4)

    @torch.inference_mode()
    def inferring(s: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return cell(x, s)

    with pytest.raises(rnngrad.InputError, match=r"step runs under torch\.inference_mode"):
        rnngrad.jacobian_curves_of_step(inferring, x, zero)
    with pytest.warns(UserWarning, match="central difference"):
        rnngrad.jacobian_curves_of_step(lambda s, x: cell(x, s.detach()), x, zero)
    # a true zero is none to be warned of
    found = rnngrad.jacobian_curves_of_step(lambda s, x: 0 * s + x[:, :1], x, zero)
    assert (found.log10_frobenius == -np.inf).all()
    with torch.inference_mode():
        inside = rnngrad.jacobian_curves_of_step(lambda s, x: cell(x, s), x, zero)
    assert np.isfinite(inside.log10_frobenius).all()


def test_a_sketch_of_a_small_state_beside_a_large_one():
    def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        total, fading = state  # the total keeps its size
        return total + fading.sum(dim=1, keepdim=True), 1e-4 * torch.tanh(fading)

    x = torch.zeros(1, 60, 1)
    how: Any = {"state": 1, "seed": 1}
    start = torch.zeros(1, 1), torch.full((1, 8), 0.1)
    with pytest.raises(rnngrad.InputError, match=r"moves too little .* use method=\"exact\""):
        rnngrad.jacobian_curves_of_step(step, x, start, method="sketch", **how)
    wide = x.double(), tuple(s.double() for s in start)
    exact, sketch = (
        rnngrad.jacobian_curves_of_step(step, *wide, method=method, **how)
        for method in ("exact", "sketch")
    )
    np.testing.assert_allclose(sketch.log10_frobenius, exact.log10_frobenius, rtol=0, atol=0.4)
    assert exact.log10_frobenius[0, -1] < -200


def test_the_spectral_norm_of_a_step_where_it_is_wanted():
    x, start = torch.randn(2, 6, 3).double(), torch.randn(2, 3).double()
    every, some = (
        rnngrad.jacobian_curves_of_step(
            lambda s, x: torch.tanh(s + x), x, start, spectral_steps=at
        ).log10_spectral
        for at in (None, [2, 5])
    )
    np.testing.assert_array_equal(some[:, [1, 4]], every[:, [1, 4]])
    assert np.isnan(some[:, [0, 2, 3, 5]]).all()
