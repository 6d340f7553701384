"""The probe against the NumPy layer: a second implementation that shares no line with it."""

import numpy as np
import pytest
import torch
from lstm_problems import TUTORIAL, Problem, draw_problem, to_torch, torch_lstm, torch_state

import rnngrad
from numpy_lstm import lstm_backward, lstm_forward, lstm_step_backward, weight_gradient_parts

SHAPES = [(1, 3, 3, 1), (2, 7, 3, 4), (3, 15, 2, 5)]


@pytest.fixture(params=SHAPES, ids=str)
def problem(request: pytest.FixtureRequest) -> Problem:
    return draw_problem(request.param, seed=11)


def jacobians(problem: Problem, state: str) -> np.ndarray:
    """d s_t / d s_0 (N, T, H, H) for s = h or c: a unit cotangent per row, stepped back to 0."""
    _, steps = lstm_forward(problem.x, problem.h0, problem.weights)
    N, T, H = problem.dh.shape
    J = np.empty((N, T, H, H))
    for last in range(T):
        for row in range(H):
            dh, dc = np.zeros((N, H)), np.zeros((N, H))
            {"h": dh, "c": dc}[state][:, row] = 1
            for step in reversed(steps[: last + 1]):
                _, dh, dc = lstm_step_backward(dh, dc, step, problem.weights)
            J[:, last, row] = {"h": dh, "c": dc}[state]
    return J


@pytest.mark.parametrize("state", ["h", "c"])
def test_jacobian_curves(problem: Problem, state: str):
    J = jacobians(problem, state)
    expected = {
        "frobenius": np.linalg.norm(J, axis=(2, 3)),
        "spectral": np.linalg.norm(J, ord=2, axis=(2, 3)),
        "column_sum": np.abs(J.sum(axis=2)).mean(axis=2),
    }
    curves = rnngrad.jacobian_curves(
        torch_lstm(problem.weights),
        torch.from_numpy(problem.x),
        torch_state(problem),
        state=state,
        statistics=tuple(expected),
    )
    for name, values in expected.items():
        found = getattr(curves, f"log10_{name}")
        np.testing.assert_allclose(found, np.log10(values), rtol=0, atol=1e-10, err_msg=name)


def test_cell_path_is_the_product_of_the_forget_gates(problem: Problem):
    _, steps = lstm_forward(problem.x, problem.h0, problem.weights)
    path = np.cumprod(np.stack([step.f for step in steps], axis=1), axis=1)
    curves = rnngrad.jacobian_curves(
        torch_lstm(problem.weights),
        torch.from_numpy(problem.x),
        torch_state(problem),
        state="c",
    )
    expected = np.log10(np.linalg.norm(path, axis=2))
    np.testing.assert_allclose(curves.log10_cell_path, expected, rtol=0, atol=1e-12)


def test_loss_gradient_curves(problem: Problem):
    _, steps = lstm_forward(problem.x, problem.h0, problem.weights)
    N, T, H = problem.dh.shape
    log10_h, log10_c = np.empty((N, T)), np.empty((N, T))
    dh, dc = np.zeros((N, H)), np.zeros((N, H))
    for t in reversed(range(T)):
        dh, step = problem.dh[:, t] + dh, steps[t]
        total_c = dc + dh * step.o * (1 - np.tanh(step.c) ** 2)
        log10_h[:, t] = np.log10(np.linalg.norm(dh, axis=1))
        log10_c[:, t] = np.log10(np.linalg.norm(total_c, axis=1))
        _, dh, dc = lstm_step_backward(dh, dc, step, problem.weights)
    found = rnngrad.loss_gradient_curves(
        torch_lstm(problem.weights),
        torch.from_numpy(problem.x),
        torch.from_numpy(problem.dh),
        torch_state(problem),
    )
    np.testing.assert_allclose(found.log10_h, log10_h, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.log10_c, log10_c, rtol=0, atol=1e-10)


def test_weight_gradient_parts(problem: Problem):
    _, steps = lstm_forward(problem.x, problem.h0, problem.weights)
    parts = weight_gradient_parts(problem.dh, steps, problem.weights)
    found = rnngrad.weight_gradient_parts(
        torch_lstm(problem.weights),
        torch.from_numpy(problem.x),
        torch.from_numpy(problem.dh),
        torch_state(problem),
        reduce="none",
    )
    for name, expected in zip(("weight_ih_l0", "weight_hh_l0"), parts, strict=True):
        for at in np.ndindex(expected.shape[:3]):
            one = to_torch(expected[at]).numpy()
            np.testing.assert_allclose(found[name][at], one, rtol=0, atol=1e-10)
    bias = found["bias_ih_l0"].sum(axis=(0, 1, 2))
    whole = lstm_backward(problem.dh, steps, problem.weights)
    np.testing.assert_allclose(bias, to_torch(whole.b).numpy(), rtol=0, atol=1e-10)


def test_numbers_of_the_tutorial():
    problem = draw_problem((1, 3, 3, 1), seed=1)
    found = rnngrad.weight_gradient_parts(
        torch_lstm(problem.weights),
        torch.from_numpy(problem.x),
        torch.from_numpy(problem.dh),
        torch_state(problem),
    )
    np.testing.assert_allclose(found["weight_ih_l0"][0], TUTORIAL, rtol=1e-14, atol=0)
