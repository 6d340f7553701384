"""The trajectory, and the LSTM that torch lacks, against autograd and against the curves."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import (
    CELLS,
    Case,
    autograd_jacobians,
    log10_statistics,
    make,
    product_curves,
    rows_of,
    states_of,
    weights,
)
from torch import Tensor

import rnngrad
from rnngrad.probe.cells import SigmoidStateLSTM


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_states_are_the_modules(cell: str, layers: int):
    instance = make(Case(cell, layers, steps=40))
    output, last = instance.module(instance.inputs, instance.initial_state)
    found = rnngrad.trajectory(instance.module, instance.inputs, instance.initial_state)
    assert found.layer == layers - 1
    np.testing.assert_allclose(found.h[:, 1:], output.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found.h[:, 0], instance.h[-1].numpy())
    if cell == "lstm":
        np.testing.assert_array_equal(found.c[:, 0], instance.c[-1].numpy())
        np.testing.assert_allclose(found.c[:, -1], last[1][-1].detach().numpy(), rtol=1e-12)
    else:
        assert found.c is None


def test_gates_are_those_of_the_equations():
    instance = make(Case("lstm", bias=False))
    found = rnngrad.trajectory(instance.module, instance.inputs, instance.initial_state)
    assert list(found.gates) == ["i", "f", "g", "o"]
    i, f, g, o = found.gates.values()
    np.testing.assert_allclose(f * found.c[:, :-1] + i * g, found.c[:, 1:], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(o * np.tanh(found.c[:, 1:]), found.h[:, 1:], rtol=1e-12, atol=1e-14)
    instance = make(Case("gru"))
    found = rnngrad.trajectory(instance.module, instance.inputs, instance.initial_state)
    r, z, n = (found.gates[name] for name in "rzn")
    assert ((r > 0) & (r < 1)).all()
    np.testing.assert_allclose(
        (1 - z) * n + z * found.h[:, :-1], found.h[:, 1:], rtol=1e-12, atol=1e-14
    )
    instance = make(Case("rnn_tanh"))
    assert rnngrad.trajectory(instance.module, instance.inputs).gates == {}


@pytest.mark.parametrize("cell", CELLS)
def test_one_step_jacobians_multiply_to_autograds(cell: str):
    instance = make(Case(cell, steps=6, batch=3))
    path = rnngrad.trajectory(instance.module, instance.inputs, instance.initial_state)
    J = autograd_jacobians(instance, "full").numpy()
    now = np.eye(J.shape[-1])
    for t, M in enumerate(path.jacobians()):
        now = M @ now
        np.testing.assert_allclose(now, J[:, t], rtol=1e-11, atol=1e-14)
    for one, M in zip(path.jacobians(1), path.jacobians(), strict=True):
        np.testing.assert_array_equal(one, M[1])


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("cell", CELLS)
def test_agrees_with_the_curves(cell: str, layer: int):
    """Blocks that are not full, and an example that ends within one."""
    instance = make(Case(cell, layers=2, steps=100, hidden=6, batch=3))
    args = instance.module, instance.inputs, instance.initial_state
    lengths = [100, 47, 65]
    path = rnngrad.trajectory(*args, layer=layer, lengths=lengths)
    for state in states_of(instance.module):
        curves = rnngrad.jacobian_curves(*args, state=state, layer=layer, lengths=lengths)
        for example, length in enumerate(lengths):
            expected = product_curves(path.jacobians(example), rows_of(instance.module, state))
            for name, values in expected.items():
                found = getattr(curves, name)[example, :length]
                np.testing.assert_allclose(found, values[:length], rtol=0, atol=4e-10)


def sigmoid_state_step(w: dict[str, Tensor]) -> Callable[[Any, Tensor], Any]:
    def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        h, c = state
        a = x @ w["weight_ih_l0"].T + h @ w["weight_hh_l0"].T
        i, f, g, o = (a + w.get("bias_ih_l0", 0) + w.get("bias_hh_l0", 0)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.sigmoid(c), c

    return step


@pytest.mark.parametrize(("bias", "first"), [(True, True), (False, False)])
def test_sigmoid_state_lstm(bias: bool, first: bool):
    """Its states, its Jacobians by autograd, and by a step that is written here."""
    plain = make(Case("lstm", bias=bias, batch_first=first, hidden=5, steps=30))
    module = SigmoidStateLSTM(3, 5, bias=bias, batch_first=first).double()
    module.load_state_dict(plain.module.state_dict())
    instance = type(plain)(module, plain.inputs, plain.h, plain.c)
    step = sigmoid_state_step(weights(module))
    h, c = plain.h[0], plain.c[0]
    outputs = []
    for x in instance.time_first:
        h, c = step((h, c), x)
        outputs.append(h)
    output, (last_h, last_c) = module(plain.inputs, (plain.h, plain.c))
    output = output.transpose(0, 1) if first else output
    torch.testing.assert_close(output, torch.stack(outputs))
    torch.testing.assert_close((last_h[0], last_c[0]), (h, c))
    inputs = instance.time_first.transpose(0, 1)
    path = rnngrad.trajectory(module, plain.inputs, (plain.h, plain.c))
    np.testing.assert_allclose(path.h[:, -1], h.detach().numpy(), rtol=1e-12)
    for state, key in (("h", 0), ("c", 1), ("full", None)):
        found = rnngrad.jacobian_curves(module, plain.inputs, (plain.h, plain.c), state=state)
        J = autograd_jacobians(instance, state)
        by_step = rnngrad.jacobian_curves_of_step(step, inputs, (plain.h[0], plain.c[0]), state=key)
        products = product_curves(path.jacobians(1), rows_of(module, state))
        for name, expected in log10_statistics(J).items():
            values = getattr(found, name)
            np.testing.assert_allclose(values, expected.numpy(), rtol=0, atol=1e-10)
            np.testing.assert_allclose(values, getattr(by_step, name), rtol=0, atol=1e-9)
            np.testing.assert_allclose(values[1], products[name], rtol=0, atol=1e-11)


def test_sigmoid_state_lstm_has_one_plain_layer():
    for options in ({"num_layers": 2}, {"bidirectional": True}, {"proj_size": 2}):
        with pytest.raises(ValueError, match="one layer, one direction and no projection"):
            SigmoidStateLSTM(3, 4, **options)(torch.zeros(2, 1, 3))


def test_a_trajectory_keeps_the_weights_that_it_was_made_with():
    module, x = torch.nn.LSTM(3, 4).double(), torch.randn(5, 2, 3).double()
    path = rnngrad.trajectory(module, x)
    before = next(path.jacobians())
    torch.nn.init.zeros_(dict(module.named_parameters())["weight_hh_l0"])
    np.testing.assert_array_equal(next(path.jacobians()), before)
    np.testing.assert_array_equal(next(path.jacobians(-1)), before[-1])
