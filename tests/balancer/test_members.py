"""Workers that come and go: a file read again on SIGHUP, a DNS name, registrations with a lease, who may do that."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from balancer.members import Members, Named, read_file
from balancer.policy import RoundRobin
from balancer.pool import WorkerPool
from fleet.startup_errors import InvalidSettings
from tests.balancer.asking import ask, open_stream, whole_answer
from tests.running import RunningBalancer, RunningTone, RunningWorker, free_port, wait_for

ADMIN, USER = "admin-key-0123456789", "user-key-01234567890"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def test_file_is_read_again_on_sighup_without_losing_a_stream(stack: ExitStack, tmp_path: Path) -> None:
    """A worker that is taken out finishes its stream; a file that is no good changes nothing."""
    old, new = (stack.enter_context(RunningTone(name)) for name in ("old", "new"))
    file = tmp_path / "workers"
    file.write_text(f"# those of this machine\n{old.url}\n")
    balancer = stack.enter_context(RunningBalancer(workers_file=file))
    balancer.wait_ready(1)
    stream = stack.enter_context(open_stream(balancer, audio_s=2))
    assert stream.recv(20).startswith(b"HTTP/1.1 200")
    file.write_text(f"{new.url}\n")
    balancer.signal(signal.SIGHUP)
    wait_for(lambda: [(worker.name, worker.state) for worker in balancer.stats().workers][:1] == [("new", "ready")])
    leaving = balancer.stats().workers[1]
    assert (leaving.name, leaving.state, leaving.source) == ("old", "draining", "gone")
    assert {ask(balancer, tone={"audio_s": 0.2}).headers["x-worker"] for _ in range(3)} == {"new"}
    assert whole_answer(stream).endswith(b"0\r\n\r\n")
    wait_for(lambda: len(balancer.stats().workers) == 1)
    file.write_text("ftp://nonsense\n")
    balancer.signal(signal.SIGHUP)
    assert ask(balancer, tone={"audio_s": 0.2}).status_code == 200
    assert [worker.url for worker in balancer.stats().workers] == [new.url]


def test_worker_registers_itself_and_takes_its_leave(stack: ExitStack) -> None:
    """It is used as long as it renews its lease; one that is killed is forgotten when the lease is over."""
    balancer = stack.enter_context(RunningBalancer(workers="none", probe_interval_s=0.2))
    assert balancer.stats().workers == []
    with RunningWorker(free_port(0), name="guest", balancers=balancer.url, lease_s=1):
        balancer.wait_ready(1)
        worker = balancer.stats().workers[0]
        assert (worker.name, worker.source) == ("guest", "registered")
        assert ask(balancer, input="Hello.").headers["x-worker"] == "guest"
    wait_for(lambda: balancer.stats().workers == [], 2.0)
    with RunningWorker(free_port(0), name="guest", balancers=balancer.url, lease_s=1) as killed:
        balancer.wait_ready(1)
        killed.kill()
        killed.start()  # so that the end of the test finds a process
        wait_for(lambda: balancer.states() in ([], ["dead"]), 3.0)
    wait_for(lambda: balancer.stats().workers == [], 5.0)


def test_only_administrators_change_the_pool(stack: ExitStack, tmp_path: Path) -> None:
    """Where there are keys it takes one with the word `admin`; what is wrong is refused with its field's name."""
    keys = tmp_path / "keys"
    keys.write_text(f"ops {ADMIN} admin\nalice {USER}\n")
    fixed, guest = stack.enter_context(RunningTone("fixed")), stack.enter_context(RunningTone("guest"))
    balancer = stack.enter_context(RunningBalancer(fixed.url, api_keys=keys))
    client = stack.enter_context(httpx2.Client(base_url=balancer.url, trust_env=False))
    body = {"url": guest.url, "lease_s": 60}

    def status(method: str, path: str, key: str | None, body: object = None) -> int:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return client.request(method, path, json=body, headers=headers).status_code

    for key, expected in ((None, 401), (USER, 403), (ADMIN, 201), (ADMIN, 200)):
        assert status("POST", "/workers", key, body) == expected
        assert status("POST", "/workers/fixed/drain", key) == (200 if key == ADMIN else expected)
    assert status("POST", "/workers/fixed/resume", ADMIN) == 200
    assert status("DELETE", "/workers/fixed", ADMIN) == 409
    host = guest.url.removeprefix("http://")
    assert status("DELETE", f"/workers/{host}", USER) == 403
    assert status("DELETE", f"/workers/{host}", ADMIN) == 204
    assert status("DELETE", f"/workers/{host}", ADMIN) == 404
    assert status("GET", "/workers", ADMIN) == 405
    assert status("PUT", "/draining", ADMIN, {"draining": True}) == 404, "a worker's own route is not reached so"
    for wrong, param in (
        ({}, "url"),
        ({"url": 7}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "http://x/path"}, "url"),
        ({"url": "http://user@x"}, "url"),
        ({"url": "http://x", "lease_s": 0}, "lease_s"),
        ({"url": "http://x", "lease_s": "long"}, "lease_s"),
        ({"url": "http://x", "name": "y"}, "name"),
        ([], None),
    ):
        refused = client.post("/workers", json=wrong, headers={"authorization": f"Bearer {ADMIN}"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, param), wrong
    assert [worker.url for worker in balancer.stats_with(ADMIN).workers] == [fixed.url]


async def test_name_stands_for_all_its_addresses_and_follows_them() -> None:
    """Addresses that appear are taken in, those that go are taken out, and a name that fails keeps what it had."""
    addresses: list[str] | OSError = ["10.0.0.1", "10.0.0.2"]

    async def resolver(host: str, port: int) -> list[str]:
        assert (host, port) == ("workers.internal", 6100)
        if isinstance(addresses, OSError):
            raise addresses
        return addresses

    pool = WorkerPool(RoundRobin())
    members = Members(pool, ["dns://workers.internal:6100"], file=None, dns_interval_s=0.01, resolver=resolver)

    async def hosts(expected: list[str]) -> None:
        async with asyncio.timeout(3):
            while [worker.url for worker in pool.workers] != [f"http://{host}:6100" for host in expected]:  # noqa: ASYNC110 - polled, as a user would
                await asyncio.sleep(0.01)

    async with members.running():
        await hosts(["10.0.0.1", "10.0.0.2"])
        assert members.source_of(pool.workers[0]) == "dns://workers.internal:6100"
        addresses = ["10.0.0.2", "fd00::1"]
        await hosts(["10.0.0.2", "[fd00::1]"])
        addresses = socket.gaierror("no such name")
        await asyncio.sleep(0.1)
        await hosts(["10.0.0.2", "[fd00::1]"])


def test_real_name_is_resolved_by_the_system(stack: ExitStack) -> None:
    """`localhost`, by a balancer in its own process."""
    tone = stack.enter_context(RunningTone())
    balancer = stack.enter_context(RunningBalancer(f"dns://localhost:{tone.port}", probe_interval_s=0.1))
    wait_for(lambda: balancer.stats().totals.ready >= 1)
    assert f"http://127.0.0.1:{tone.port}" in [worker.url for worker in balancer.stats().workers]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["http://a", "http://a:80"], "twice"),
        (["http://a", "http://a"], "twice"),
        (["gopher://a"], "http://HOST:PORT"),
        (["dns://a"], "dns://HOST:PORT"),
        (["http://a/b"], "nothing more"),
        (["http://a:port"], "no address"),
        (["http://ä"], "nothing more"),
    ],
)
def test_wrong_words_are_named(words: list[str], said: str, tmp_path: Path) -> None:
    """In the settings and in the file alike."""
    file = tmp_path / "workers"
    file.write_text("\n".join(words))
    with pytest.raises(ValueError, match=said):
        Named.of(words)
    with pytest.raises(InvalidSettings, match=said):
        read_file(file)


def test_web_pages_of_others_administrate_nothing(stack: ExitStack) -> None:
    """Without keys neither from an origin that is a name, which may be rebound, nor by a path that hides what it is."""
    tone = stack.enter_context(RunningTone("tone"))
    balancer = stack.enter_context(RunningBalancer(tone.url))
    balancer.wait_ready(1)
    for origin in ("http://evil.example", f"http://rebound.example:{balancer.port}"):
        headers = {"origin": origin, "host": origin.partition("://")[2]}
        refused = httpx2.post(f"{balancer.url}/workers/tone/drain", headers=headers, trust_env=False)
        assert refused.status_code == 403, origin
    assert httpx2.post(f"{balancer.url}/workers/tone%0A/drain", trust_env=False).status_code == 404
    assert balancer.states() == ["ready"]
