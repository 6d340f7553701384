import pytest
from made_up import make_results

from rnngrad.study.results import Results


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results()
