"""The padding that is run once gives the state and the gradient of all its steps."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from rnngrad.models.initializers import initialize_like_keras
from rnngrad.models.shared_padding import state_after_padding

MODULES: dict[str, Callable[[], nn.RNNBase]] = {
    "rnn": lambda: nn.RNN(3, 7, batch_first=True),
    "relu": lambda: nn.RNN(3, 7, batch_first=True, nonlinearity="relu"),
    "lstm": lambda: nn.LSTM(3, 7, batch_first=True),
    "gru": lambda: nn.GRU(3, 7, batch_first=True),
}
CELLS = ["rnn", "lstm", "gru"]
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


def plain_states(module: nn.RNNBase, steps: int) -> tuple[Tensor, ...]:
    state = module(next(module.parameters()).new_zeros(1, steps, 3))[1]
    return state if isinstance(state, tuple) else (state,)


def gradients(module: nn.RNNBase, states: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a sum of all states, each with its own weight; zeros where there is none."""
    terms = [(s.flatten() * torch.linspace(-1, 2, s.numel(), dtype=s.dtype)).sum() for s in states]
    weights = list(module.parameters())
    found = torch.autograd.grad(torch.stack(terms).sum(), weights, materialize_grads=True)
    return list(found)


def assert_close(ours: Sequence[Tensor], plain: Sequence[Tensor], tolerance: float) -> None:
    """Relative to the largest entry of each tensor."""
    for a, b in zip(ours, plain, strict=True):
        size = max(float(b.detach().abs().max()), 1e-30)
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("steps", [32, 1300])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("weights", ["keras", "changed"])
@pytest.mark.parametrize("name", CELLS)
def test_state_and_gradient_equal_the_plain_computation(
    name: str, weights: str, dtype: torch.dtype, steps: int
) -> None:
    module = make_module(name, weights, dtype)
    # in float64, since the plain sum over 1,300 float32 steps is the less exact one
    exact = make_module(name, weights, dtype).double()
    ours, plain = state_after_padding(module, steps), plain_states(exact, steps)
    assert_close([s.double() for s in ours], plain, min(1e-6, TOLERANCE[dtype]))
    found = [g.double() for g in gradients(module, ours)]
    assert_close(found, gradients(exact, plain), TOLERANCE[dtype])


@pytest.mark.parametrize("name", MODULES)
def test_padding_goes_on_from_a_state(name: str) -> None:
    module = make_module(name, "torch")
    states, plain, before = [], [], 0
    state = state_after_padding(module, 0)
    for steps in (5, 70, 73, 1300):
        state = state_after_padding(module, steps - before, state)
        before = steps
        states += state
        plain += plain_states(module, steps)
    assert_close(states, plain, 1e-12)
    assert_close(gradients(module, states), gradients(module, plain), 1e-12)


def test_a_weight_that_changes_before_the_backward_pass_is_an_error() -> None:
    module = make_module("gru", "torch")
    (h,) = state_after_padding(module, 40)
    with torch.no_grad():
        module.get_parameter("weight_hh_l0").mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h.sum().backward()


class Count:
    """Steps that a module runs, each as often as it has examples."""

    def __init__(self, module: nn.RNNBase) -> None:
        self.steps = 0
        module.register_forward_pre_hook(self.add)

    def add(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        examples, steps, _ = arguments[0].shape
        self.steps += examples * steps


@pytest.mark.parametrize("name", CELLS)
def test_a_state_at_rest_and_a_dead_cotangent_cost_nothing(name: str) -> None:
    module = make_module(name, "torch", torch.float32)
    count = Count(module)
    state = state_after_padding(module, 100_000)
    assert 0 < count.steps < 300
    gradients(module, state)
    assert count.steps < 500


def test_a_state_that_rounding_keeps_moving_rests() -> None:
    module = nn.LSTM(3, 200, batch_first=True)
    count = Count(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 2
    ours = state_after_padding(module, 5_000)
    assert count.steps < 1_000
    assert_close(ours, plain_states(module, 5_000), 1e-5)


def scaled_identity(scale: float) -> nn.RNNBase:
    """An RNN that rests at zero: no bias, and W_hh a multiple of the identity."""
    module = make_module("rnn", "torch")
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.zero_()
            if key == "weight_hh_l0":
                parameter += scale * torch.eye(7, dtype=torch.float64)
    return module


@pytest.mark.parametrize("scale", [1.0, -1.0, 2.5])
def test_a_cotangent_that_does_not_die_at_rest_is_followed_to_the_start(scale: float) -> None:
    """At the zero state of h = tanh(scale h), where the Jacobian's powers keep their size or grow.

    The gradient of a bias adds those of all 600 steps up.
    """
    module = scaled_identity(scale)
    count = Count(module)
    ours = state_after_padding(module, 600)
    assert count.steps < 100
    plain = gradients(module, plain_states(module, 600))
    assert_close(gradients(module, ours), plain, 1e-9)
    assert scale < 2 or float(plain[-1].abs().max()) > 1e200


def test_a_state_that_comes_back_after_some_steps_is_not_run_again() -> None:
    """tanh(-3 h + b) jumps between two values, one of the longer ways of settling."""
    module = scaled_identity(-3)
    with torch.no_grad():
        module.get_parameter("bias_ih_l0")[:] = torch.linspace(0.1, 0.4, 7)
    count = Count(module)
    for steps in (1300, 1301):
        count.steps = 0
        ours = state_after_padding(module, steps)
        assert count.steps < 300
        plain = plain_states(module, steps)
        assert_close(ours, plain, 1e-12)
        assert_close(gradients(module, ours), gradients(module, plain), 1e-12)


def edge_of_stability(scale: float) -> nn.RNNBase:
    """An RNN whose state turns for ever: W_hh is a rotation with an eigenvalue near 1 or above."""
    module = make_module("rnn", "torch")
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    rotation = torch.block_diag(turn, turn, turn, torch.ones(1, 1, dtype=torch.float64))
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.zero_()
            if key == "weight_hh_l0":
                parameter += scale * rotation
            elif key == "bias_ih_l0":
                parameter.uniform_(0.001, 0.01)
    return module


@pytest.mark.parametrize("scale", [1.0, 1.02, 1.3])
def test_a_state_that_never_settles(scale: float) -> None:
    module = edge_of_stability(scale)
    count = Count(module)
    ours = state_after_padding(module, 1300)
    assert count.steps == 1300
    plain = plain_states(module, 1300)
    assert_close(ours, plain, 1e-9)
    assert_close(gradients(module, ours), gradients(module, plain), 1e-8)
