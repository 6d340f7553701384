"""A model is called in any of its wrappers and layouts, left as it was, or refused in one line."""

import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

import rnngrad
from whole_models import Reader, close, everything, tokens


class Lightning(pl.LightningModule):
    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.core(scale * x)[0]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: nn.DataParallel(model),
        lambda model: torch.compile(model, backend="eager"),
        lambda model: nn.DataParallel(cast("Any", torch.compile(model, backend="eager"))),
        nn.Sequential,
    ],
    ids=["DataParallel", "compiled", "both", "Sequential"],
)
def test_wrapped_models_are_what_is_in_them(wrap: Callable[[Any], Any]):
    model, x = Lightning(nn.LSTM(3, 4, batch_first=True)).double(), torch.randn(2, 5, 3).double()
    options = {} if wrap is nn.Sequential else {"scale": 1.0}
    wrapped = wrap(model)
    wrapped(x, **options)  # what is compiled is compiled by now
    found = rnngrad.gradient_reach(wrapped, x, loss=lambda h: h.sum(), **options)
    assert list(found.layers) == ["0.core" if wrap is nn.Sequential else "core"]
    close(found, rnngrad.gradient_reach(model, x, loss=lambda h: h.sum()))


def test_a_compiled_part_of_a_model_is_not_compiled_again():
    compiled: list[None] = []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(None)
        return graph.forward

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.core = nn.Linear(3, 3), nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.core(self.dense(x).tanh())[0]

    x = torch.randn(2, 5, 3)
    with torch._dynamo.config.patch(allow_rnn=True):  # else torch leaves the part uncompiled
        model = nn.Sequential(cast("Any", torch.compile(Part(), backend=backend)))
        model(x)
        before = len(compiled)
        assert list(rnngrad.gradient_reach(model, x).layers) == ["0.core"]
    assert len(compiled) == before == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_layouts_and_dtypes(dtype: torch.dtype):
    module = nn.GRU(3, 4).to(dtype)
    x = torch.randn(5, 3, dtype=dtype)
    alone = rnngrad.gradient_reach(module, x, loss=lambda output: output[1].sum())
    batch = rnngrad.gradient_reach(module, x[:, None], loss=lambda output: output[1].sum())
    close(alone, batch)


def test_frozen_weights_and_callers_without_gradients():
    model, words = Reader(nn.LSTM(3, 4, batch_first=True)).double(), tokens()
    expected = rnngrad.gradient_reach(model, words, loss=everything)
    model.requires_grad_(False)
    with torch.no_grad():
        close(rnngrad.gradient_reach(model, words, loss=everything), expected)
    with torch.inference_mode():
        close(rnngrad.gradient_reach(model, words + 0, loss=everything), expected)


class Restless(nn.Module):
    """Changes whatever a forward pass may change."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.LSTM(3, 4, num_layers=2, dropout=0.5, batch_first=True)
        self.norm = nn.BatchNorm1d(4)
        self.norm.eval()
        self.register_buffer("calls", torch.zeros(()))
        self.state: Any = None
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.drawn = random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
        h, self.state = self.core(x + 0 * torch.rand(1), self.state)
        self.noted = "yes"
        self.train()
        if self.fails:
            raise ZeroDivisionError
        return self.norm(h[:, -1])


def everything_of(model: Restless) -> Any:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    modes = [m.training for m in model.modules()]
    draws = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    values = {n: v.tolist() for n, v in model.state_dict().items()}
    grads = {n: None if p.grad is None else p.grad.tolist() for n, p in model.named_parameters()}
    return hooks, modes, draws, values, grads, model.state, "noted" in vars(model)


@pytest.mark.parametrize("failure", ["none", "forward", "loss"])
def test_the_model_and_random_states_are_left_as_they_were(failure: str):
    model, x = Restless(), torch.randn(2, 5, 3)
    model.core(x)[0].sum().backward()
    seen = []
    model.core.register_forward_hook(lambda *_: seen.append(None))
    before = everything_of(model)
    model.fails = failure == "forward"

    def loss(output: Tensor) -> Tensor:
        if failure == "loss":
            raise ZeroDivisionError
        return output.sum()

    if failure == "none":
        rnngrad.gradient_reach(model, x, loss=loss)
    else:
        with pytest.raises(ZeroDivisionError):
            rnngrad.gradient_reach(model, x, loss=loss)
    assert everything_of(model) == before
    assert len(seen) == 1
    np.testing.assert_array_equal(x, x.clone())


def test_dropout_is_off_and_hooks_of_others_count():
    module, x = nn.LSTM(3, 4, num_layers=2, dropout=0.5, batch_first=True), torch.randn(2, 5, 3)
    plain = rnngrad.gradient_reach(module, x, loss=lambda output: output[0].sum())
    module.register_forward_hook(lambda _m, _i, output: (10 * output[0], output[1]))
    scaled = rnngrad.gradient_reach(module, x, loss=lambda output: output[0].sum())
    for a, b in zip(plain.layers.values(), scaled.layers.values(), strict=True):
        np.testing.assert_allclose(a.learned_at + 1, b.learned_at, atol=1e-5)


class Elsewhere(nn.GRU):
    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore
        return x.cumsum(dim=0), hx


def test_weights_that_leave_no_room_for_copies_are_refused():
    gru = nn.GRU(2, 4)
    gru.weight_hh_l0 = nn.Parameter(torch.zeros(1).expand(10**6, 10**6))
    with pytest.raises(rnngrad.InputError, match=r"^copies of the weights need about 32,000 GB"):
        rnngrad.gradient_reach(gru, torch.zeros(1, 1, 2))


def test_steps_beyond_the_memory_are_refused_before_they_are_run():
    x = torch.zeros(1, 1, 2).expand(10**5, 10**5, 2)
    with pytest.raises(rnngrad.InputError, match=r"^gru: .*GB; (pass|use) fewer examples or steps"):
        rnngrad.gradient_reach(nn.GRU(2, 3), x)


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        (
            nn.Linear(3, 3),
            None,
            r"^torch\.nn\.modules\.linear\.Linear holds no nn\.RNN, nn\.LSTM or",
        ),
        (Reader(nn.LSTM(3, 4)).embedding, None, "Embedding holds no"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.GRUCell(3, 3)),
            None,
            r"nn.GRU, but \.1, a torch.nn.modules.rnn.GRUCell: use rnngrad",
        ),
        (Elsewhere(3, 4), None, r"\.elsewhere, whose torch forward did not run; for a step"),
        (
            nn.GRU(3, 4),
            lambda output: output[0],
            r"scalar .*, got torch.float32 of shape \(2, 5, 4\)$",
        ),
        (nn.GRU(3, 4), lambda output: {}, r"scalar .*, got builtins\.dict$"),
        (nn.GRU(3, 4), lambda output: output[0].detach().sum(), "the loss does not depend"),
        (nn.GRU(3, 4), lambda output: torch.ones((), requires_grad=True), "does not depend"),
        (
            nn.GRU(3, 4),
            lambda output: (1e30 * output[0].double()).pow(9).sum(),
            "^gru: what the loss sends there is NaN or inf: look",
        ),
    ],
    ids=["linear", "embedding", "cell", "own", "vector", "dict", "detached", "other", "explodes"],
)
def test_one_line_for_what_does_not_work(model: nn.Module, loss: Any, message: str):
    x = (
        torch.zeros(2, 5, dtype=torch.long)
        if isinstance(model, nn.Embedding)
        else torch.ones(2, 5, 3)
    )
    with pytest.raises(rnngrad.InputError, match=message):
        rnngrad.gradient_reach(model, x, loss=loss)


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.zeros(2, 5, 4),),
        (torch.zeros(2, 5, 3).double(),),
        (torch.zeros(2, 5, 3, dtype=torch.long),),
        (torch.zeros(2, 5, 3), torch.zeros(1, 2, 7)),
        (torch.zeros(5, 3), torch.zeros(1, 7)),
        (torch.zeros(5, 3), torch.zeros(1, 1, 4)),
        (torch.zeros(2, 5, 3), torch.zeros(1, 2, 4).double()),
        (torch.zeros(2, 5, 3), torch.zeros(2, 2, 4)),
        (pack_sequence([torch.zeros(3, 3)]), torch.zeros(1, 2, 4)),
    ],
)
def test_what_torch_refuses_is_refused(inputs: tuple[Any, ...]) -> None:
    model = nn.GRU(3, 4)
    with pytest.raises((ValueError, RuntimeError)) as torchs:
        model(*inputs)
    with pytest.raises(type(torchs.value)) as own:
        rnngrad.gradient_reach(model, *inputs)
    assert str(own.value) == str(torchs.value)


def test_inputs_that_hold_no_numbers_and_what_is_no_model():
    with pytest.raises(rnngrad.InputError, match=r"^gru: inputs contains nan"):
        rnngrad.gradient_reach(nn.GRU(3, 4), torch.full((2, 5, 3), torch.nan), loss=everything)
    with pytest.raises(TypeError, match=r"an nn\.Module, got builtins\.function"):
        rnngrad.gradient_reach(everything, torch.zeros(2, 5, 3))  # type: ignore
    with pytest.raises(rnngrad.InputError, match=r"gru must read a tensor .*, got numpy.ndarray"):
        rnngrad.gradient_reach(nn.GRU(3, 4), np.zeros((2, 5, 3)))
    with pytest.raises(rnngrad.InputError, match="on the meta device"):
        rnngrad.gradient_reach(nn.GRU(3, 4, device="meta"), torch.zeros(2, 5, 3))
    with pytest.raises(TypeError, match="loss must be a function"):
        rnngrad.gradient_reach(nn.GRU(3, 4), torch.zeros(2, 5, 3), loss="mse")  # type: ignore


@pytest.mark.parametrize(
    "x", [torch.ones(3, 2, 5), torch.ones(3, 5), pack_sequence([torch.ones(3, 5)] * 2)]
)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_outputs_lie_in_memory_as_torchs_do(kind: Any, batch_first: bool, options: Any, x: Any):
    found: list[Any] = []

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(5, 4, batch_first=batch_first, **options)

        def forward(self, x: Any) -> None:
            results = pytree.tree_leaves([*self.rnn(x)])
            found.append([(v.shape, v.stride()) for v in results if isinstance(v, Tensor)])

    model = Model()
    model(x)
    rnngrad.gradient_reach(model, x)
    assert found[0] == found[1]  # on which .view depends


class Stepwise(nn.Module):
    """Reads step by step from a tensor that it writes to again and again, or from new ones."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: Tensor, again: bool) -> Tensor:
        buffer, h, out = torch.zeros_like(x[:, :1]), None, []
        for x_t in x.split(1, dim=1):
            y, h = self.rnn(buffer.copy_(x_t) if again else x_t.clone(), h)
            out.append(y)
        return torch.cat(out, dim=1)


def test_what_a_model_writes_to_after_a_layer_read_it_is_not_read_again():
    model, x = Stepwise().double(), torch.randn(2, 20, 4).double()
    written, new = (rnngrad.gradient_reach(model, x, again) for again in (True, False))
    found, expected = (reach.layers["rnn"].curves.log10_frobenius for reach in (written, new))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_tensors_that_a_forward_changes_are_put_back():
    class Changes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 4, max_norm=1.0)
            self.lstm = nn.LSTM(4, 4, batch_first=True)
            self.head = torch.jit.script(nn.Dropout())
            self.calls = torch.zeros(1)
            self.neighbours = torch.eye(3).to_sparse()  # nobody compares such tensors
            self.small = torch.ones(2).to(torch.float8_e4m3fn)
            self.absent = torch.full((1,), torch.nan).expand(5)

        def forward(self, words: Tensor) -> Tensor:
            self.calls += 1
            self.small.zero_()
            return self.head(self.lstm(self.embedding(words))[0])

    model = Changes()
    before = model.embedding.weight.clone()
    rnngrad.gradient_reach(model, torch.arange(8)[None])
    assert torch.equal(model.embedding.weight, before)
    assert not model.calls
    assert model.small.float().all()
    assert model.training
    assert model.head.training


def test_calls_that_overlap_leave_model_and_process_as_they_were():
    model, x, failed = Stepwise(), torch.randn(2, 20, 4), []

    def call() -> None:
        try:
            rnngrad.gradient_reach(model, x, again=False)
        except rnngrad.InputError as error:
            failed.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert model.training
    assert "forward" not in vars(model.rnn)
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_a_state_that_no_projection_makes_is_refused():
    model = nn.LSTM(3, 6, proj_size=2, batch_first=True).double()
    with torch.no_grad():
        dict(model.named_parameters())["weight_hr_l0"][1] = 0
    h, c = torch.ones(1, 1, 2).double(), torch.zeros(1, 1, 6).double()
    with pytest.raises(rnngrad.InputError, match=r"^lstm: weight_hr lacks rank"):
        rnngrad.gradient_reach(model, torch.zeros(1, 5, 3).double(), (h, c))


@pytest.mark.parametrize("how", ["detach", "detach_"])
def test_no_loss_passes_where_autograd_is_stopped_between_two_calls(how: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            h = self.gru(x[:, :3])[1]
            return self.gru(x[:, 3:], getattr(h, how)())[0]

    reach = rnngrad.gradient_reach(Model(), torch.randn(1, 6, 3), loss=lambda h: h[:, -1].sum())
    first, second = reach.layers["gru"], reach.layers["gru (call 2)"]
    assert first.loss_gradients is not None
    assert np.isneginf(first.loss_gradients.log10_h).all()
    assert second.learning_span == [2]


def test_a_frozen_module_that_is_read_step_by_step_is_one_recurrence() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.read = nn.GRU(3, 4, batch_first=True), nn.GRU(4, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            state, outputs = None, []
            with torch.no_grad():
                for t in range(x.shape[1]):
                    output, state = self.frozen(x[:, t : t + 1], state)
                    outputs.append(output)
            return self.read(torch.cat(outputs, dim=1))[0]

    reach = rnngrad.gradient_reach(Model(), torch.randn(2, 6, 3), loss=lambda h: h[:, -1].sum())
    assert [*reach.layers] == ["frozen", "read"]
    assert reach.layers["frozen"].lengths.tolist() == [6, 6]


class Checkpointed(nn.Module):
    """The second layer's numbers are computed anew on the way back."""

    def __init__(self, *, anew: bool) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(3, 4, batch_first=True), nn.GRU(4, 4, batch_first=True)
        self.anew = anew

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.first(x)
        if not self.anew:
            return self.second(x)[0]
        return cast("Tensor", checkpoint(lambda x: self.second(x)[0], x, use_reentrant=False))


def test_a_checkpoint_is_no_other_call():
    model, plain = (Checkpointed(anew=anew).double() for anew in (True, False))
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 5, 3).double()
    found = rnngrad.gradient_reach(model, x, loss=lambda h: h.square().sum())
    assert list(found.layers) == ["first", "second"]
    close(found, rnngrad.gradient_reach(plain, x, loss=lambda h: h.square().sum()))

    def scaled(h: Tensor, model: nn.Module) -> Tensor:
        loss = h.square().sum()
        with torch.no_grad():
            model(2 * x)  # a loss's target
        return loss / torch.autograd.grad(loss, [h], retain_graph=True)[0].norm()

    first, second = (
        rnngrad.gradient_reach(each, x, loss=partial(scaled, model=each)) for each in (model, plain)
    )
    assert list(first.layers) == ["first", "second"]
    close(first, second)


def test_lists_dicts_and_what_lies_in_them_are_left_as_they_were():
    class Keeper(nn.Module):
        config: Any
        data: Any

        def __init__(self) -> None:
            super().__init__()
            self.gru, self.cache = nn.GRU(3, 4), {"states": [torch.zeros(1, 2, 4)], "calls": {0}}

        def forward(self, x: Tensor) -> Tensor:
            output, h = self.gru(x, self.cache["states"][0].clone())
            self.cache["states"][0].copy_(h)
            self.cache["states"].append(h)
            self.cache["calls"].add(1)
            self.cache["new"] = h
            return output

    class Frozen(dict[str, int]):
        def update(self, *_: Any) -> None:  # type: ignore[override]
            raise TypeError("it is not to be changed")

    model = Keeper()
    model.config, model.data = Frozen(units=4), [[torch.zeros(9)] for _ in range(2000)]
    rnngrad.gradient_reach(model, torch.randn(5, 2, 3), loss=torch.sum)
    assert dict(model.config) == {"units": 4}
    assert model.cache.keys() == {"states", "calls"}
    assert model.cache["calls"] == {0}
    (state,) = model.cache["states"]
    assert not state.any()


def test_a_loop_that_changes_the_state_is_named():
    class Episodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            h, outputs = torch.zeros(1, 2, 4), []
            for t, step in enumerate(x.split(1)):
                output, h = self.gru(step, h * (t != 4))
                outputs.append(output)
            return torch.cat(outputs)

    title = rnngrad.gradient_reach(Episodes(), torch.randn(9, 2, 3)).title
    assert ".gru as one loop of 9 calls, between which its state or weights were changed" in title

    class Documents(Episodes):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.gru(step)[0] for step in x.split(1)])

    assert rnngrad.gradient_reach(Documents(), torch.randn(9, 2, 3)).title.endswith("2 example(s)")
