"""Powers of small kernels, where they are known and where tanh is not linear."""

from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch
from ready import ready
from torch import Tensor, nn

import rnngrad
from rnngrad.models.initializers import initialize_like_keras
from rnngrad.study.measures.powers import powers, powers_at_radii
from rnngrad.study.runs.open_model import Inputs

B, T, D, H = 2, 300, 3, 6
WORDS = [40, 90]


@pytest.fixture
def inputs() -> Inputs:
    """Zeros in front of random words."""
    torch.manual_seed(1)
    is_word = np.arange(T) >= T - np.array(WORDS)[:, None]
    x = torch.randn(B, T, D) * torch.from_numpy(is_word)[:, :, None]
    return Inputs(x, [range(T - n, T) for n in WORDS], torch.full((B,), T))


def measured(module: nn.RNNBase, inputs: Inputs, h: Tensor) -> pd.DataFrame:
    log10 = rnngrad.jacobian_curves(module, inputs.x, h).log10_frobenius
    return powers(ready(module, inputs, h), log10).set_index("input")


def test_on_padding_a_contracting_kernel_has_the_rate_of_its_spectral_radius(
    inputs: Inputs,
) -> None:
    module = nn.RNN(D, H, batch_first=True)
    initialize_like_keras(module)
    with torch.no_grad():
        cast("Tensor", module.weight_hh_l0).mul_(0.8)
    table = measured(module, inputs, torch.rand(1, B, H))
    assert table.loc["padding", "predicted"] == pytest.approx(np.log10(0.8), abs=1e-6)
    assert table.loc["padding", "largest_singular_value"] == pytest.approx(0.8, abs=1e-6)
    assert table.loc["padding", "measured"] == pytest.approx(np.log10(0.8), abs=1e-5)
    assert table.loc["padding", "tanh_slope"] == pytest.approx(1, abs=1e-6)
    assert table.loc["padding", "last_move"] == pytest.approx(0, abs=1e-9)
    assert (table["measured"] - table["predicted"])["words"] < -0.01


def test_a_state_that_never_comes_to_rest_keeps_the_gradient(inputs: Inputs) -> None:
    """h = tanh(R h), R a turn by 1 radian times 3: a circle, along which nothing is lost."""
    module = nn.RNN(D, 2, batch_first=True)
    turn = torch.tensor([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]], dtype=torch.float32)
    h = torch.rand(1, B, 2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        cast("Tensor", module.weight_hh_l0).copy_(3 * turn)
        states = module(inputs.x, h)[0].numpy()
    table = measured(module, inputs, h)
    last = [T - n - 1 for n in WORDS]
    moves = [abs(states[b, t] - states[b, t - 1]).max() for b, t in enumerate(last)]
    assert table.loc["padding", "last_move"] == pytest.approx(np.median(moves))
    assert min(moves) > 0.5
    assert table.loc["padding", "measured"] == pytest.approx(0, abs=0.01)
    assert table.loc["padding", "predicted"] == pytest.approx(np.log10(3), abs=1e-6)


def test_the_slope_is_the_mean_derivative_of_tanh(inputs: Inputs) -> None:
    module = nn.RNN(D, H, batch_first=True)
    h = torch.rand(1, B, H)
    states = module(inputs.x, h)[0].detach()
    words = np.concatenate([states[b, T - n :].numpy() for b, n in enumerate(WORDS)])
    table = measured(module, inputs, h)
    assert table.loc["words", "tanh_slope"] == pytest.approx((1 - words**2).mean(), rel=1e-5)


def test_singular_values_and_radius_of_a_shear(inputs: Inputs) -> None:
    """A nilpotent part changes the singular values and leaves the eigenvalues alone."""
    module = nn.RNN(D, 2, batch_first=True)
    kernel = torch.tensor([[0.5, 3.0], [0.0, 0.25]])
    with torch.no_grad():
        cast("Tensor", module.weight_hh_l0).copy_(kernel)
    table = measured(module, inputs, torch.rand(1, B, 2))
    assert table["spectral_radius"].tolist() == pytest.approx([0.5, 0.5])
    assert table["largest_singular_value"].iloc[0] == pytest.approx(
        np.linalg.svd(kernel.numpy())[1][0]
    )


def test_kernels_are_also_scaled_to_either_side_of_one(inputs: Inputs) -> None:
    module = nn.RNN(D, H, batch_first=True)
    initialize_like_keras(module)
    before = cast("Tensor", module.weight_hh_l0).detach().clone()
    h = torch.rand(1, B, H)
    table, again = (powers_at_radii(ready(module, inputs, h)) for _ in range(2))
    pd.testing.assert_frame_equal(table, again, check_exact=True)
    assert torch.equal(cast("Tensor", module.weight_hh_l0), before)
    assert table["weights"].tolist() == ["radius 0.9"] * 2 + ["radius 1.1"] * 2
    np.testing.assert_allclose(table["spectral_radius"], [0.9, 0.9, 1.1, 1.1], rtol=1e-6)
    below, above = table[table["input"] == "padding"].itertuples()
    assert below.measured == pytest.approx(np.log10(0.9), abs=1e-4)
    # the state grows until tanh is as flat as it takes
    assert cast("float", above.measured) < np.log10(1.1) - 0.01
