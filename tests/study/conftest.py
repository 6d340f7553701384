"""Settings of an embedding that tests of the study share."""

from collections.abc import Callable

import pytest

from rnngrad.params import EmbedParams


@pytest.fixture(scope="session")
def make_embed() -> Callable[..., EmbedParams]:
    """EmbedParams of a padding; the longest comment is the limit unless another one is given."""

    def make(padding: str, max_length: int | None = None) -> EmbedParams:
        return EmbedParams.model_validate(
            {
                "vectors": "corpus",
                "path": None,
                "dimensions": 3,
                "vocabulary": "sample",
                "padding": padding,
                "max_length": max_length,
            }
        )

    return make
