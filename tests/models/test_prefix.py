from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnngrad.models import backward
from rnngrad.models.initializers import initialize_like_keras
from rnngrad.models.prefix import state_after_padding, states_after_padding
from rnngrad.models.recurrent import steps_of
from rnngrad.probe import recurrence

MODULES: dict[str, Callable[[], nn.RNNBase]] = {
    "rnn": lambda: nn.RNN(3, 7, batch_first=True),
    "relu": lambda: nn.RNN(3, 7, batch_first=True, nonlinearity="relu"),
    "lstm": lambda: nn.LSTM(3, 7, batch_first=True),
    "gru": lambda: nn.GRU(3, 7, batch_first=True),
}
CLOSED_FORM = ["rnn", "lstm", "gru"]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def make_module(name: str, weights: str, dtype: torch.dtype = torch.float64) -> nn.RNNBase:
    torch.manual_seed(3)
    module = MODULES[name]().to(dtype)
    if weights != "torch":
        initialize_like_keras(module)
    if weights == "changed":
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.4 * torch.randn_like(parameter)
    return module


def padded_states(module: nn.RNNBase, steps: Sequence[int]) -> tuple[Tensor, ...]:
    return states_after_padding(module, steps_of(module), steps)


def plain_states(module: nn.RNNBase, steps: int) -> tuple[Tensor, ...]:
    state = module(next(module.parameters()).new_zeros(1, steps, 3))[1]
    return tuple(part[:, 0] for part in (state if isinstance(state, tuple) else (state,)))


def gradients(module: nn.RNNBase, states: Sequence[Tensor]) -> list[Tensor]:
    """Of a sum of all states, every one with a weight of its own; zeros for W_ih."""
    module.zero_grad()
    terms = [(s.flatten() * torch.linspace(-1, 2, s.numel(), dtype=s.dtype)).sum() for s in states]
    torch.stack(terms).sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]


def assert_close(ours: Sequence[Tensor], plain: Sequence[Tensor], tolerance: float) -> None:
    """Relative to the largest entry of each tensor."""
    for a, b in zip(ours, plain, strict=True):
        size = max(float(b.detach().abs().max()), 1e-30)
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("steps", [1, 7, 1300])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("weights", ["torch", "keras", "changed"])
@pytest.mark.parametrize("name", CLOSED_FORM)
def test_state_and_gradient_equal_the_plain_computation(
    name: str, weights: str, dtype: torch.dtype, steps: int
) -> None:
    module = make_module(name, weights, dtype)
    # in float64, since the plain sum over 1,300 float32 steps is the less exact one
    exact = make_module(name, weights, dtype).double()
    ours, plain = padded_states(module, [steps]), plain_states(exact, steps)
    assert_close([s.double() for s in ours], plain, min(1e-6, TOLERANCE[dtype]))
    found = [g.double() for g in gradients(module, ours)]
    assert_close(found, gradients(exact, plain), TOLERANCE[dtype])


@pytest.mark.parametrize("name", MODULES)
def test_states_after_several_numbers_of_steps(name: str) -> None:
    module = make_module(name, "torch")
    steps = [0, 5, 70, 1300]
    ours = padded_states(module, steps)
    plain = [plain_states(module, n) for n in steps[1:]]
    together = [torch.cat(part) for part in zip(*plain, strict=True)]
    for state, expected in zip(ours, together, strict=True):
        assert not state[0].any()
        torch.testing.assert_close(state[1:], expected)
    ours = [state[1:] for state in ours]
    assert_close(gradients(module, ours), gradients(module, together), 1e-12)


def test_an_lstms_state_is_a_pair() -> None:
    h, c = state_after_padding(make_module("lstm", "torch"), 3)
    assert h.shape == c.shape == (1, 1, 7)
    assert isinstance(state_after_padding(make_module("gru", "torch"), 3), Tensor)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_no_step_is_the_zero_state_without_gradient(name: str) -> None:
    module = make_module(name, "torch")
    states = padded_states(module, [0])
    assert not torch.cat(states).any()
    assert not torch.cat([g.flatten() for g in gradients(module, states)]).any()


@pytest.fixture
def steps_run(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many steps were run, forwards and backwards."""
    counts = {"step": 0, "back": 0}
    for kind in (recurrence.RNN, recurrence.GRU, recurrence.LSTM):

        def forward(cell: object, a: np.ndarray, *more: Any, run: Any = kind.steps) -> None:
            counts["step"] += len(a)
            run(cell, a, *more)

        monkeypatch.setattr(kind, "steps", forward)
    for kind in (backward.RNN, backward.GRU, backward.LSTM):

        def back(*args: Any, run: Any = kind.back) -> None:
            counts["back"] += 1
            run(*args)

        monkeypatch.setattr(kind, "back", back)
    return counts


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_a_state_that_has_settled_and_a_dead_cotangent_cost_nothing(
    name: str, steps_run: dict[str, int]
) -> None:
    module = make_module(name, "torch", torch.float32)
    gradients(module, padded_states(module, [100_000]))
    assert 0 < steps_run["step"] < 300
    assert 0 < steps_run["back"] < 300


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_cotangents_that_meet_a_state_at_rest_go_back_as_one(
    name: str, steps_run: dict[str, int]
) -> None:
    module = make_module(name, "torch")
    steps = [900, 905, 1300]
    ours = padded_states(module, steps)
    found = gradients(module, ours)
    assert steps_run["back"] < 400
    plain = [plain_states(module, n) for n in steps]
    together = [torch.cat(part) for part in zip(*plain, strict=True)]
    assert_close(found, gradients(module, together), 1e-12)


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_cotangents_that_do_not_die_at_rest_go_back_one_by_one(
    scale: float, steps_run: dict[str, int]
) -> None:
    """At the zero state of h = tanh(+-h), where the Jacobian's powers keep their size."""
    module = scaled_identity(scale)
    steps = [600, 601, 800]
    found = gradients(module, padded_states(module, steps))
    assert steps_run["back"] >= 800
    plain = torch.cat([plain_states(module, n)[0] for n in steps])
    assert_close(found, gradients(module, [plain]), 1e-12)


def scaled_identity(scale: float) -> nn.RNNBase:
    """An RNN that rests at zero: no bias, and W_hh a multiple of the identity."""
    module = make_module("rnn", "torch")
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.zero_()
            if key == "weight_hh_l0":
                parameter += scale * torch.eye(7, dtype=torch.float64)
    return module


def edge_of_stability(name: str, scale: float) -> nn.RNNBase:
    """A cell whose state turns for ever: W_hh is a rotation with an eigenvalue near 1 or above."""
    module = make_module(name, "torch")
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    rotation = torch.block_diag(turn, turn, turn, torch.ones(1, 1, dtype=torch.float64))
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.zero_()
            if key == "weight_hh_l0":
                parameter[-7 if name == "gru" else 0 :][:7] = scale * rotation
            elif key == "bias_ih_l0":
                parameter.uniform_(0.001, 0.01)
    if name != "rnn":
        open_gates(module)
    return module


def open_gates(module: nn.RNNBase) -> None:
    """Let an LSTM or a GRU do what its recurrent candidate says: an Elman network."""
    parameters = dict(module.named_parameters())
    W, b = parameters["weight_hh_l0"], parameters["bias_ih_l0"]
    with torch.no_grad():
        if isinstance(module, nn.LSTM):
            W[14:21] = W[:7].clone()
            W[:7] = 0
            b[:7], b[7:14], b[21:] = 20, -20, 20
        else:
            b[:7], b[7:14] = 20, -20


@pytest.mark.parametrize("scale", [1.0, 1.02, 1.3])
@pytest.mark.parametrize("name", CLOSED_FORM)
def test_a_state_that_never_settles(name: str, scale: float, steps_run: dict[str, int]) -> None:
    module = edge_of_stability(name, scale)
    ours = padded_states(module, [1300])
    assert steps_run["step"] == 1300
    found = gradients(module, ours)
    plain = plain_states(module, 1300)
    assert_close(ours, plain, 1e-9)
    assert_close(found, gradients(module, plain), 1e-8)


def test_a_cotangent_that_grows_is_followed_to_the_start(steps_run: dict[str, int]) -> None:
    """At the zero state, where b = 0 holds the state itself, an RNN with W = 2.5."""
    module = scaled_identity(2.5)
    ours = gradients(module, padded_states(module, [600]))
    assert steps_run["back"] == 600
    plain = gradients(module, plain_states(module, 600))
    assert float(plain[-1].abs().max()) > 1e200
    assert_close(ours, plain, 1e-9)


def test_a_state_that_comes_back_after_some_steps_is_not_run_again(
    steps_run: dict[str, int],
) -> None:
    """tanh(-3 h + b) jumps between two values, one of the longer ways of settling."""
    module = scaled_identity(-3)
    with torch.no_grad():
        dict(module.named_parameters())["bias_ih_l0"][:] = torch.linspace(0.1, 0.4, 7)
    for steps in (1300, 1301):
        steps_run.update(step=0)
        ours, plain = padded_states(module, [steps]), plain_states(module, steps)
        assert steps_run["step"] < 300
        np.testing.assert_allclose(ours[0].detach(), plain[0].detach(), rtol=1e-12)
        assert_close(gradients(module, ours), gradients(module, plain), 1e-12)
