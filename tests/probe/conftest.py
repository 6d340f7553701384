"""What the probe's tests share: float32 from fewer units on."""

from collections.abc import Iterator

import pytest

from rnngrad.probe import curves


@pytest.fixture(scope="module")
def float32_from_64() -> Iterator[None]:
    """Smaller modules than the library's own choice, for the sake of time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "FLOAT32_FROM", 64)
        yield
