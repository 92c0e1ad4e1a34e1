"""The nginx site in front of the shared fleet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.site import Nginx
from tests.running import RunningFleet


@pytest.fixture(scope="module")
def site(fleet: RunningFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """The site in front of the fleet."""
    with Nginx(tmp_path_factory.mktemp("nginx"), fleet.port) as running:
        yield running
