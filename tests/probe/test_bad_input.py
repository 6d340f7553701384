"""Every bad input is one clear line."""

from collections.abc import Callable

import pytest
import torch
from broken_modules import (
    OwnForward,
    X,
    gru,
    hooked,
    keras_layer,
    lstm,
    quantised,
    with_nan,
    with_weight,
    x_with_nan,
)
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import rnngrad
from rnngrad.errors import InputError

INPUT_ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "a hook that makes the weights": (
        lambda: rnngrad.jacobian_curves(hooked(), X),
        "the module has a forward_pre_hook, which may change its weights or inputs: take it away",
    ),
    "weight of another shape": (
        lambda: rnngrad.diagnose(with_weight("weight_hh_l1", torch.zeros(12, 5)), X),
        "weight_hh_l1 has shape (12, 5), expected (12, 4)",
    ),
    "step of another shape": (
        lambda: rnngrad.jacobian_curves_of_step(lambda s, x: s + torch.ones(2, 4), X, X[:, 0, :1]),
        "step returns a state of another structure, order or shape than it was given: (2, 4), "
        "not (2, 1)",
    ),
    "step without a result": (
        lambda: rnngrad.jacobian_curves_of_step(lambda s, x: None, X, X[:, 0]),
        "than it was given: <class 'NoneType'>, not (2, 3)",
    ),
    "step that is not a number": (
        lambda: rnngrad.jacobian_curves_of_step(lambda s, x: s * torch.nan, X, X[:, 0]),
        "step returns NaN or inf, in the state or its derivative, at step 1",
    ),
    "step without inputs": (
        lambda: rnngrad.jacobian_curves_of_step(lambda s, x: s, X[:, :0], X[:, 0]),
        "inputs (2, 0, 3): expected (batch, time, ...), not empty",
    ),
    "module as a step": (
        lambda: rnngrad.jacobian_curves_of_step(gru(), X, X[:, 0]),
        "step is a module that takes all steps: use rnngrad.jacobian_curves",
    ),
    "model as a step": (
        lambda: rnngrad.jacobian_curves_of_step(nn.Sequential(nn.Linear(3, 3), gru()), X, X[:, 0]),
        "step takes (state, x), this model input alone: it has .1: pass that, or use",
    ),
    "step in place": (
        lambda: rnngrad.jacobian_curves_of_step(lambda s, x: s.mul_(0.5), X, torch.ones(2, 4)),
        "step changes its arguments in place: let it make new tensors",
    ),
    "feature size": (
        lambda: rnngrad.jacobian_curves(lstm(), torch.zeros(2, 5, 4)),
        "inputs have 4 features, the module expects 3",
    ),
    "dimensions": (
        lambda: rnngrad.jacobian_curves(lstm(), torch.zeros(5)),
        "inputs has 1 dimensions; expected (batch, time, features)",
    ),
    "empty batch": (
        lambda: rnngrad.jacobian_curves(lstm(), torch.zeros(0, 5, 3)),
        "hold no example or no step",
    ),
    "state shape": (
        lambda: rnngrad.jacobian_curves(gru(), X, torch.zeros(1, 3, 4)),
        "h_0 has shape (1, 3, 4), expected (1, 2, 4)",
    ),
    "cell state shape": (
        lambda: rnngrad.jacobian_curves(lstm(), X, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 5))),
        "c_0 has shape (1, 2, 5), expected (1, 2, 4)",
    ),
    "NaN input": (
        lambda: rnngrad.jacobian_curves(lstm(), x_with_nan()),
        "inputs contains nan at example 1, step 3, feature 2",
    ),
    "NaN weight": (
        lambda: rnngrad.diagnose(with_nan(lstm(num_layers=2), "weight_hh_l1"), X),
        "weight_hh_l1 contains nan at row 2, column 1",
    ),
    "NaN state": (
        lambda: rnngrad.jacobian_curves(gru(), X, torch.full((1, 2, 4), float("nan"))),
        "h_0 contains nan at layer 0, example 0, unit 0",
    ),
    "cell state of a GRU": (
        lambda: rnngrad.jacobian_curves(gru(), X, state="c"),
        'state="c": the GRU has no cell state; use state="h"',
    ),
    "unknown state": (lambda: rnngrad.jacobian_curves(gru(), X, state="x"), "state='x': use"),
    "unknown layer": (
        lambda: rnngrad.jacobian_curves(gru(), X, layer=1),
        "layer=1: the module has 1 layer(s)",
    ),
    "unknown statistic": (
        lambda: rnngrad.jacobian_curves(gru(), X, statistics=("norm",)),
        "use some of frobenius, column_sum, spectral",
    ),
    "no statistic": (lambda: rnngrad.jacobian_curves(gru(), X, statistics=()), "use some of"),
    "zero length": (
        lambda: rnngrad.jacobian_curves(gru(), X, lengths=[5, 0]),
        "lengths[1] = 0: must lie in 1..5",
    ),
    "length beyond": (
        lambda: rnngrad.jacobian_curves(gru(), X, lengths=[6, 5]),
        "lengths[0] = 6: must lie in 1..5",
    ),
    "number of lengths": (
        lambda: rnngrad.jacobian_curves(gru(), X, lengths=[5]),
        "lengths has shape (1,), expected (2,)",
    ),
    "spectral steps": (
        lambda: rnngrad.jacobian_curves(gru(), X, spectral_steps=[0]),
        "spectral_steps must lie in 1..5",
    ),
    "unknown verdict": (
        lambda: rnngrad.diagnose(gru(), X).first_steps("Decayed"),
        "use one of structural, saturated, underflow, decayed, exploding, alive",
    ),
    "norms beyond all memory": (
        lambda: rnngrad.weight_gradient_parts(
            gru(),
            torch.zeros(1, 2**22, 3),
            torch.zeros(1, 2**22, 4),  # beyond 47 bits of address
        ),
        "pass fewer examples or steps at a time",
    ),
    "a Jacobian beyond all memory": (
        lambda: rnngrad.jacobian_curves_of_step(
            lambda s, x: 0.5 * s + x, torch.zeros(1, 2, 1), torch.zeros(1, 10**7)
        ),
        'use method="sketch"',
    ),
    "steps beyond all memory": (
        lambda: rnngrad.jacobian_curves(gru(), torch.zeros(1, 1, 3).expand(-1, 10**10, -1)),
        "curves of all steps need about 320 GB of memory",
    ),
    "states of examples beyond all memory": (
        lambda: rnngrad.jacobian_curves(nn.LSTM(4, 2000), torch.zeros(1).expand(3, 2 * 10**6, 4)),
        "initial states need about 320 GB of memory",
    ),
    "a copy of masked inputs beyond all memory": (
        lambda: rnngrad.jacobian_curves(
            nn.RNN(1000, 8), torch.zeros(1).expand(1000, 10**5, 1000), lengths=[999] * 10**5
        ),
        "copies of inputs need about 800 GB of memory",
    ),
    "a loss's gradient beyond all memory": (
        lambda: rnngrad.loss_gradient_curves(
            nn.RNN(1, 300),
            torch.zeros(1).expand(10**5, 10**3, 1),
            torch.zeros(1).expand(10**5, 10**3, 300),
        ),
        "copies of output_gradient need about 480 GB of memory",
    ),
    "a trajectory's inputs beyond all memory": (
        lambda: rnngrad.trajectory(nn.RNN(10**5, 2), torch.zeros(1).expand(1000, 1000, 10**5)),
        "the trajectory needs about 800 GB of memory",
    ),
    "a step's state beyond all memory": (
        lambda: rnngrad.jacobian_curves_of_step(
            lambda s, x: s, torch.zeros(1, 5, 1), torch.zeros(1).expand(1, 10**10)
        ),
        "states and inputs need about 720 GB of memory",
    ),
    "a sketch of a statistic that it lacks": (
        lambda: rnngrad.jacobian_curves(
            nn.LSTM(3, 4), X, state="c", method="sketch", statistics=("frobenius", "hidden_path")
        ),
        'method="sketch" estimates "frobenius" only',
    ),
    "a sketch of a batch beyond all memory": (
        lambda: rnngrad.jacobian_curves(
            nn.RNN(1, 50), torch.zeros(1, 10**5, 1), method="sketch", directions=10_000
        ),
        "use fewer directions, or fewer examples",
    ),
    "bidirectional": (
        lambda: rnngrad.jacobian_curves(lstm(bidirectional=True), X),
        "a bidirectional module is two networks: use rnngrad.gradient_reach",
    ),
    "projection": (
        lambda: rnngrad.jacobian_curves(lstm(proj_size=2), X),
        "use rnngrad.gradient_reach",
    ),
    "dropout": (
        lambda: rnngrad.jacobian_curves(lstm(num_layers=2, dropout=0.5), X),
        "call module.eval() first",
    ),
    "output gradient": (
        lambda: rnngrad.loss_gradient_curves(lstm(), X, torch.zeros(2, 5, 3)),
        "output_gradient has shape (2, 5, 3), expected (2, 5, 4) (batch, time, hidden), like",
    ),
    "NaN output gradient": (
        lambda: rnngrad.loss_gradient_curves(lstm(), X, torch.full((2, 5, 4), float("nan"))),
        "output_gradient contains nan at example 0, step 0, unit 0",
    ),
}

TYPE_ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "steps that are no integers": (
        lambda: rnngrad.jacobian_curves(gru(), X, spectral_steps="ab"),
        "spectral_steps must be a sequence of integers",
    ),
    "integer inputs": (
        lambda: rnngrad.jacobian_curves(lstm(), X.long()),
        "inputs must be floating point of 16 bits or more, got torch.int64: embed or convert it",
    ),
    "array": (
        lambda: rnngrad.jacobian_curves(lstm(), X.numpy()),  # pyright: ignore[reportArgumentType]
        "inputs must be a torch tensor, got ndarray",
    ),
    "another module": (
        lambda: rnngrad.jacobian_curves(nn.LSTMCell(3, 4), X),
        "for a step function use rnngrad.jacobian_curves_of_step",
    ),
    "model with a module inside": (
        lambda: rnngrad.diagnose(nn.ModuleDict({"encoder": nn.ModuleDict({"lstm": lstm()})}), X),
        "it has .encoder.lstm: pass that, or use rnngrad.gradient_reach",
    ),
    "DataParallel": (
        lambda: rnngrad.jacobian_curves(nn.DataParallel(lstm()), X),
        "module is a torch.nn.parallel.data_parallel.DataParallel, not nn.RNN, nn.LSTM or nn.GRU; "
        "it has .module: pass that",
    ),
    "a class": (
        lambda: rnngrad.jacobian_curves(nn.LSTM, X),  # pyright: ignore[reportArgumentType]
        "module is the class torch.nn.modules.rnn.LSTM: hand over one made of it",
    ),
    "quantised": (
        lambda: rnngrad.jacobian_curves(quantised(), X),
        "module is a torch.ao.nn.quantized.dynamic.modules.rnn.LSTM, not nn.RNN, nn.LSTM or "
        "nn.GRU; pass the module that it was quantised or scripted from",
    ),
    "quantised inside": (
        lambda: rnngrad.jacobian_curves(nn.Sequential(quantised()), X),  # pyright: ignore[reportArgumentType]
        "nn.GRU; pass the module that .0, a torch.ao.nn.quantized.dynamic.modules.rnn.LSTM, was",
    ),
    "layer of Keras": (
        lambda: rnngrad.jacobian_curves(keras_layer(), X),
        "module is a keras.src.layers.rnn.lstm.LSTM, not nn.RNN, nn.LSTM or nn.GRU; "
        "rnngrad.from_keras makes one",
    ),
    "complex inputs": (
        lambda: rnngrad.jacobian_curves(lstm(), X.to(torch.complex64)),
        "got torch.complex64: pass torch.view_as_real",
    ),
    "packed": (
        lambda: rnngrad.jacobian_curves(lstm(), pack_padded_sequence(X, [5, 5], batch_first=True)),  # pyright: ignore[reportArgumentType]
        "pad_packed_sequence and pass lengths=",
    ),
    "tensor for an LSTM": (
        lambda: rnngrad.jacobian_curves(lstm(), X, torch.zeros(1, 2, 4)),
        "initial_state of a LSTM is a pair (h_0, c_0)",
    ),
    "pair for a GRU": (
        lambda: rnngrad.jacobian_curves(gru(), X, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))),
        "initial_state of a GRU is one tensor h_0",
    ),
    "lengths": (
        lambda: rnngrad.jacobian_curves(gru(), X, lengths=torch.tensor([5.0, 5.0])),
        "lengths must be integers",
    ),
    "lengths that are no numbers": (
        lambda: rnngrad.jacobian_curves(gru(), X, lengths=["a", "b"]),  # pyright: ignore[reportArgumentType]
        "lengths must be integers up to 64 bits, one per example",
    ),
    "a tensor for results": (
        lambda: rnngrad.compare(X),  # pyright: ignore[reportArgumentType]
        "results must be a dict from names",
    ),
    "own forward": (
        lambda: rnngrad.jacobian_curves(OwnForward(3, 4), X),
        "OwnForward has a forward of its own",
    ),
    "sparse": (
        lambda: rnngrad.jacobian_curves(gru(), X.to_sparse()),
        "inputs is a nested or sparse tensor: make it dense",
    ),
    "eight bits": (
        lambda: rnngrad.jacobian_curves(gru(), X.to(torch.float8_e4m3fn)),
        "inputs must be floating point of 16 bits or more, got torch.float8_e4m3fn",
    ),
}


@pytest.mark.parametrize("name", INPUT_ERRORS)
def test_input_errors(name: str):
    call, message = INPUT_ERRORS[name]
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", TYPE_ERRORS)
def test_type_errors(name: str):
    call, message = TYPE_ERRORS[name]
    with pytest.raises(TypeError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_dropout_is_fine_in_eval_mode_and_in_one_layer():
    rnngrad.jacobian_curves(lstm(num_layers=2, dropout=0.5).eval(), X)


def test_half_precision_modules_are_computed_in_float64():
    module = gru().bfloat16()
    exact = gru().double()
    exact.load_state_dict(module.state_dict())
    found = rnngrad.jacobian_curves(module, X.bfloat16()).log10_frobenius
    assert (found == rnngrad.jacobian_curves(exact, X.double()).log10_frobenius).all()
