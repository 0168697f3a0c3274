"""One Ray for the whole session, with the test stages on the workers' path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory):
    from sweeps.ray_session import SETTINGS, embedded_ray

    # What else needs memory here is not the tests' business.
    os.environ.update(SETTINGS | {"RAY_memory_monitor_refresh_ms": "0"})
    with embedded_ray(4, tmp_path_factory.mktemp("ray-logs")) as session:
        yield session


@pytest.fixture(scope="module")
def no_ray_variables():
    """None of those that `ray_session` sets, for a module that starts a Ray of another kind."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        yield
