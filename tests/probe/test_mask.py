"""A step that does not count keeps the state: the same as leaving it out."""

from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import Case, Instance, make
from torch import Tensor

import rnngrad
from rnngrad.errors import InputError

CELLS = ["rnn_tanh", "gru", "lstm"]
LENGTHS = [9, 12, 12]


def problem(cell: str) -> tuple[Instance, Tensor]:
    """Three examples of 12 steps and a mask; what does not count is NaN."""
    instance = make(Case(cell, steps=12, hidden=5, batch=3, layers=2))
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(3, 12, generator=generator) > 0.4
    mask[0, :3] = False  # padding in front
    mask[1, 8:] = False  # behind
    mask[2] = True
    instance.inputs[~mask] = torch.nan
    return instance, mask


def without(instance: Instance, mask: Tensor, example: int, end: int = 12) -> tuple[Any, ...]:
    """One example with the steps that count up to one, as a batch of its own."""
    x = instance.inputs[example : example + 1, :end][:, mask[example, :end]]
    states = [s[:, example : example + 1].contiguous() for s in (instance.h, instance.c)]
    lstm = isinstance(instance.module, torch.nn.LSTM)
    return instance.module, x, tuple(states) if lstm else states[0]


@pytest.mark.parametrize("cell", CELLS)
def test_curves_are_those_of_the_steps_that_count(cell: str) -> None:
    instance, mask = problem(cell)
    every = [1, 4, 12]
    found = rnngrad.jacobian_curves(
        instance.module, instance.inputs, instance.initial_state, mask=mask, lengths=LENGTHS,
        state="full", spectral_steps=every,
    )  # fmt: skip
    size = instance.module.hidden_size * (2 if cell == "lstm" else 1)
    start = {"frobenius": np.log10(size) / 2, "spectral": 0.0, "column_sum": 0.0}
    for example, length in enumerate(LENGTHS):
        own = rnngrad.jacobian_curves(*without(instance, mask, example, length), state="full")
        counts = mask[example].cumsum(0).numpy()
        for name, first in start.items():
            values = np.append(first, getattr(own, f"log10_{name}")[0])
            expected = values[np.minimum(counts, len(values) - 1)]
            expected[length:] = np.nan
            if name == "spectral":
                expected[~np.isin(np.arange(1, 13), every)] = np.nan
            np.testing.assert_allclose(
                getattr(found, f"log10_{name}")[example], expected, rtol=0, atol=1e-9
            )


@pytest.mark.parametrize("method", ["exact", "sketch"])
def test_a_step_function_keeps_the_state_as_torchs_modules_do(method: Any) -> None:
    instance, mask = problem("gru")
    features = instance.inputs.shape[2]
    module = torch.nn.GRU(features, 5, batch_first=True).double()
    cell = torch.nn.GRUCell(features, 5).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in module.state_dict().items()})
    options: dict[str, Any] = {"mask": mask, "lengths": LENGTHS, "method": method}
    closed = rnngrad.jacobian_curves(module, instance.inputs, instance.h[:1], **options)
    found = rnngrad.jacobian_curves_of_step(
        lambda s, x: cell(x, s), instance.inputs, instance.h[0], **options
    )
    # before the first step that counts, a step's sketch estimates the identity's norm as well
    counted = (mask.numpy().cumsum(axis=1) > 0) | (method == "exact")
    for name in ("frobenius", "spectral", "column_sum")[: 1 if method == "sketch" else 3]:
        values, expected = (getattr(each, f"log10_{name}")[counted] for each in (found, closed))
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)
        assert np.isnan(getattr(found, f"log10_{name}")[0, 9:]).all()


@pytest.mark.parametrize("cell", CELLS)
def test_a_trajectory_keeps_state_and_map(cell: str) -> None:
    instance, mask = problem(cell)
    path = rnngrad.trajectory(instance.module, instance.inputs, instance.initial_state, mask=mask)
    maps = np.stack([*path.jacobians()], axis=1)
    for example in range(3):
        own = rnngrad.trajectory(*without(instance, mask, example))
        counts = np.append(0, mask[example].cumsum(0).numpy())
        np.testing.assert_allclose(path.h[example], own.h[0, counts], rtol=0, atol=1e-12)
        for name, gate in own.gates.items():
            found = path.gates[name][example, mask[example]]
            np.testing.assert_allclose(found, gate[0], rtol=0, atol=1e-12)
        assert (maps[example, ~mask[example]] == np.eye(maps.shape[-1])).all()
        np.testing.assert_allclose(
            maps[example, mask[example]], np.stack([*own.jacobians(0)]), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("cell", CELLS)
def test_a_diagnosis_is_that_of_the_steps_that_count(cell: str) -> None:
    instance, mask = problem(cell)
    how: Any = {"state": "full"}
    given = instance.module, instance.inputs, instance.initial_state
    found = rnngrad.diagnose(*given, mask=mask, lengths=LENGTHS, **how)
    sums = rnngrad.autograd_column_sums(*given, mask=mask, lengths=LENGTHS, steps=[2, 9], **how)
    for example, length in enumerate(LENGTHS):
        own = rnngrad.diagnose(*without(instance, mask, example, length), **how)
        counts = mask[example].cumsum(0).numpy()[:length]
        verdicts = np.append("alive", own.verdict[0])[counts]
        assert found.verdict[example].tolist() == [*verdicts, *[""] * (12 - length)]
        naive = np.append(1.0, own.naive[0])[counts]
        np.testing.assert_array_equal(found.naive[example, :length], naive)
        # of fewer losses at a time, BLAS may round products otherwise
        np.testing.assert_allclose(sums[example, [1, 8]], naive[[1, 8]], rtol=1e-6)
        assert np.isnan(sums[example]).sum() == 10
        assert found.decades_per_step[example] == pytest.approx(own.decades_per_step[0])


@pytest.mark.parametrize("cell", CELLS)
def test_exponents_are_those_of_the_steps_that_count(cell: str) -> None:
    instance, mask = problem(cell)
    found = rnngrad.lyapunov_exponents(
        instance.module, instance.inputs, instance.initial_state, mask=mask, warmup=1
    )
    for example in range(3):
        own = rnngrad.lyapunov_exponents(*without(instance, mask, example), warmup=1)
        np.testing.assert_allclose(found[example], own[0], rtol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_losses_send_back_what_they_do_through_the_steps_that_count(cell: str) -> None:
    instance, mask = problem(cell)
    gradient = torch.full((3, 12, 5), torch.nan).double()
    gradient[mask] = torch.arange(float(mask.sum()) * 5).double().sin().reshape(-1, 5)
    given = instance.module, instance.inputs, gradient, instance.initial_state
    for layer in (0, 1):
        found = rnngrad.loss_gradient_curves(*given, mask=mask, layer=layer)
        for example in range(3):
            module, x, start = without(instance, mask, example)
            own = gradient[example : example + 1, mask[example]]
            curves = rnngrad.loss_gradient_curves(module, x, own, start, layer=layer)
            counts = mask[example].cumsum(0).numpy()
            # before the first step that counts the state is the initial one
            state = start if isinstance(start, tuple) else (start,)
            state = tuple(s.clone().requires_grad_() for s in state)
            output = module(x, state if len(state) == 2 else state[0])[0]
            grads = torch.autograd.grad((output * own).sum(), state)
            values = np.append(np.log10(grads[0][layer].norm().item()), curves.log10_h[0])
            np.testing.assert_allclose(found.log10_h[example], values[counts], rtol=0, atol=1e-9)


@pytest.mark.parametrize("reduce", ["norm", "log10_norm", "curve"])
def test_weights_learn_from_the_steps_that_count(reduce: str) -> None:
    instance, mask = problem("gru")
    gradients = torch.ones(3, 12, 5).double()
    given = instance.module, instance.inputs, gradients, instance.initial_state
    found = rnngrad.weight_gradient_parts(*given, mask=mask, reduce=reduce)
    for example in range(3):
        module, x, start = without(instance, mask, example)
        at = np.flatnonzero(mask[example])
        own = rnngrad.weight_gradient_parts(
            module, x, gradients[example : example + 1, : len(at)], start, reduce=reduce
        )
        for name, values in found.items():
            expected = np.full(values[example].shape, 0.0 if reduce == "norm" else -np.inf)
            expected[at if reduce == "curve" else np.ix_(at, at)] = own[name][0]
            np.testing.assert_allclose(values[example], expected, rtol=1e-9)


def test_where_the_forward_pass_overflows_is_told_in_steps_as_given() -> None:
    instance, mask = problem("rnn_tanh")
    module = torch.nn.RNN(3, 5, nonlinearity="relu", batch_first=True).double()
    x = torch.ones_like(instance.inputs)
    x[2, 7:] = 1e300
    mask[2, 3] = False
    torch.nn.init.constant_(module.get_parameter("weight_ih_l0"), 1e10)
    with pytest.raises(InputError, match=r"example 2, step 8 \(steps from 1\)"):
        rnngrad.jacobian_curves(module, x, mask=mask)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(3, 12), TypeError, "mask must be bool"),
        ([[True], [True, False]], TypeError, "mask must be bool"),
        (torch.ones(3, 11, dtype=torch.bool), InputError, r"mask has shape \(3, 11\)"),
        (np.arange(36).reshape(3, 12) < 24, InputError, "mask counts no step of example 2"),
    ],
)
def test_a_mask_that_cannot_be_meant(mask: Any, error: type[Exception], message: str) -> None:
    instance, _ = problem("gru")
    with pytest.raises(error, match=message):
        rnngrad.jacobian_curves(instance.module, instance.inputs, mask=mask)


def test_a_mask_may_be_any_view_of_an_array() -> None:
    instance, mask = problem("gru")
    x, turned = instance.inputs, mask.numpy()[:, ::-1].copy()[:, ::-1]
    found = rnngrad.jacobian_curves(instance.module, x, mask=turned).log10_frobenius
    expected = rnngrad.jacobian_curves(instance.module, x, mask=mask).log10_frobenius
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("probe", [rnngrad.loss_gradient_curves, rnngrad.weight_gradient_parts])
def test_a_loss_that_looks_at_padding_alone_is_told(probe: Any) -> None:
    instance = make(Case("lstm", steps=12, hidden=5, batch=3))
    gradient = torch.zeros(3, 12, 5).double()
    gradient[:, -1] = 1
    given = instance.module, instance.inputs, gradient
    with pytest.raises(InputError, match="of example 1 is zero at every step that counts"):
        probe(*given, lengths=[12, 9, 12])
    states = torch.ones(1, 3, 5).double()
    probe(*given, lengths=[12, 9, 12], final_state_gradient=(states, states))


def test_a_trajectory_ends_with_its_example() -> None:
    instance = make(Case("lstm", steps=12, hidden=5, batch=3))
    path = rnngrad.trajectory(instance.module, instance.inputs, lengths=[12, 9, 12])
    assert np.isnan(path.h[1, 10:]).all()
    assert np.isfinite(path.h[1, :10]).all()
    drawn = path.plot().lines[0]
    assert len(drawn.get_xdata()) == 12
