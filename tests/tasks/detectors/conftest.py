"""The probing set of the tests of similarities."""

import pytest

from tests.tasks.detectors.slow_similarities import Probe, make_probe


@pytest.fixture
def probe() -> Probe:
    return make_probe()
