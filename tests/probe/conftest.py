"""What the probe's tests share: one thread, and float32 from fewer units on."""

from collections.abc import Iterator

import pytest
import torch

from rnngrad.probe import curves


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """The problems are small, and threads that wait for a busy core cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def float32_from_64() -> Iterator[None]:
    """Smaller modules than the library's own choice, for the sake of time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "FLOAT32_FROM", 64)
        yield
