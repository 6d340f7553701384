"""The clone and its settings."""

import pytest
from tiny_clone import STAGES, TINY, Clone, fresh_clone


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The clone after its first `dvc repro`."""
    clone = fresh_clone(tmp_path_factory.mktemp("clone"), TINY)
    assert clone.repro() == STAGES
    return clone


@pytest.fixture
def params(clone: Clone):
    """Go back after the test, as a reader does with git restore and dvc checkout."""
    files = [clone.folder / name for name in ("params.yaml", "dvc.lock")]
    before = [path.read_text() for path in files]
    yield files[0]
    for path, text in zip(files, before, strict=True):
        path.write_text(text)
    clone.succeed("dvc", "checkout", "--force")
