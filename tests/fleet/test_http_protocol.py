"""The HTTP that is not ours to choose: heads and upgrades as clients and proxies send them."""

from __future__ import annotations

import pytest

from tests.running import RunningFleet
from tests.wire import ask


@pytest.fixture(params=["worker", "balancer"])
def port(request: pytest.FixtureRequest, fleet: RunningFleet) -> int:
    return fleet.port if request.param == "balancer" else int(fleet.worker_urls()[0].rsplit(":", 1)[1])


def test_white_space_around_a_header_is_no_part_of_it(port: int) -> None:
    """Spaces and tabs at the end of a line are passed over, as those at its beginning are."""
    answer = ask(port, b"GET /v1/test HTTP/1.1\r\nhost: x\r\nx-request-id: \tmy-id.2 \t \r\n\r\n")
    assert answer.headers["x-request-id"] == "my-id.2"
