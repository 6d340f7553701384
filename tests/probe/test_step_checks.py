"""Steps that would give wrong curves without a word."""

import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import rnngrad
from rnngrad.errors import InputError

Step = Callable[[Any, Tensor], Any]


def batch(steps: int = 12, examples: int = 2, dtype: torch.dtype = torch.float64):
    """Inputs (b, t, 4), and a state (b, 4)."""
    torch.manual_seed(0)
    return torch.randn(examples, steps, 4, dtype=dtype), torch.randn(examples, 4, dtype=dtype) / 2


def cells(dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(1)
    return nn.Linear(4, 4, dtype=dtype), nn.Linear(4, 4, dtype=dtype)


def refusal(step: Any, x: Tensor, state: Any) -> str:
    with pytest.raises(InputError) as error:
        rnngrad.jacobian_curves_of_step(step, x, state)
    assert "\n" not in str(error.value)
    return str(error.value)


MASK = np.zeros((2, 40), dtype=bool)
MASK[:, [2, 5, 9, 15, 30, 33]] = True


# --- the order of the arguments


class Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = cells()

    def forward(self, x_t: Tensor, hidden: Tensor) -> Tensor:
        return torch.tanh(self.w(x_t) + self.u(hidden))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: nn.GRUCell(4, 4).double(), "input, hx"),
        (lambda: torch.compile(nn.GRUCell(4, 4).double(), backend="eager"), "input, hx"),
        (lambda: nn.GRUCell(4, 4).double().forward, "input, hx"),
        (lambda: nn.GRUCell(4, 4).double().__call__, "input, hx"),
        (lambda: partial(nn.GRUCell(4, 4).double()), "input, hx"),
        (lambda: nn.DataParallel(nn.GRUCell(4, 4).double()), "input, hx"),
        (Foreign, "x_t, hidden"),
        (lambda: torch.jit.script(Foreign()), "x_t, hidden"),
        (lambda: lambda x, h: x + h, "x, h"),
        (lambda: lambda obs, h_tm1: obs + h_tm1, "obs, h_tm1"),
        (lambda: lambda x_in, cx: x_in + cx, "x_in, cx"),
        (lambda: AveragedModel(nn.GRUCell(4, 4).double()), "input, hx"),
    ],
)
def test_arguments_in_the_other_order(make: Callable[[], Any], names: str):
    message = refusal(make(), *batch())
    assert f"step takes ({names}), not (state, x)" in message
    assert "lambda state, x: step(x, state)" in message


def test_arguments_in_the_right_order():
    w, u = cells()
    steps: list[Step] = [
        lambda x, control: torch.tanh(u(x) + w(control)),  # a system's state is often x
        lambda h, x: torch.tanh(u(h) + w(x)),
        lambda *both: torch.tanh(u(both[0]) + w(both[1])),
        lambda x_prev, s: torch.tanh(u(x_prev) + w(s)),
    ]
    found = [rnngrad.jacobian_curves_of_step(step, *batch()).log10_frobenius for step in steps]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


# --- its derivative


def warned(step: Step, x: Tensor, state: Any) -> str:
    """The text of the warning about the derivative, which names the caller's file, if any."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rnngrad.jacobian_curves_of_step(step, x, state)
    said = [w for w in caught if w.category is UserWarning]
    assert len(said) <= 1
    assert all(w.filename == __file__ for w in said)
    return str(said[0].message) if said else ""


@pytest.mark.parametrize("options", [{}, {"lengths": [5, 7]}, {"mask": MASK}])
def test_steps_at_which_a_state_is_kept_are_not_looked_at(options: Any):
    """The attention is cut off; it tells once the memory holds something, from step 2 on."""
    torch.manual_seed(0)
    U, x, slots = torch.randn(4, 4).double(), torch.randn(2, 40, 4).double(), torch.zeros(2, 5, 4)

    def step(state: Any, x: Tensor) -> Any:
        h, slots = state
        read = torch.softmax((slots * (h @ U)[:, None]).sum(dim=2), dim=1).detach()
        h = torch.tanh((read[..., None] * slots).sum(dim=1) + x)
        return h, torch.cat((slots[:, 1:], h[:, None]), dim=1)

    with pytest.warns(UserWarning, match=UNLIKE_RESULTS):
        rnngrad.jacobian_curves_of_step(step, x, (x[:, 0] * 0, slots.double()), **options)


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_where_the_state_says_which_slot_is_written(seed: int):
    torch.manual_seed(seed)
    U, K = 0.6 * torch.randn(2, 4, 4).double()
    start = torch.randn(1, 4), 0.1 * torch.randn(1, 16, 4), 0.1 * torch.randn(1, 16).abs()

    def step(state: Any, x: Tensor) -> Any:
        h, slots, used = state
        read = torch.softmax((slots * (h @ K)[:, None]).sum(dim=2), dim=1)
        h = torch.tanh(h @ U + (read[..., None] * slots).sum(dim=1) + x)
        least = nn.functional.one_hot(used.argmin(dim=1), 16)
        slots = torch.where(least[..., None] > 0, h.detach()[:, None], slots)
        return h, slots, 0.95 * used + read + least

    state = tuple(part.double() for part in start)
    assert warned(step, torch.randn(1, 20, 4).double(), state).startswith(UNLIKE_RESULTS)


UNLIKE_RESULTS = "the derivative of step is more than 1 % off a central difference"
UNLIKE_AUTOGRAD = "the derivative of step is more than 1 % off autograd's"

CELLS = {dtype: cells(dtype) for dtype in (torch.float32, torch.float64)}


def detached_gate(h: Tensor, v: Tensor) -> Tensor:
    w, u = CELLS[h.dtype]
    return torch.sigmoid(3 * u(h)).detach() * torch.tanh(w(v) + u(h))


def one_detached_unit(h: Tensor, v: Tensor) -> Tensor:
    """Others, a thousand times as large, do not hide it."""
    whole = detached_nowhere(h, v)
    return torch.cat([1000 * whole[:, :3], detached_gate(h, v)[:, 3:]], dim=1) / 1000


def detached_nowhere(h: Tensor, v: Tensor) -> Tensor:
    w, u = CELLS[h.dtype]
    return torch.sigmoid(3 * u(h)) * torch.tanh(w(v) + u(h))


@pytest.mark.parametrize("step", [detached_gate, one_detached_unit])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_detached_gate(step: Step, dtype: torch.dtype):
    message = warned(step, *batch(dtype=dtype))
    assert UNLIKE_RESULTS in message
    assert ".detach()" in message
    assert "TorchScript with weights that require grad" in message


@pytest.mark.parametrize("where", [0, 10, 20])
def test_a_gate_that_is_detached_at_the_first_the_middle_or_the_last_step(where: int):
    x, state = batch(steps=21)
    x[:, :, 0] = 0
    x[:, where, 0] = 1

    def step(h: Tensor, v: Tensor) -> Tensor:
        return torch.where(v[:, :1] > 0, detached_gate(h, v), detached_nowhere(h, v))

    assert f"at step {where + 1}:" in warned(step, x, state)


def test_no_grad_inside_a_step():
    w, u = cells()
    gradless = u.weight.detach().clone()

    def gate_only(h: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            gate = torch.sigmoid(3 * u(h))
        return gate * torch.tanh(w(v) + u(h))

    def all_of_the_state(h: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            kept = 0.9 * h
        return kept + torch.tanh(w(v))

    def weights_without(h: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            gate = torch.sigmoid(h @ gradless)
        return gate * h

    for step in (gate_only, all_of_the_state, weights_without):
        message = warned(step, *batch())
        assert UNLIKE_AUTOGRAD in message
        assert "write .detach() in its place" in message
    # with it, they are autograd's numbers
    x, state = batch(steps=5, examples=1)
    assert "detach" in warned(detached_gate, x, state)
    J = torch.autograd.functional.jacobian(lambda h: last(detached_gate, h, x), state)
    assert isinstance(J, Tensor)
    with pytest.warns(UserWarning, match="central difference"):
        found = rnngrad.jacobian_curves_of_step(detached_gate, x, state).log10_frobenius[0, -1]
    assert found == pytest.approx(float(J.norm().log10()), abs=1e-9)


def last(step: Step, h: Tensor, x: Tensor) -> Tensor:
    for t in range(x.shape[1]):
        h = step(h, x[:, t])
    return h


def test_a_step_that_is_all_under_no_grad_has_its_derivative():
    assert not warned(torch.no_grad()(detached_nowhere), *batch())


def float32_steps() -> dict[str, Step]:
    torch.manual_seed(2)
    lstm, gru, relu = nn.LSTMCell(4, 4), nn.GRUCell(4, 4), nn.RNNCell(4, 4, nonlinearity="relu")
    large = nn.GRUCell(4, 4)
    norm = nn.LayerNorm(4)
    with torch.no_grad():
        for p in large.parameters():
            p.mul_(40)
    return {
        "lstm": lambda s, v: lstm(v, s),
        "gru": lambda s, v: gru(v, s[0]).unsqueeze(0).expand(2, -1, -1).unbind(),
        "relu": lambda s, v: (relu(v, s[0]), s[1]),
        "saturated": lambda s, v: (large(v, s[0]), large(v, s[1])),
        "normalised": lambda s, v: (norm(gru(v, s[0])), s[1]),
        "rounded": lambda s, v: (s[0].round() / 2, gru(v, s[1])),
    }


# from far away a stair of many steps is a slope
@pytest.mark.parametrize(
    ("name", "scale"),
    [(n, s) for n in float32_steps() for s in (0.0, 1.0, 1e4) if (n, s) != ("rounded", 1e4)],
)
def test_right_derivatives_bring_no_warning(name: str, scale: float):
    """Large states, saturated gates, bends and jumps, in float32."""
    x, state = batch(steps=6, examples=20, dtype=torch.float32)
    assert not warned(float32_steps()[name], x, (scale * state, -scale * state))


def test_a_bend_at_the_state_brings_no_warning():
    x, state = batch()
    u = cells()[1]
    u.bias.data.zero_()
    for function in (torch.relu, torch.abs, lambda h: h.clamp(0, 1)):
        assert not warned(lambda h, v, f=function: f(u(h)), x, 0 * state)


# --- its memory


class Counting(nn.Module):
    """Another leak from a step on, by its own count of its calls."""

    def __init__(self, late: Callable[[int], bool]) -> None:
        super().__init__()
        self.calls, self.late = 0, late
        self.w, self.u = cells()

    def forward(self, h: Tensor, v: Tensor) -> Tensor:
        leak = 0.9 if self.late(self.calls) else 0.2
        self.calls += 1
        return leak * h + (1 - leak) * torch.tanh(self.w(v) + self.u(h))


# that divide the number of steps, or of calls, or come next to it; and some that do not
WHEN = (2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 24, 25, 49)
PERIODS = {f"period {p}": (lambda n, p=p: n % p == 0) for p in WHEN}


@pytest.mark.parametrize(
    "late",
    [lambda n: n >= 10, lambda n: n >= 1, lambda n: n >= 30, lambda n: n == 5, *PERIODS.values()],
    ids=["from 10", "from 1", "from 30", "once", *PERIODS],
)
def test_a_step_that_counts_its_calls(late: Callable[[int], bool]):
    for steps in (12, 24):
        message = refusal(Counting(late), *batch(steps=steps))
        assert message.startswith("step has a memory of its own (a counter, a cache), or is random")


def test_a_random_draw_now_and_then():
    w, u = cells()
    draw = random.Random(0)

    def step(h: Tensor, v: Tensor) -> Tensor:
        return h if draw.random() < 0.2 else torch.tanh(w(v) + u(h))

    assert "or is random" in refusal(step, *batch(steps=24))


def test_a_chaotic_step_has_no_memory():
    """Rounding would grow to the size of the state if two runs were compared."""
    g = torch.randn(20, 20).double() * 4 / 20**0.5
    step: Step = lambda h, v: torch.tanh(h @ g) + 0 * v[:, :1]  # noqa: E731
    found = rnngrad.jacobian_curves_of_step(
        step, torch.zeros(2, 300, 1).double(), torch.randn(2, 20).double(), statistics="frobenius"
    )
    assert found.log10_frobenius[:, -1].min() > 16


def test_what_is_written_in_place_is_not_the_callers():
    x, state = batch()
    before = x.clone(), state.clone()

    def on_inputs(h: Tensor, v: Tensor) -> Tensor:
        return h + v.mul_(2)

    assert "changes its arguments in place" in refusal(on_inputs, x, state)
    assert "changes its arguments in place" in refusal(lambda h, v: h.add_(v), x, state)
    calls = iter(range(10**6))

    def late(h: Tensor, v: Tensor) -> Tensor:
        return h + (v.add_(1) if next(calls) >= 2 * x.shape[1] else v)

    assert "step cannot go through" in refusal(late, x, state)
    assert torch.equal(x, before[0])
    assert torch.equal(state, before[1])


# --- examples that mix


@pytest.mark.parametrize("pair", [(0, 1), (0, 6), (3, 2), (5, 4), (2, 5)])
def test_a_pair_that_mixes_at_one_step(pair: tuple[int, int]):
    x, state = batch(steps=9, examples=7)
    x[:, :, 0] = 0
    x[:, 5, 0] = 1
    w, u = cells()
    to, other = pair

    def step(h: Tensor, v: Tensor) -> Tensor:
        lent = torch.zeros_like(h)
        if len(h) == 7:
            lent = torch.stack([h[other] if b == to else lent[b] for b in range(7)])
        return torch.tanh(w(v) + u(h)) + 1e-6 * v[:, :1] * lent

    message = refusal(step, x, state)
    assert f"step mixes examples: at step 6 the state of example {to} depends" in message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_examples_of_very_different_size_do_not_mix(dtype: torch.dtype):
    """Rounding between examples of very different size is not refused as mixing."""
    x, state = batch(examples=3, dtype=dtype)
    size = torch.tensor([[1.0], [1e-9], [1e-18]], dtype=dtype)
    w = cells(dtype)[1]

    x[:, :, 0] = size
    rnngrad.jacobian_curves_of_step(lambda h, v: w(h) * v[:, :1], x, state)


# --- states of several dtypes, and states that must stay valid


@pytest.mark.parametrize("valid", [1.0, 3.0])
def test_a_wrong_derivative_is_told_though_states_beside_are_not_valid(valid: float):
    x, state = torch.zeros(1, 1, 4).double(), torch.full((1, 4), 0.9).double()

    def step(s: Tensor, v: Tensor) -> Tensor:
        return torch.sqrt(valid**2 - s * s) / 2 + 0.3 * s.detach()

    assert warned(step, x, state).startswith(UNLIKE_RESULTS)


def test_a_state_of_mixed_dtype():
    x, h = batch()
    w, u = cells()

    def step(state: dict[str, Tensor], v: Tensor) -> dict[str, Tensor]:
        mean = 0.9 * state["mean"] + 0.1 * state["h"].float()
        return {"h": torch.tanh(u(state["h"]) + w(v) + mean.double()), "mean": mean}

    def in_float64(state: Tensor, v: Tensor) -> Tensor:
        h, mean = state.chunk(2, dim=1)
        mean = 0.9 * mean + 0.1 * h
        return torch.cat((torch.tanh(u(h) + w(v) + mean), mean), dim=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = rnngrad.jacobian_curves_of_step(step, x, {"h": h, "mean": torch.zeros(2, 4)})
    both = torch.cat((h, torch.zeros_like(h)), dim=1)
    expected = rnngrad.jacobian_curves_of_step(in_float64, x, both)
    np.testing.assert_allclose(found.log10_frobenius, expected.log10_frobenius, atol=1e-5)
    assert "a state of torch.float64, torch.float64 for one of torch.float64, torch.float32" in (
        refusal(lambda s, v: {k: part.double() for k, part in step(s, v).items()}, x,
                {"h": h, "mean": torch.zeros(2, 4)})
    )  # fmt: skip


def test_a_state_that_must_stay_valid():
    """Variances have a Cholesky factor, and those that are shifted below zero have none."""
    x, _ = batch(examples=1)
    w, _ = cells()

    def step(variances: Tensor, v: Tensor) -> Tensor:
        L = torch.linalg.cholesky(torch.diag_embed(variances))
        return (torch.sigmoid(w(v))[:, :, None] * L).square().sum(dim=2)

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = rnngrad.jacobian_curves_of_step(step, x, torch.full((1, 4), 1e-8).double())
    log_gains = 2 * torch.sigmoid(w(x[0])).detach().log().cumsum(dim=0)
    expected = torch.logsumexp(2 * log_gains, dim=1) / (2 * np.log(10))
    np.testing.assert_allclose(found.log10_frobenius[0], expected, atol=1e-9)
