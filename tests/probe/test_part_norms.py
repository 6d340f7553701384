"""Losses written in directions against the same sweep with a row for every loss, and autograd."""

import numpy as np
import pytest
import torch
from probe_problems import CELLS, set_weights, weights
from torch import Tensor, nn

import rnngrad
from rnngrad.probe import cotangents, part_norms
from rnngrad.probe.cotangents import Cotangents

T, H = 260, 24


class Sweeps:
    """Counts what the sweeps do; `patch` takes what to replace."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch, self.directions, self.disbelieved = patch, [], 0
        patch.setattr(cotangents, "AHEAD", 64)
        patch.setattr(part_norms, "BLOCK", 16)
        compressed, through = Cotangents.compressed, part_norms._Sweep._through

        def counted(now: Cotangents) -> Cotangents:
            found = compressed(now)
            self.directions.append(found.directions)
            return found

        def noted(sweep, now: Cotangents, block: slice) -> Cotangents | None:
            found = through(sweep, now, block)
            self.disbelieved += found is None
            return found

        patch.setattr(Cotangents, "compressed", counted)
        patch.setattr(part_norms._Sweep, "_through", noted)

    def both(self, *args) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """log10 of the norms, with directions and with a row for every loss."""
        found = rnngrad.weight_gradient_parts(*args, reduce="log10_norm")
        with self.patch.context() as patch:
            patch.setattr(cotangents, "AHEAD", 10**6)
            return found, rnngrad.weight_gradient_parts(*args, reduce="log10_norm")


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    return Sweeps(monkeypatch)


def module_of(cell: str, seed: int = 0, **options) -> nn.RNNBase:
    kind, own = CELLS[cell]
    torch.manual_seed(seed)
    return kind(3, H, batch_first=True, **own, **options)


def arguments(seed: int = 0, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Inputs and output gradients."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, T, 3, generator=generator), torch.randn(
        batch, T, H, generator=generator
    )


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_directions_change_nothing(cell: str, seed: int, dtype: torch.dtype, sweeps: Sweeps):
    x, G = (v.to(dtype) for v in arguments(seed))
    assert_same(*sweeps.both(module_of(cell, seed).to(dtype), x, G))
    assert any(sweeps.directions)


def test_several_layers(sweeps: Sweeps):
    assert_same(*sweeps.both(module_of("lstm", num_layers=2), *arguments(batch=1)))
    assert any(sweeps.directions)


@pytest.mark.parametrize("cell", ["rnn_relu", "rnn_tanh"])
@pytest.mark.parametrize("radius", [0.3, 3.0])
def test_losses_that_vanish_or_grow(cell: str, radius: float, sweeps: Sweeps):
    module = module_of(cell)
    recurrent = radius * torch.randn(H, H) / H**0.5
    set_weights(module, weight_hh_l0=recurrent, weight_ih_l0=0.1 * torch.randn(H, 3))
    found, expected = sweeps.both(module, *arguments(batch=1))
    assert_same(found, expected)
    spread = np.abs(np.diff(expected["bias_hh_l0"][0, -1, [0, -1]]))
    assert spread > 20


def test_gates_that_close_for_most_units(sweeps: Sweeps):
    """One token forgets all units but three: nothing is left of what was large."""
    module = module_of("lstm")
    with torch.no_grad():
        weights(module)["weight_ih_l0"][:, 0] = 0
        weights(module)["weight_ih_l0"][H : 2 * H - 3, 0] = -60
        weights(module)["weight_ih_l0"][2 * H : 3 * H, 0] = 60
        weights(module)["weight_ih_l0"][3 * H :, 0] = -60
    x, G = arguments(batch=1)
    x[..., 0] = 0
    x[:, 90, 0] = 1
    assert_same(*sweeps.both(module, x, G))
    assert any(sweeps.directions)


def test_units_that_do_not_talk_keep_rows(sweeps: Sweeps):
    """One unit keeps all, the others forget at rates of their own: 2^-t .. 0.98^t, then a reset."""
    module = nn.LSTM(1, H, batch_first=True)
    bias, weight = torch.zeros(4 * H), torch.zeros(4 * H, 1)
    bias[H : 2 * H] = torch.linspace(0, 4, H)
    bias[2 * H - 1], weight[2 * H - 1] = 40, -2000
    set_weights(module, bias_ih_l0=bias, weight_ih_l0=weight)
    x, G = torch.zeros(1, T, 1), arguments()[1][:1]
    x[0, 60] = 1
    assert_same(*sweeps.both(module, x, G))
    assert sweeps.directions
    assert not any(sweeps.directions)


def test_saturated_units(sweeps: Sweeps):
    """A part of the units at 1 - 1e-170 at every step."""
    module = module_of("rnn_tanh")
    with torch.no_grad():
        weights(module)["bias_ih_l0"][: H // 2] = 195
    found, expected = sweeps.both(module, *arguments(batch=1))
    assert_same(found, expected)


def test_what_cancels_is_swept_again(sweeps: Sweeps):
    sweeps.patch.setattr(part_norms, "CANCELLED", 0.3)
    assert_same(*sweeps.both(module_of("gru"), *arguments(batch=1)))
    assert sweeps.disbelieved


def test_losses_that_are_zero(sweeps: Sweeps):
    x, G = arguments(batch=1)
    G[:, 100:-20:3] = 0
    found, expected = sweeps.both(module_of("gru"), x, G)
    assert_same(found, expected)
    assert any(sweeps.directions)
    assert (found["weight_hh_l0"][0, 100] == -np.inf).all()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_losses_far_ahead_against_autograd(cell: str, sweeps: Sweeps):
    """Every step adds a bias of its own."""
    module = module_of(cell).double()
    x, G = (v.double() for v in arguments(batch=1))
    own, state = weights(module), torch.zeros(1, H, dtype=torch.float64)
    biases = [own["bias_ih_l0"].detach().clone().requires_grad_() for _ in range(T)]
    h, c, losses = state, state, []
    for t, bias in enumerate(biases):
        args = own["weight_ih_l0"], own["weight_hh_l0"], bias, own["bias_hh_l0"]
        if cell == "lstm":
            h, c = torch.lstm_cell(x[:, t], (h, c), *args)
        else:
            h = torch.gru_cell(x[:, t], h, *args)
        losses.append((h * G[:, t]).sum())
    found = rnngrad.weight_gradient_parts(module, x, G)["bias_ih_l0"][0]
    for loss in (T // 2, T - 1):
        parts = torch.autograd.grad(losses[loss], biases[: loss + 1], retain_graph=True)
        np.testing.assert_allclose(found[loss, : loss + 1], [p.norm() for p in parts], rtol=1e-8)
    assert any(sweeps.directions)
