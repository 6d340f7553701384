import pytest
@pytest.fixture(scope="module")
def float32_from_64(): yield
