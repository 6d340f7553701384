"""Settings of torch, padding and parametrizations: what is around a probe changes no number."""

from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import rnngrad
from rnngrad.errors import InputError


def everything(module: nn.LSTM, x: Tensor) -> list[np.ndarray]:
    gradient = torch.ones(*x.shape[:2], module.hidden_size)
    return [
        rnngrad.jacobian_curves(module, x).log10_column_sum,
        rnngrad.trajectory(module, x).h,
        rnngrad.diagnose(module, x).naive,
        rnngrad.loss_gradient_curves(module, x, gradient).log10_h,
    ]


def test_autocast_and_fast_products_change_nothing():
    module, x = nn.LSTM(3, 70, batch_first=True), torch.randn(2, 30, 3)
    plain = everything(module, x)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fast = everything(module, x)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    with torch.inference_mode():
        inside = everything(module, x)
    for a, b, c in zip(plain, fast, inside, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


PRECISIONS = ("cuda.matmul", "mkldnn.matmul", "")  # below torch.backends; "" is that of all


@pytest.mark.parametrize("name", PRECISIONS)
def test_the_precision_by_backend_changes_nothing_and_is_not_changed(name: str):
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has no such setting")
    settings: dict[str, Any] = {
        n: attrgetter(n)(torch.backends) if n else torch.backends for n in PRECISIONS
    }
    module, x = nn.LSTM(3, 70, batch_first=True), torch.randn(2, 30, 3)
    plain = rnngrad.diagnose(module, x).naive
    try:
        settings[name].fp32_precision = "tf32" if name != "mkldnn.matmul" else "bf16"
        before = {n: setting.fp32_precision for n, setting in settings.items()}
        fast = rnngrad.diagnose(module, x).naive
        assert before == {n: setting.fp32_precision for n, setting in settings.items()}
    finally:
        for setting in settings.values():
            setting.fp32_precision = "none"
    np.testing.assert_array_equal(plain, fast)


def test_another_default_device_changes_nothing():
    module, cell, x = nn.LSTM(3, 4, batch_first=True), nn.LSTMCell(3, 4), torch.randn(2, 9, 3)
    zero, gradient = torch.zeros(2, 4), torch.randn(2, 9, 4)

    def probe() -> list[np.ndarray]:
        def step(s: tuple[Tensor, Tensor], v: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(torch.empty(0).device.type)
            return cell(v, s)

        sketch = rnngrad.jacobian_curves(module, x, method="sketch", statistics="frobenius")
        of_step = rnngrad.jacobian_curves_of_step(step, x, (zero, zero))
        lengths = [9, 4]
        return [
            rnngrad.jacobian_curves(module, x, lengths=lengths).log10_spectral,
            sketch.log10_frobenius,
            of_step.log10_frobenius,
            rnngrad.loss_gradient_curves(module, x, gradient).log10_h,
            rnngrad.weight_gradient_parts(module, x, gradient)["weight_hh_l0"],
            rnngrad.lyapunov_exponents(module, x),
            rnngrad.diagnose(module, x).naive,
            rnngrad.autograd_column_sums(module, x, flush=True),
            rnngrad.trajectory(module, x).h,
        ]

    seen: list[str] = []
    plain = probe()
    assert {*seen} == {"cpu"}
    seen.clear()
    with torch.device("meta"):
        found = probe()
    assert {*seen} == {"meta"}
    for a, b in zip(plain, found, strict=True):
        np.testing.assert_array_equal(a, b)


class Drawn(nn.Module):
    """A parametrization that drops weights: other ones whenever they are read."""

    def forward(self, weight: Tensor) -> Tensor:
        return nn.functional.dropout(weight, 0.5)


def test_parametrized_weights_are_read_once():
    module, x = nn.GRU(3, 6, batch_first=True), torch.randn(2, 9, 3)
    parametrize.register_parametrization(module, "weight_hh_l0", Drawn())
    found = rnngrad.diagnose(module, x, dtype=torch.float64)
    np.testing.assert_allclose(np.log10(found.naive), found.log10_column_sum, atol=1e-9)


def test_beyond_its_length_an_example_may_hold_anything():
    module, x = nn.GRU(3, 4, batch_first=True), torch.randn(3, 9, 3)
    lengths = np.array([4, 9, 7], dtype=np.uint16)
    plain = rnngrad.jacobian_curves(module, x, lengths=lengths).log10_frobenius
    x[0, 4:], x[2, 8] = torch.nan, torch.inf
    found = rnngrad.jacobian_curves(module, x, lengths=lengths).log10_frobenius
    np.testing.assert_array_equal(found, plain)
    x[0, 4:] = 1e38  # finite, and in the same block
    found = rnngrad.jacobian_curves(module, x, lengths=lengths).log10_frobenius
    np.testing.assert_array_equal(found, plain)
    x[0, 4:] = torch.nan
    with pytest.raises(InputError, match="inputs contains nan at example 0, step 4, feature 0"):
        rnngrad.jacobian_curves(module, x, lengths=[5, 9, 7])
