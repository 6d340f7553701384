"""Whole models: hooks record what the functions find by hand, and nothing is left behind."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import rnngrad
from whole_models import BATCH, STEPS, Reader, close, everything, tokens

KINDS: dict[str, Callable[..., Any]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}

LENGTHS = [9, 4, 7]


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_what_the_functions_find_by_hand(kind: str):
    module = KINDS[kind](3, 4, num_layers=2, batch_first=True).double()
    model, words = Reader(module).double(), tokens()
    reach = rnngrad.gradient_reach(model, words)
    x, state = model.embedding(words), "c" if kind == "lstm" else "h"
    assert list(reach.layers) == ["encoder.core.0", "encoder.core.1"]
    for index, layer in enumerate(reach.layers.values()):
        curves = rnngrad.jacobian_curves(module, x, layer=index, state=state)
        for name in ("log10_frobenius", "log10_column_sum"):
            found, expected = getattr(layer.curves, name), getattr(curves, name)
            np.testing.assert_allclose(found, expected, atol=1e-6)
        verdicts = rnngrad.diagnose(module, x, layer=index, state=state).verdict
        assert (layer.diagnosis.verdict == verdicts).all()
        assert layer.loss_gradients is None
        assert layer.weight_gradients == {}


def unrolled(
    module: Any, x: Tensor, state: list[Tensor], length: int, log: dict[str, list[list[Tensor]]]
) -> tuple[Tensor, list[Tensor]]:
    """One example (t, d) through torch's equations, with a copy of each weight at each step."""
    tails = ("", "_reverse") if module.bidirectional else ("",)
    finals: list[list[Tensor]] = []
    for layer in range(module.num_layers):
        outputs = []
        for way, tail in enumerate(tails):
            suffix = f"_l{layer}{tail}"
            names = [n for n in dict(module.named_parameters()) if n.endswith(suffix)]
            s = [part[layer * len(tails) + way] for part in state]
            rows = log.setdefault(suffix, [])
            found: dict[int, Tensor] = {}
            for t in range(length)[:: -1 if tail else 1]:
                copies = [getattr(module, n).detach().clone().requires_grad_() for n in names]
                w = {n.removesuffix(suffix): c for n, c in zip(names, copies, strict=True)}
                s = list(step(module, w, x[t], s))
                for part in s:
                    part.retain_grad()
                rows.append([*s, *copies])
                if module.proj_size:
                    s = [w["weight_hr"] @ s[0], s[1]]
                found[t] = s[0]
            outputs.append(torch.stack([found[t] for t in range(length)]))
            finals.append(s)
        x = torch.cat(outputs, dim=-1)
    return x, [torch.stack(parts) for parts in zip(*finals, strict=True)]


def step(module: Any, w: dict[str, Tensor], x: Tensor, s: list[Tensor]) -> tuple[Tensor, ...]:
    a, b = w["weight_ih"] @ x, w["weight_hh"] @ s[0]
    a, b = a + w.get("bias_ih", 0), b + w.get("bias_hh", 0)
    if isinstance(module, nn.LSTM):
        i, f, g, o = (a + b).chunk(4)
        c = f.sigmoid() * s[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if isinstance(module, nn.GRU):
        (r, z, n), (r_h, z_h, n_h) = a.chunk(3), b.chunk(3)
        r, z = (r + r_h).sigmoid(), (z + z_h).sigmoid()
        return ((1 - z) * (n + r * n_h).tanh() + z * s[0],)
    return ((a + b).relu() if module.nonlinearity == "relu" else (a + b).tanh(),)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rnn", {"nonlinearity": "relu", "bias": False}),
        ("gru", {"num_layers": 2, "bidirectional": True}),
        ("lstm", {"num_layers": 2}),
        ("lstm", {"num_layers": 2, "bidirectional": True}),
        ("lstm", {"num_layers": 2, "bidirectional": True, "proj_size": 2, "bias": False}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_losses_are_what_autograd_finds_step_by_step(kind: str, options: Any, packed: bool):
    module = KINDS[kind](3, 4, batch_first=True, **options).double()
    rows = module.num_layers * (2 if module.bidirectional else 1)
    sizes = [module.proj_size or 4, 4][: 1 + (kind == "lstm")]
    state = [torch.randn(rows, BATCH, n).double() for n in sizes]
    x = torch.randn(BATCH, STEPS, 3).double()
    lengths = LENGTHS if packed else [STEPS] * BATCH
    given: Any = x
    if packed:
        given = pack_padded_sequence(x, torch.tensor(LENGTHS), True, enforce_sorted=False)
    hx = tuple(state) if kind == "lstm" else state[0]
    reach = rnngrad.gradient_reach(module, given, hx, loss=everything)
    assert len(reach.layers) == rows
    assert "learning" in str(reach)
    assert ("weight_hr" in reach.title) == (module.proj_size > 0)
    for b, length in enumerate(lengths):
        log: dict[str, list[list[Tensor]]] = {}
        h, finals = unrolled(module, x[b], [s[:, b] for s in state], length, log)
        # what is padded is zero in a packed output, and has no gradient
        everything((h, tuple(finals))).backward()
        for layer, (suffix, steps) in zip(reach.layers.values(), log.items(), strict=True):
            assert layer.loss_gradients is not None
            curves = [layer.loss_gradients.log10_h, layer.loss_gradients.log10_c][: len(state)]
            # with a projection h is what it reads, and nothing is known of weight_hr
            names = [n for n in dict(module.named_parameters()) if n.endswith(suffix)]
            names = [n for n in names if "weight_hr" not in n]
            curves = [*curves, *(layer.weight_gradients[n] for n in names)]
            for t, tensors in enumerate(steps):
                shown = tensors[: len(curves)]
                expected = [torch.zeros(1) if v.grad is None else v.grad for v in shown]
                norms = [v.norm().item() for v in expected]
                np.testing.assert_allclose([10 ** c[b, t] for c in curves], norms, rtol=1e-9)
            assert all(np.isnan(c[b, length:]).all() for c in curves)


class StepByStep(nn.Module):
    """Calls its module once for every step, and reads the last states of each call."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core

    def forward(self, x: Tensor) -> Tensor:
        state, found = None, []
        for x_t in x.split(1, dim=1):
            _, state = self.core(x_t, state)
            found.append(state[0][-1])
            state = tuple(map(self.between, state))
        return torch.stack(found, dim=1)

    def between(self, state: Tensor) -> Tensor:
        return state


class Squeezes(StepByStep):
    """Hands a view of the states on, as decoders do that keep (batch, units)."""

    def between(self, state: Tensor) -> Tensor:
        return state.flatten(0, 1).contiguous().view(state.shape)


class Turned(torch.autograd.Function):
    """Gives a view, and turns what a loss sends there."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return -0.5 * gradient


class Turns(StepByStep):
    def between(self, state: Tensor) -> Tensor:
        return cast("Any", Turned.apply(state)).squeeze(0).view(state.shape)


class Hooks(StepByStep):
    def between(self, state: Tensor) -> Tensor:
        state = state.squeeze(0)
        if state.requires_grad:
            state.register_hook(lambda gradient: gradient.clamp(-100, 100))
        return state[None]


class Looks(StepByStep):
    """Has hooks that change nothing."""

    def between(self, state: Tensor) -> Tensor:
        if state.requires_grad:
            state.register_hook(lambda gradient: None)
        return state


class Cuts(StepByStep):
    """Cuts the way of gradients, and says that the state needs one."""

    def between(self, state: Tensor) -> Tensor:
        with torch.no_grad():
            state = state.squeeze(0)
        return state.requires_grad_(torch.is_grad_enabled())[None]


@pytest.mark.parametrize("kind", [StepByStep, Squeezes, Looks])
def test_calls_that_go_on_from_one_another_are_one_sequence(kind: type[StepByStep]):
    core, x = nn.LSTM(3, 4, num_layers=2, batch_first=True).double(), torch.randn(2, 6, 3).double()
    stepwise = rnngrad.gradient_reach(kind(core), x, loss=lambda h: h.square().sum())
    whole = rnngrad.gradient_reach(core, x, loss=lambda output: output[0].square().sum())
    assert list(stepwise.layers) == ["core.0", "core.1"]
    close(stepwise, whole)
    without = rnngrad.gradient_reach(kind(core), x)
    assert list(without.layers) == ["core.0", "core.1"]


@pytest.mark.parametrize("kind", [Turns, Hooks, Cuts])
def test_what_changes_gradients_between_two_calls_divides_them(kind: type[StepByStep]):
    model, x = kind(nn.LSTM(3, 4, batch_first=True)), torch.randn(2, 3, 3)
    reach = rnngrad.gradient_reach(model, x, loss=lambda h: h[:, -1].sum())
    assert list(reach.layers) == ["core", "core (call 2)", "core (call 3)"]


def test_of_a_loss_that_looks_at_c_between_two_calls_nothing_is_told():
    class Peeks(StepByStep):
        def __init__(self, core: nn.Module) -> None:
            super().__init__(core)
            self.first = nn.GRU(3, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)[0]
            _, state = self.core(x[:, :1])
            return self.core(x[:, 1:], state)[0].sum() + state[1].sum()

    model = Peeks(nn.LSTM(3, 4, batch_first=True))
    reach = rnngrad.gradient_reach(model, torch.randn(2, 6, 3), loss=lambda total: total)
    assert reach.title.endswith("the loss makes of .core, whose c it reaches between two calls")
    assert reach.layers["core"].loss_gradients is None
    assert np.isfinite(reach.layers["core"].curves.log10_frobenius).all()
    *_, first, core = str(reach).splitlines()
    assert len(first) > len(core)  # the other layer's columns are there
    states, losses, _ = cast("Any", reach.plot())
    assert len(losses.lines) < len(states.lines)


def test_states_that_the_model_wrote_to_begin_another_sequence():
    class Resets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            _, h = self.core(x)
            return self.core(x, h.mul_(0.5))[0].mul_(10)

    model, x = Resets().double(), torch.randn(2, 6, 3).double()
    reach = rnngrad.gradient_reach(model, x, loss=lambda h: h.sum())
    assert list(reach.layers) == ["core", "core (call 2)"]
    start, second = model.core(x)[1].detach() / 2, reach.layers["core (call 2)"]
    torch.testing.assert_close(second.initial_state, start)
    alone = rnngrad.gradient_reach(model.core, x, start, loss=lambda output: 10 * output[0].sum())
    np.testing.assert_allclose(second.learned_at, alone.layers["gru"].learned_at, atol=1e-9)


def test_two_modules_in_sequence_see_what_the_upper_one_sends_down():
    class Both(nn.Module):
        def __init__(self, stack: nn.LSTM) -> None:
            super().__init__()
            self.lower, self.upper = (nn.LSTM(3, 3, batch_first=True).double() for _ in range(2))
            for layer, module in enumerate((self.lower, self.upper)):
                for name, weight in module.named_parameters():
                    weight.data.copy_(getattr(stack, name.replace("l0", f"l{layer}")))

        def forward(self, x: Tensor) -> Tensor:
            return self.upper(self.lower(x)[0])[0]

    stack = nn.LSTM(3, 3, num_layers=2, batch_first=True).double()
    x = torch.randn(2, 20, 3).double()
    apart = rnngrad.gradient_reach(Both(stack), x, loss=lambda h: h[:, -1].sum())
    together = rnngrad.gradient_reach(stack, x, loss=lambda output: output[0][:, -1].sum())
    assert list(apart.layers) == ["lower", "upper"]
    close(apart, together)


def test_a_directions_steps_count_in_its_reading_order():
    module = nn.GRU(3, 4, bidirectional=True, batch_first=True).double()
    x = torch.randn(1, 6, 3).double()
    backward = rnngrad.gradient_reach(module, x).layers["gru.backward"]
    plain = nn.GRU(3, 4, batch_first=True).double()
    for name, weight in plain.named_parameters():
        weight.data.copy_(getattr(module, f"{name}_reverse"))
    curves = rnngrad.jacobian_curves(plain, x.flip(1))
    np.testing.assert_allclose(backward.curves.log10_frobenius, curves.log10_frobenius, atol=1e-9)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_the_cell_state_of_a_projected_layer():
    module = nn.LSTM(3, 4, proj_size=2, batch_first=True).double()
    x, h = torch.randn(1, 5, 3).double(), torch.randn(1, 1, 2).double()
    start = torch.randn(1, 1, 4).double()
    J = torch.autograd.functional.jacobian(lambda c: module(x, (h, c))[1][1], start)
    layer = rnngrad.gradient_reach(module, x, (h, start)).layers["lstm"]
    norm = torch.linalg.matrix_norm(J.reshape(4, 4)).log10().item()  # type: ignore
    assert layer.curves.log10_frobenius[0, -1] == pytest.approx(norm, abs=1e-9)


def test_numbers_far_below_float64():
    module = nn.RNN(3, 4, num_layers=2, bidirectional=True, batch_first=True).double()
    for name, weight in module.named_parameters():
        if "weight_hh" in name:
            weight.data.mul_(1e-20)
    x = torch.randn(1, 60, 3).double()
    with pytest.warns(UserWarning, match=r"^rnn\.1\.forward: .*float64: .*; hand over fewer steps"):
        reach = rnngrad.gradient_reach(module, x, loss=lambda output: output[0][:, -1, 0].sum())
    forward = reach.layers["rnn.1.forward"]
    assert forward.loss_gradients is not None
    assert -1300 < forward.loss_gradients.log10_h[0, 0] < -1100
    assert (np.diff(forward.learned_at[0, 1:]) > 19).all()


class Sequence(nn.Module):
    """Two LSTMs, of which the upper one remembers; a cell and a layer that stand idle."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = (nn.LSTM(4, 4, batch_first=True) for _ in range(2))
        self.cell, self.idle = nn.LSTMCell(4, 4), nn.GRU(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.upper(self.lower(x)[0])[0][:, -1]


def test_a_loss_that_underflows_between_two_modules_is_told():
    model, x = Sequence(), torch.randn(2, 400, 4)
    with pytest.warns(UserWarning, match=r"^lower, upper: .*float32: .*; try model\.double\(\)$"):
        single = rnngrad.gradient_reach(model, x, loss=torch.sum).layers["lower"]
    double = rnngrad.gradient_reach(model.double(), x.double(), loss=torch.sum).layers["lower"]
    assert single.loss_gradients is not None
    assert double.loss_gradients is not None
    lost = double.loss_gradients.log10_h - single.loss_gradients.log10_h
    assert (lost[:, 0] > 3).all()
    np.testing.assert_allclose(lost[:, -50:], 0, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-2, 1e-7])
def test_a_loss_that_arrives_too_small_is_told(factor: float):
    model, x = nn.LSTM(3, 4, batch_first=True), torch.randn(2, 5, 3)

    def loss(output: tuple[Tensor, Any]) -> Tensor:
        return 1e-3 * factor * output[0][:, -1].float().square().sum()

    true = rnngrad.gradient_reach(model.double(), x.double(), loss=loss).layers["lstm"]
    with pytest.warns(UserWarning, match=r"^lstm: .* torch\.float16: "):
        half = rnngrad.gradient_reach(model.half(), x.half(), loss=loss).layers["lstm"]
    assert half.loss_gradients is not None
    assert true.loss_gradients is not None
    off = np.abs(half.loss_gradients.log10_h - true.loss_gradients.log10_h)
    assert (np.isnan(off) if factor == 1e-7 else off < 0.5).all()
    if factor == 1e-2:  # h_0 is zero, and so is what the first step adds to weight_hh: no doubt
        np.testing.assert_array_equal(half.learning_span, true.learning_span)


class Continued(nn.LSTM):
    def going_on(self, output: tuple[Tensor, Any]) -> Tensor:
        return self(torch.ones(2, 3, 3).double(), output[1])[0][:, -1].sum()


def test_a_loss_may_go_on_from_the_last_state():
    model, x = Continued(3, 4, batch_first=True).double(), torch.randn(2, 5, 3).double()
    layer = rnngrad.gradient_reach(model, x, loss=model.going_on).layers["continued"]
    both = torch.cat((x, torch.ones(2, 3, 3)), dim=1)
    whole = rnngrad.gradient_reach(model, both, loss=lambda output: output[0][:, -1].sum())
    assert layer.loss_gradients is not None
    expected = whole.layers["continued"].loss_gradients
    assert expected is not None
    np.testing.assert_allclose(layer.loss_gradients.log10_c, expected.log10_c, atol=1e-9)


class Decoder(nn.Module):
    """Reads 400 empty steps from the state in which an encoder ends."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = (nn.GRU(4, 4, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        encoded, h = self.encoder(x)
        ends = self.decoder(x.new_zeros(len(x), 400, 4), h)[0][:, -1]
        return ends.sum() + (weight * encoded.sum((1, 2))).sum()


@pytest.mark.parametrize("weight", [(0.0, 0.0), (0.0, 1.0)])
def test_a_state_whose_gradient_underflows_is_told(weight: tuple[float, float]):
    given = torch.randn(2, 10, 4), torch.tensor(weight)
    with pytest.warns(UserWarning, match=r"^decoder: what .* torch\.float32: "):
        layer = rnngrad.gradient_reach(Decoder(), *given, loss=torch.sum).layers["encoder"]
    assert layer.loss_gradients is not None
    assert np.isnan(layer.loss_gradients.log10_h[0]).all()  # it is not zero, and nobody knows more
    assert "unknown" in str(layer)
    rnngrad.gradient_reach(Decoder().double(), *(v.double() for v in given), loss=torch.sum)


def test_the_other_direction_of_a_layer_is_no_earlier_one():
    words, module = nn.Embedding(10, 3), nn.LSTM(3, 4, bidirectional=True, batch_first=True)
    model = nn.Sequential(words, module)
    tokens = torch.randint(10, (2, 400))
    reach = rnngrad.gradient_reach(model, tokens, loss=lambda output: output[0][:, [0, -1]].sum())
    gradients = reach.layers["1.forward"].loss_gradients
    assert gradients is not None
    assert gradients.log10_h.min() < -50


def test_a_small_gradient_that_keeps_its_digits_is_not_told():
    model, x = nn.GRU(3, 4).half(), torch.randn(5, 2, 3).half()
    rnngrad.gradient_reach(model, x, loss=lambda output: output[0].float().mean())


def test_what_was_not_asked_is_named():
    title = str(rnngrad.gradient_reach(Sequence(), torch.randn(2, 5, 4))).splitlines()[0]
    others = ".cell, a torch.nn.modules.rnn.LSTMCell; .idle, whose torch forward did not run"
    assert title == f"Sequence: 2 recurrent layer(s), 2 example(s); not asked: {others}"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_scripted_part_is_named():
    model: Any = Sequence()
    model.idle = torch.jit.script(model.idle)
    title = rnngrad.gradient_reach(model, torch.randn(2, 5, 4)).title
    assert title.endswith("; .idle, a torch.jit._script.RecursiveScriptModule")


def test_the_table_answers_both_questions():
    model, words = Reader(nn.LSTM(3, 4, 2, batch_first=True)).double(), torch.randint(20, (2, 400))
    reach = rnngrad.gradient_reach(model, words, loss=lambda output: output[0][:, -1].sum())
    title, _, header, _, *rows = str(reach).splitlines()
    assert title == "Reader: 2 recurrent layer(s), 2 example(s)"
    assert [row.split()[0] for row in rows] == list(reach.layers)
    assert "underflow" in rows[0]
    assert header.split("  ")[-1].strip() == "learning"
    assert "learning" not in str(rnngrad.gradient_reach(model, words[:, :5]))
    assert (reach.layers["encoder.core.1"].learning_span < 60).all()
    assert len(repr(reach)) < 200


def test_an_encoder_learns_through_the_state_that_it_hands_to_a_decoder() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.GRU(3, 4, batch_first=True)
            self.decoder = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.decoder(x, self.encoder(x)[1])[0]

    model, x = Model().double(), torch.randn(2, 5, 3).double()
    layers = rnngrad.gradient_reach(model, x, loss=lambda h: h[0].sum()).layers
    last = model.encoder(x)[1].detach().requires_grad_()
    (expected,) = torch.autograd.grad(model.decoder(x, last)[0][0].sum(), last)
    found = layers["encoder"].loss_gradients
    assert found is not None
    assert found.log10_h[0, -1] == pytest.approx(expected[0, 0].norm().log10().item(), abs=1e-9)
    # the loss does not look at the second example
    assert np.isnan(layers["encoder"].learning_span[1])
    assert "(1 of 2: never)" in str(layers["encoder"])


def test_learning_is_counted_back_from_where_the_loss_looks() -> None:
    """A backward direction reads the last word first; a loss may look before the padding."""
    module, x = nn.LSTM(3, 4, batch_first=True, bidirectional=True), torch.randn(2, 50, 3)
    last = rnngrad.gradient_reach(module, x, loss=lambda output: output[0][:, -1].sum()).layers
    assert (last["lstm.backward"].learning_span == 0).all()
    assert (last["lstm.forward"].learning_span > 0).all()
    early = rnngrad.gradient_reach(module, x, loss=lambda output: output[0][:, 9].sum()).layers
    short = rnngrad.gradient_reach(module, x[:, :10], loss=lambda output: output[0][:, -1].sum())
    found, expected = early["lstm.forward"], short.layers["lstm.forward"]
    np.testing.assert_array_equal(found.learning_span, expected.learning_span)


def test_what_adds_next_to_nothing_does_not_count_as_learnt() -> None:
    module, x = nn.LSTM(3, 4, batch_first=True).double(), torch.randn(2, 50, 3).double()
    spans = [
        rnngrad.gradient_reach(
            module, x, loss=lambda out, n=n, w=w: out[0][:, n].sum() + w * out[0][:, -1].sum()
        ).layers["lstm"].learning_span
        for n, w in ((0, 1e-30), (24, 0), (24, 1e-30), (0, 1))
    ]  # fmt: skip
    assert (spans[0] == 0).all()
    np.testing.assert_array_equal(spans[1], spans[2])
    assert (spans[3] == 49).all()  # the loss looks at both ends


def test_without_a_loss_nothing_is_known_of_learning() -> None:
    reach = rnngrad.gradient_reach(nn.GRU(3, 4), torch.randn(5, 2, 3))
    with pytest.raises(rnngrad.InputError, match="hand loss= to gradient_reach"):
        _ = reach.layers["gru"].learned_at
