"""V, the one-step matrix of all gates, by every way that makes it."""

from collections.abc import Iterator

import pytest
import torch

from rnngrad.probe.cells import FEWEST_PRODUCTS, ONE_CACHE, mixed


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gates", [1, 3, 4])
@pytest.mark.parametrize("hidden", [3, 96])
@pytest.mark.parametrize("steps", [1, FEWEST_PRODUCTS - 1, 8])
def test_v_is_the_sum_over_gates(steps: int, hidden: int, gates: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(steps + hidden)
    mix = torch.randn(steps, gates, hidden, generator=generator, dtype=dtype)
    w = torch.randn(gates, hidden, hidden, generator=generator, dtype=dtype)
    expected = torch.einsum("bgi,gij->bij", mix.double(), w.double())
    atol = 1e-5 if dtype == torch.float32 else 1e-13
    assert (steps * w[0].numel() > ONE_CACHE) == (steps == 8 and hidden == 96)
    torch.testing.assert_close(mixed(mix, w).double(), expected, rtol=0, atol=atol)
    out = torch.full((steps, hidden, hidden), torch.nan, dtype=dtype)
    assert mixed(mix, w, out) is out
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=atol)
