"""The NumPy layer against autograd, finite differences and the tutorial's published numbers."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import numpy_lstm
from numpy_lstm import Gradients, Weights, lstm_backward, lstm_forward, weight_gradient_parts

NAMES = Gradients._fields
# ||dL_T/dWx||, by the loss of step T and the step of the input, of draw_problem((1, 3, 3, 1), 1)
TUTORIAL = [
    [0.41352006679804054, 0, 0],
    [0.08333246161703003, 0.19011577774405056, 0],
    [0.010906688399113563, 0.024780998467378565, 0.13901933055672275],
]


class Problem(NamedTuple):
    """x (N, T, D), h0 (N, H), the layer's weights, dh (N, T, H); all float64."""

    x: np.ndarray
    h0: np.ndarray
    weights: Weights
    dh: np.ndarray


def draw_problem(shape: tuple[int, int, int, int], seed: int) -> Problem:
    """Standard normal numbers, in the order of the tutorial: x, h0, Wx, Wh, b, dh."""
    N, T, D, H = shape
    draw = np.random.RandomState(seed).randn
    x, h0 = draw(N, T, D), draw(N, H)
    weights = Weights(draw(D, 4 * H), draw(H, 4 * H), draw(4 * H))
    return Problem(x, h0, weights, draw(N, T, H))


def to_torch(array: np.ndarray) -> Tensor:
    """Columns i, f, o, g as torch's rows i, f, g, o."""
    i, f, o, g = np.split(array, 4, axis=-1)
    return torch.from_numpy(np.concatenate((i, f, g, o), axis=-1).T.copy())


def from_torch(tensor: Tensor) -> np.ndarray:
    """Rows i, f, g, o as the example's columns i, f, o, g."""
    i, f, g, o = np.split(tensor.numpy().T, 4, axis=-1)
    return np.concatenate((i, f, o, g), axis=-1)


def torch_lstm(weights: Weights) -> nn.LSTM:
    """nn.LSTM of the same weights, its second bias zero."""
    module = nn.LSTM(len(weights.Wx), len(weights.Wh), batch_first=True).double()
    with torch.no_grad():
        module.get_parameter("weight_ih_l0").copy_(to_torch(weights.Wx))
        module.get_parameter("weight_hh_l0").copy_(to_torch(weights.Wh))
        module.get_parameter("bias_ih_l0").copy_(to_torch(weights.b))
        module.get_parameter("bias_hh_l0").zero_()
    return module


def torch_state(problem: Problem) -> tuple[Tensor, Tensor]:
    """h_0 as given and c_0 = 0, each (1, N, H)."""
    h0 = torch.from_numpy(problem.h0)[None]
    return h0, torch.zeros_like(h0)


def by_autograd(problem: Problem) -> tuple[np.ndarray, Gradients]:
    """torch's hidden states and its gradients of sum(h * dh)."""
    module = torch_lstm(problem.weights)
    x = torch.from_numpy(problem.x).requires_grad_()
    h0, c0 = torch_state(problem)
    h0 = h0.clone().requires_grad_()
    h, _ = module(x, (h0, c0))
    (h * torch.from_numpy(problem.dh)).sum().backward()
    g = {name: p.grad for name, p in module.named_parameters()}
    assert x.grad is not None
    assert h0.grad is not None
    w_ih, w_hh, b = (g[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih"))
    assert w_ih is not None
    assert w_hh is not None
    assert b is not None
    gradients = x.grad.numpy(), h0.grad[0].numpy(), *map(from_torch, (w_ih, w_hh, b))
    return h.detach().numpy(), Gradients(*gradients)


def assert_like_autograd(problem: Problem):
    h, steps = lstm_forward(problem.x, problem.h0, problem.weights)
    found = lstm_backward(problem.dh, steps, problem.weights)
    expected_h, expected = by_autograd(problem)
    np.testing.assert_allclose(h, expected_h, rtol=0, atol=1e-10)
    for name, one, other in zip(NAMES, found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10, err_msg=name)


sizes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))


@settings(max_examples=60)
@given(shape=sizes, seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.01, 1.0, 30.0]))
def test_like_autograd_for_any_shape_and_saturated_gates(
    shape: tuple[int, int, int, int], seed: int, scale: float
):
    problem = draw_problem(shape, seed)
    weights = Weights(*(scale * w for w in problem.weights))
    assert_like_autograd(problem._replace(weights=weights))


def test_numbers_of_the_tutorial():
    problem = draw_problem((1, 3, 3, 1), seed=1)
    _, steps = lstm_forward(problem.x, problem.h0, problem.weights)
    parts, _ = weight_gradient_parts(problem.dh, steps, problem.weights)
    np.testing.assert_allclose(np.linalg.norm(parts[0], axis=(2, 3)), TUTORIAL, rtol=1e-14, atol=0)


def test_parts_sum_to_the_gradients_of_the_single_losses_and_of_their_sum():
    problem = draw_problem((3, 6, 2, 4), seed=3)
    _, steps = lstm_forward(problem.x, problem.h0, problem.weights)
    parts_x, parts_h = weight_gradient_parts(problem.dh, steps, problem.weights)
    assert parts_x.shape == (3, 6, 6, 2, 16)
    assert parts_h.shape == (3, 6, 6, 4, 16)
    above = np.triu(np.ones((6, 6), dtype=bool), 1)
    assert (parts_x[:, above] == 0).all()
    assert (parts_h[:, above] == 0).all()
    for T in range(6):
        alone = np.zeros_like(problem.dh)
        alone[:, T] = problem.dh[:, T]
        expected = lstm_backward(alone, steps, problem.weights)
        np.testing.assert_allclose(parts_x[:, T].sum((0, 1)), expected.Wx, rtol=0, atol=1e-12)
        np.testing.assert_allclose(parts_h[:, T].sum((0, 1)), expected.Wh, rtol=0, atol=1e-12)
    whole = lstm_backward(problem.dh, steps, problem.weights)
    np.testing.assert_allclose(parts_x.sum((0, 1, 2)), whole.Wx, rtol=0, atol=1e-12)
    np.testing.assert_allclose(parts_h.sum((0, 1, 2)), whole.Wh, rtol=0, atol=1e-12)


def test_backward_changes_none_of_its_arguments_and_repeats():
    problem = draw_problem((2, 5, 3, 4), seed=4)
    copies = [array.copy() for array in (problem.x, problem.h0, *problem.weights, problem.dh)]
    _, steps = lstm_forward(problem.x, problem.h0, problem.weights)
    first = lstm_backward(problem.dh, steps, problem.weights)
    weight_gradient_parts(problem.dh, steps, problem.weights)
    again = lstm_backward(problem.dh, steps, problem.weights)
    for one, other in zip(first, again, strict=True):
        assert one.tobytes() == other.tobytes()
    now = (problem.x, problem.h0, *problem.weights, problem.dh)
    assert all(np.array_equal(a, b) for a, b in zip(copies, now, strict=True))


def test_float32_stays_float32():
    problem = draw_problem((2, 3, 2, 2), seed=6)
    x, h0, dh = (array.astype(np.float32) for array in (problem.x, problem.h0, problem.dh))
    weights = Weights(*(w.astype(np.float32) for w in problem.weights))
    h, steps = lstm_forward(x, h0, weights)
    assert {array.dtype for array in (h, *lstm_backward(dh, steps, weights))} == {np.dtype("f4")}


def test_sigmoid_is_right_and_silent_on_both_sides():
    a = np.array([-1000.0, -700, -40, -1, 0, 1, 40, 700, 1000])
    expected = [0.0, *(math.exp(v) / (1 + math.exp(v)) for v in (-700, -40, -1, 0, 1, 40, 700)), 1]
    np.testing.assert_allclose(numpy_lstm.sigmoid(a), expected, rtol=1e-15)


BAD = {
    "x": ((2, 3), r"x has shape \(2, 3\); expected \(N, T, D\)"),
    "no steps": ((2, 0, 3), r"x has shape \(2, 0, 3\).*T of at least 1"),
    "flat h0": ((4,), r"h0 has shape \(4,\); expected \(2, 4\)"),
    "h0": ((3, 4), r"h0 has shape \(3, 4\); expected \(2, 4\)"),
    "Wx": ((2, 16), r"Wx has shape \(2, 16\); expected \(3, 16\)"),
    "Wh": ((4, 4), r"Wh has shape \(4, 4\); expected \(4, 16\)"),
    "b": ((1, 16), r"b has shape \(1, 16\); expected \(16,\)"),
    "dh": ((2, 5), r"dh has shape \(2, 5\); expected \(2, 5, 4\), like h"),
}
ARGUMENT = {"no steps": "x", "flat h0": "h0"}


@pytest.mark.parametrize("name", BAD)
def test_bad_shapes_are_refused_in_one_line(name: str):
    problem = draw_problem((2, 5, 3, 4), seed=0)
    shape, message = BAD[name]
    values = problem._asdict() | problem.weights._asdict()
    values[ARGUMENT.get(name, name)] = np.zeros(shape)
    weights = Weights(values["Wx"], values["Wh"], values["b"])

    def run(backward):
        _, steps = lstm_forward(values["x"], values["h0"], weights)
        backward(values["dh"], steps, weights)

    for backward in (lstm_backward, weight_gradient_parts):
        with pytest.raises(ValueError, match=message) as raised:
            run(backward)
        assert "\n" not in str(raised.value)
