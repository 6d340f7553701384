"""The probe measures the code that a call of the module would run, or refuses the module."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.nn.utils import parametrizations

import rnngrad
from rnngrad.errors import InputError

# torch's own, when its compiler is imported
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def gru() -> nn.GRU:
    torch.manual_seed(0)
    return nn.GRU(3, 4, batch_first=True)


X = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))


class OwnCall(nn.GRU):
    def __call__(self, *args: Any) -> Any:
        return super().__call__(5 * args[0], *args[1:])


def replaced(module: Any) -> nn.Module:
    plain = module.forward
    module.forward = lambda x, hx=None: plain(10 * x, hx)
    return module


@pytest.mark.parametrize(
    "make",
    [
        lambda: replaced(gru()),
        lambda: replaced(torch.compile(gru(), backend="eager")),
        lambda: torch.compile(replaced(gru()), backend="eager"),
        lambda: OwnCall(3, 4, batch_first=True),
    ],
)
def test_another_forward_is_refused(make: Callable[[], nn.Module]):
    with pytest.raises(TypeError, match="has a forward of its own") as error:
        rnngrad.jacobian_curves(make(), X)
    assert "\n" not in str(error.value)


def twice(_: nn.Module, __: Any, output: Any) -> Any:
    return 2 * output[0], output[1]


def in_place(_: nn.Module, __: Any, output: Any) -> None:
    output[0].mul_(2)


HOOKED: dict[str, Callable[[], Any]] = {
    "module": gru,
    "compiled": lambda: torch.compile(gru(), backend="eager"),
}


@pytest.mark.parametrize("hook", [twice, in_place])
@pytest.mark.parametrize("kind", HOOKED)
def test_a_hook_that_changes_the_output_is_refused(kind: str, hook: Any):
    module = HOOKED[kind]()
    module.register_forward_hook(hook)
    with pytest.raises(InputError, match="a forward hook of the module, or a global one, changes"):
        rnngrad.jacobian_curves(module, X)


def test_global_hooks_that_change_something_are_refused():
    def larger(_: nn.Module, args: Any) -> Any:
        return 5 * args[0], *args[1:]

    for register, hook in (
        (modules.register_module_forward_hook, twice),
        (modules.register_module_forward_pre_hook, larger),
    ):
        handle = register(hook)
        try:
            with pytest.raises(InputError, match="or a global one, changes"):
                rnngrad.jacobian_curves(gru(), X)
        finally:
            handle.remove()


def clear(x: Tensor) -> None:
    x.zero_()


@pytest.mark.parametrize("make", [gru, lambda: nn.LSTM(3, 4, num_layers=2), lambda: nn.RNN(3, 4)])
def test_a_hook_that_records_changes_nothing(make: Callable[[], nn.RNNBase]):
    seen: list[Tensor] = []
    module, x = make(), X.clone()
    expected = rnngrad.jacobian_curves(module, x).log10_frobenius
    module.register_forward_hook(lambda m, args, output: seen.append(output[0]))
    module.register_forward_hook(lambda m, args, output: clear(args[0]))
    handle = modules.register_module_forward_hook(lambda m, args, output: None)
    try:
        found = rnngrad.jacobian_curves(module, x).log10_frobenius
    finally:
        handle.remove()
    np.testing.assert_array_equal(found, expected)
    assert len(seen) == 1
    assert torch.equal(x, X)


@pytest.mark.parametrize("made", ["tanh", "relu"])
def test_the_nonlinearity_is_the_one_that_runs(made: str):
    """Forward reads `mode`; `nonlinearity` is only what the module was made with."""
    module = nn.RNN(3, 4, nonlinearity=made, batch_first=True).double()
    module.mode = "RNN_RELU" if made == "tanh" else "RNN_TANH"
    x = X[:1].double()
    J = torch.autograd.functional.jacobian(lambda h: module(x, h)[1], torch.zeros(1, 1, 4).double())
    assert isinstance(J, Tensor)
    found = rnngrad.jacobian_curves(module, x).log10_frobenius[0, -1]
    assert found == pytest.approx(float(J.norm().log10()), abs=1e-12)


@pytest.mark.parametrize("reduce", ["norm", "none"])
def test_weight_parts_of_a_compiled_module_are_those_of_the_module(reduce: str):
    module, gradients = gru(), torch.randn(2, 6, 4)
    compiled: Any = torch.compile(module, backend="eager")
    expected = rnngrad.weight_gradient_parts(module, X, gradients, reduce=reduce)
    found = rnngrad.weight_gradient_parts(compiled, X, gradients, reduce=reduce)
    assert list(found) == list(expected) == list(dict(module.named_parameters()))
    for name, part in expected.items():
        np.testing.assert_array_equal(found[name], part)


def test_compiled_in_place_and_parametrized_modules_go_on_working():
    module = gru()
    module.compile(backend="eager")
    assert np.isfinite(rnngrad.jacobian_curves(module, X).log10_frobenius).all()
    parametrizations.weight_norm(module, "weight_hh_l0")
    parametrizations.spectral_norm(module, "weight_ih_l0")  # reading it moves its buffers
    module.register_forward_hook(lambda *_: None)  # so that the probe calls the module itself
    before = [buffer.clone() for buffer in module.buffers()]
    parts = rnngrad.weight_gradient_parts(module, X, torch.randn(2, 6, 4))
    assert parts["weight_hh_l0"].shape == (2, 6, 6)
    assert before
    assert all(map(torch.equal, module.buffers(), before))
