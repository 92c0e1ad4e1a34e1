"""The nginx site in front of two balancers over the same workers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.deploy.site import LONG_TEXT, Nginx, speak
from tests.running import RunningBalancer, RunningFleet


@pytest.fixture
def balancers(fleet: RunningFleet) -> Iterator[tuple[RunningBalancer, RunningBalancer]]:
    """Two of them, ready."""
    urls = fleet.worker_urls()
    with RunningBalancer(*urls) as first, RunningBalancer(*urls) as second:
        for balancer in (first, second):
            balancer.wait_ready(len(urls))
        yield first, second


def test_callers_are_spread_over_balancers(balancers: tuple[RunningBalancer, RunningBalancer], tmp_path: Path) -> None:
    """Both speak, and when one is killed no later request fails."""
    first, second = balancers
    text = LONG_TEXT[:200]
    with Nginx(tmp_path, first.port, second.port) as site, ThreadPoolExecutor(4) as callers:
        expected = speak(site.url, text)
        assert all(sound == expected for sound in callers.map(lambda _: speak(site.url, text), range(20)))
        assert all(balancer.stats().totals.bytes_sent > 0 for balancer in balancers)
        first.kill()
        assert all(sound == expected for sound in callers.map(lambda _: speak(site.url, text), range(20)))
