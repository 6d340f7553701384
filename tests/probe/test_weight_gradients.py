"""Parts of weights' gradients, by step, against autograd and the tutorial's numbers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from probe_problems import (
    CELLS,
    GRADIENT_CASES,
    Case,
    make,
    output_gradients,
    set_weights,
    states_with_gradients,
    weights,
)
from torch import Tensor, nn

import rnngrad


@pytest.mark.parametrize("case", GRADIENT_CASES, ids=str)
def test_parts_sum_to_autograds_gradient(case: Case):
    instance = make(case)
    G = output_gradients(instance)
    args = instance.module, instance.inputs, G, instance.initial_state
    parts = rnngrad.weight_gradient_parts(*args, reduce="none")
    norms = rnngrad.weight_gradient_parts(*args)
    logs = rnngrad.weight_gradient_parts(*args, reduce="log10_norm")
    output, _ = instance.module(instance.inputs, instance.initial_state)
    for T in range(case.steps):
        now = output[:, T] * G[:, T] if case.batch_first else output[T] * G[T]
        names, values = zip(*weights(instance.module).items(), strict=True)
        gradients = torch.autograd.grad(now.sum(), values, retain_graph=True)
        for name, gradient in zip(names, gradients, strict=True):
            found = parts[name][:, T].sum(axis=(0, 1))
            np.testing.assert_allclose(found, gradient.numpy(), rtol=0, atol=1e-10)
    assert set(parts) == set(norms) == {name for name, _ in instance.module.named_parameters()}
    for name, part in parts.items():
        assert part.shape[:3] == (case.batch, case.steps, case.steps)
        flat = part.reshape(*part.shape[:3], -1)
        np.testing.assert_allclose(norms[name], np.linalg.norm(flat, axis=-1), atol=1e-12)
        np.testing.assert_allclose(10 ** logs[name], norms[name], atol=1e-12)
        above = np.triu(np.ones(part.shape[1:3], dtype=bool), 1)
        assert (part[:, above] == 0).all()


def saturated_rnn() -> tuple[nn.RNN, Tensor, Tensor]:
    """Units at 1 - 1e-174: the squares of what arrives at the gates are below float64."""
    module = nn.RNN(1, 2, batch_first=True).double()
    set_weights(module, weight_hh_l0=0.1 * torch.eye(2), bias_ih_l0=200.0)
    return module, torch.ones(1, 2, 1).double(), torch.ones(1, 2, 2).double()


def test_norms_of_parts_whose_squares_underflow():
    args = saturated_rnn()
    parts = rnngrad.weight_gradient_parts(*args, reduce="none")
    norms = rnngrad.weight_gradient_parts(*args)
    logs = rnngrad.weight_gradient_parts(*args, reduce="log10_norm")
    # 1 / cosh(a)^2 = 4 exp(-2 a) there; h_0 = 0, then 1, and the weights and inputs are 1
    first = math.log10(4 * 2**0.5) - 400 / math.log(10)
    np.testing.assert_allclose(logs["bias_ih_l0"][0, 0, 0], first, rtol=1e-14)
    second = first - 0.2 / math.log(10)
    np.testing.assert_allclose(logs["weight_hh_l0"][0, 1, 1], second + math.log10(2) / 2)
    assert logs["bias_ih_l0"][0, 1, 0] < -340
    for name, part in parts.items():
        expected = 1e-170 * np.linalg.norm(part.reshape(1, 2, 2, -1) * 1e170, axis=-1)
        np.testing.assert_allclose(norms[name], expected, rtol=1e-13)
        known = norms[name] > 0
        np.testing.assert_allclose(logs[name][known], np.log10(norms[name][known]), rtol=1e-14)


@pytest.mark.parametrize(
    ("parametrize", "name"),
    [
        (nn.utils.parametrizations.orthogonal, "weight_hh_l0"),
        (nn.utils.parametrizations.weight_norm, "weight_ih_l0"),
    ],
)
def test_parametrized_weights(parametrize: Callable[..., nn.Module], name: str):
    """The parts belong to the weights that the module multiplies with."""
    module = nn.LSTM(2, 3, batch_first=True).double()
    parametrize(module, name)
    plain = nn.LSTM(2, 3, batch_first=True).double()
    plain.load_state_dict({n: getattr(module, n) for n in weights(plain)})
    x, G = torch.randn(2, 4, 2).double(), torch.randn(2, 4, 3).double()
    for reduce in ("norm", "none"):
        found = rnngrad.weight_gradient_parts(module, x, G, reduce=reduce)
        expected = rnngrad.weight_gradient_parts(plain, x, G, reduce=reduce)
        assert list(found) == list(expected)
        for n, part in expected.items():
            assert (part != 0).any()
            np.testing.assert_array_equal(found[n], part)


@pytest.mark.parametrize("cell", CELLS)
def test_lengths(cell: str):
    """Every example seems cut; beyond its length a gradient may hold anything."""
    instance = make(Case(cell, layers=2, steps=12, batch=3))
    G, lengths = output_gradients(instance), [12, 5, 1]
    noise = G.clone()
    for e, length in enumerate(lengths):
        noise[e, length:] = torch.nan
    args = instance.module, instance.inputs, noise, instance.initial_state
    curves = rnngrad.loss_gradient_curves(*args, layer=0, lengths=lengths)
    parts = rnngrad.weight_gradient_parts(*args, lengths=lengths)
    logs = rnngrad.weight_gradient_parts(*args, lengths=lengths, reduce="log10_norm")
    for e, length in enumerate(lengths):
        own = instance.module, instance.inputs[:, :length], G[:, :length], instance.initial_state
        short = rnngrad.loss_gradient_curves(*own, layer=0)
        for name in ("log10_h", "log10_c") if cell == "lstm" else ("log10_h",):
            values = getattr(curves, name)[e]
            np.testing.assert_allclose(values[:length], getattr(short, name)[e], atol=1e-12)
            assert np.isnan(values[length:]).all()
        for name, expected in rnngrad.weight_gradient_parts(*own).items():
            np.testing.assert_allclose(parts[name][e, :length, :length], expected[e], rtol=1e-12)
            assert (parts[name][e, length:] == 0).all()
            assert (logs[name][e, length:] == -np.inf).all()


def by_step(module: nn.RNNBase, x: Tensor, G: Tensor, losses: list[int]) -> np.ndarray:
    """||dL_T/d bias_ih|| by step for some losses T of one example, with a bias per step."""
    own, zero = weights(module), torch.zeros(1, module.hidden_size, dtype=x.dtype)
    biases = [own["bias_ih_l0"].detach().clone().requires_grad_() for _ in range(x.shape[1])]
    cells: Any = {nn.LSTM: torch.lstm_cell, nn.GRU: torch.gru_cell, nn.RNN: torch.rnn_tanh_cell}
    cell: Any = cells[type(module)]
    if getattr(module, "nonlinearity", "") == "relu":
        cell = torch.rnn_relu_cell
    h, c, outputs = zero, zero, []
    for t, bias in enumerate(biases):
        args = own["weight_ih_l0"], own["weight_hh_l0"], bias, own["bias_hh_l0"]
        if isinstance(module, nn.LSTM):
            h, c = cell(x[:, t], (h, c), *args)
        else:
            h = cell(x[:, t], h, *args)
        outputs.append((h * G[:, t]).sum())
    found = np.zeros((len(losses), len(biases)))
    for row, T in zip(found, losses, strict=True):
        parts = torch.autograd.grad(outputs[T], biases[: T + 1], retain_graph=True)
        row[: T + 1] = [part.norm() for part in parts]
    return found


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("cell", CELLS)
def test_parts_of_losses_far_ahead(cell: str, radius: float):
    """Losses that vanish, stay or grow; some are zero."""
    kind, options = CELLS[cell]
    module = kind(3, 12, batch_first=True, **options).double()
    with torch.no_grad():
        for block in weights(module)["weight_hh_l0"].split(12):
            block.copy_(radius * nn.init.orthogonal_(torch.empty(12, 12)))
        weights(module)["weight_ih_l0"].mul_(0.3)
    x, G = torch.randn(1, 150, 3).double(), torch.randn(1, 150, 12).double()
    G[:, 40:-20:3] = 0
    losses = [40, 75, 130, 149]
    found = rnngrad.weight_gradient_parts(module, x, G)["bias_ih_l0"][0, losses]
    # 1 - tanh^2 and s (1 - s), which autograd takes, lose digits
    np.testing.assert_allclose(found, by_step(module, x, G, losses), rtol=1e-7)
    assert (found[0] == 0).all()


def test_parts_that_would_not_fit():
    module = nn.LSTM(3, 64)
    x, G = torch.randn(2000, 1, 3), torch.randn(2000, 1, 64)
    with pytest.raises(ValueError, match='use reduce="norm"'):
        rnngrad.weight_gradient_parts(module, x, G, reduce="none")
    with pytest.raises(ValueError, match="reduce='sum'"):
        rnngrad.weight_gradient_parts(module, x, G, reduce="sum")
    with pytest.raises(ValueError, match="output_gradients has"):
        rnngrad.weight_gradient_parts(module, x, G[:-1])


def test_a_layer_that_forgets_above_one_that_holds_on():
    """Layer 0 keeps its gradient, that of layer 1 falls by two decades a step: 0.01^(T - t)."""
    rnn, T = nn.RNN(1, 1, num_layers=2, batch_first=True), 400
    set_weights(rnn, **{n: float("weight" in n) + 0 * w for n, w in weights(rnn).items()})
    set_weights(rnn, weight_hh_l1=torch.full((1, 1), 0.01))
    G = torch.zeros(1, T, 1)
    G[0, -1] = 1
    exact = math.log10(weights(rnn)["weight_hh_l1"].item()) * np.arange(T - 1, -1, -1)
    for reduce in ("log10_norm", "curve"):
        found = rnngrad.weight_gradient_parts(rnn, torch.zeros(1, T, 1), G, reduce=reduce)
        last = found["bias_hh_l1"][0, -1] if reduce == "log10_norm" else found["bias_hh_l1"][0]
        np.testing.assert_allclose(last, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_curves_of_weights_and_gradients_of_final_states(cell: str):
    """A loss that looks at the last states of every layer too; examples end at different steps."""
    instance = make(Case(cell, layers=2, steps=8))
    module, x, lengths = instance.module, instance.inputs, [8, 5]
    G = output_gradients(instance)
    final: Any = tuple(s.flip(0) for s in (instance.h, instance.c))[: 1 + (cell == "lstm")]
    given = final if len(final) > 1 else final[0]
    args: Any = (module, x, G, instance.initial_state)
    options: Any = {"lengths": lengths, "final_state_gradient": given}
    curves = rnngrad.weight_gradient_parts(*args, reduce="curve", **options)
    parts = rnngrad.weight_gradient_parts(*args, reduce="none", **options)
    h0 = [s.clone().requires_grad_() for s in (instance.h, instance.c)[: len(final)]]
    loss = torch.zeros(())
    for e, length in enumerate(lengths):
        start: Any = tuple(s[:, e] for s in h0) if len(final) > 1 else h0[0][:, e]
        output, states = module(x[e, :length], start)
        states = states if len(final) > 1 else (states,)
        loss = loss + (output * G[e, :length]).sum()
        loss = loss + sum((s * g[:, e]).sum() for s, g in zip(states, final, strict=True))
    loss.backward()
    for name, weight in weights(module).items():
        whole = parts[name].sum(axis=1)
        assert weight.grad is not None
        np.testing.assert_allclose(whole.sum(axis=(0, 1)), weight.grad.numpy(), atol=1e-12)
        norms = np.linalg.norm(whole.reshape(2, 8, -1), axis=-1)
        for e, length in enumerate(lengths):
            np.testing.assert_allclose(10 ** curves[name][e, :length], norms[e, :length], 1e-9)
            assert np.isnan(curves[name][e, length:]).all()
    states = states_with_gradients(instance, G, final)
    for layer in (0, 1):
        found = rnngrad.loss_gradient_curves(*args, layer=layer, final_state_gradient=given)
        for k, values in enumerate((found.log10_h, found.log10_c)[: len(final)]):
            norms = torch.stack([s[k].grad.norm(dim=1) for s in states[layer]], dim=1)  # pyright: ignore[reportOptionalMemberAccess]
            np.testing.assert_allclose(10**values, norms.numpy(), rtol=1e-9)
