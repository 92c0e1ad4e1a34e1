"""What the nginx site refuses, and how it says so."""

from __future__ import annotations

import gzip
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from fleet.error_answers import from_response
from fleet.errors import (
    BodyTooLarge,
    FleetError,
    HeadersTooLarge,
    NotAdministrator,
    RateLimited,
    UpstreamFailed,
    UpstreamTimeout,
)
from tests.deploy.site import ELSEWHERE, SPEECH, Nginx, upstream
from tests.running import ROOT, wait_for

EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def error_of(answer: httpx2.Response, kind: type[FleetError]) -> FleetError:
    """The error of nginx's own that an answer tells, its shape asserted."""
    assert answer.status_code == kind.status
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    error = from_response(answer.status_code, body)
    assert type(error) is kind
    assert body == error.body(answer.headers["x-request-id"])
    return error


def stranger() -> httpx2.Client:
    """A client on another machine, as far as nginx can tell."""
    return httpx2.Client(transport=httpx2.HTTPTransport(local_address=ELSEWHERE))


def answer_all(connection: socket.socket) -> None:
    """Say yes to each request of a connection."""
    while connection.recv(65536):
        connection.sendall(EMPTY)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_body_above_the_limit_is_refused(site: Nginx, declared: bool) -> None:
    """A body above 1 MiB gets 413 in nginx's own words, whether or not it says its length."""
    body = bytes(1024 * 1024 + 1)
    answer = httpx2.post(site.url + SPEECH, content=body if declared else iter([body]), trust_env=False)
    assert error_of(answer, BodyTooLarge).message == "the body is larger than the server takes"


def test_a_recording_may_be_larger_than_other_bodies(site: Nginx) -> None:
    """2 MiB that are no recording pass nginx on the way to the library, which says what is wrong with them."""
    answer = httpx2.post(
        f"{site.url}/voices",
        files={"file": ("noise.wav", bytes(2 * 1024 * 1024))},
        data={"name": "Large"},
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "recording_unfit"


@pytest.mark.parametrize(
    "path", ["/metrics", "/stats", "/%6detrics", "//stats", "/workers", "/workers/x/drain", "/draining"]
)
def test_figures_and_administration_are_for_this_machine_only(site: Nginx, path: str) -> None:
    """Another address may not read the figures, however it spells them and whatever it claims to be."""
    claimed = {"x-forwarded-for": "127.0.0.1"}
    with stranger() as client:
        error_of(client.get(site.url + path, headers=claimed), NotAdministrator)
        assert client.get(site.url + "/health", headers=claimed).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/stats"])
def test_this_machine_reads_the_figures(site: Nginx, path: str) -> None:
    """This machine may read the figures through nginx."""
    assert httpx2.get(site.url + path, trust_env=False).status_code == 200


def test_a_burst_above_the_rate_is_refused(tmp_path: Path) -> None:
    """After its burst an address is answered 429 and told when to come again, while this machine is not counted."""
    changes = {"rate=100r/s": "rate=1r/m", "burst=500": "burst=2"}
    with upstream(answer_all) as port, Nginx(tmp_path, port, changes=changes) as site:
        with stranger() as client:
            answers = [client.get(site.url) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        error_of(answers[-1], RateLimited)
        assert answers[-1].headers["retry-after"] == "1"
        assert all(httpx2.get(site.url, trust_env=False).status_code == 200 for _ in range(4))


def test_the_shipped_limits_bear_what_the_fleet_bears(tmp_path: Path) -> None:
    """500 requests in a row from one address all pass, and as many may be in flight."""
    with upstream(answer_all) as port, Nginx(tmp_path, port) as site, stranger() as client:
        assert {client.get(site.url).status_code for _ in range(500)} == {200}
    text = (ROOT / "nginx/snippets/chatterbox-fleet-server.conf").read_text()
    assert int(re.findall(r"limit_conn chatterbox_connections (\d+);", text)[0]) >= 500


def test_an_address_may_hold_so_many_requests(tmp_path: Path) -> None:
    """One more request in flight than an address may have is answered 429, and when one ends the next is served."""
    arrived, go_on = threading.Event(), threading.Event()

    def converse(connection: socket.socket) -> None:
        while connection.recv(65536):
            arrived.set()
            go_on.wait(10)
            connection.sendall(EMPTY)

    changes = {"limit_conn chatterbox_connections 512": "limit_conn chatterbox_connections 1"}
    with (
        upstream(converse) as port,
        Nginx(tmp_path, port, changes=changes) as site,
        stranger() as client,
        stranger() as another,
        ThreadPoolExecutor(1) as caller,
    ):
        held = caller.submit(client.get, site.url, timeout=20)
        assert arrived.wait(10)
        error_of(another.get(site.url), RateLimited)
        go_on.set()
        assert held.result().status_code == 200
        assert another.get(site.url).status_code == 200


@pytest.mark.parametrize(
    "beginning",
    [b"POST /v1/audio/speech HTTP/1.1\r\nhost: a\r\n", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{"],
    ids=["header", "body"],
)
def test_who_sends_nothing_more_is_closed(tmp_path: Path, beginning: bytes) -> None:
    """A request that stops half-way is closed without troubling the balancer."""
    asked: list[bytes] = []
    changes = {
        "client_header_timeout 15s": "client_header_timeout 1s",
        "client_body_timeout 30s": "client_body_timeout 1s",
    }
    with (
        upstream(lambda connection: asked.append(connection.recv(65536))) as port,
        Nginx(tmp_path, port, changes=changes) as site,
        socket.create_connection(("127.0.0.1", site.port)) as connection,
    ):
        connection.settimeout(20)
        connection.sendall(beginning)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
    assert asked == []


def test_a_header_that_drips_is_closed(tmp_path: Path) -> None:
    """A header of which something arrives all the time is closed all the same when its time is over."""
    with (
        Nginx(tmp_path, 1, changes={"client_header_timeout 15s": "client_header_timeout 1s"}) as site,
        socket.create_connection(("127.0.0.1", site.port)) as connection,
    ):
        connection.settimeout(0.1)
        connection.sendall(b"GET / HTTP/1.1\r\n")
        wait_for(lambda: _is_closed_on_another_line(connection))


def _is_closed_on_another_line(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection over which one more line of a header was sent."""
    try:
        connection.sendall(b"x-drip: 1\r\n")
        return connection.recv(65536) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_balancer_that_is_away_is_told_as_an_error_of_ours(tmp_path: Path) -> None:
    """502 comes in the project's shape, with the caller's own request id where it is well formed."""
    with Nginx(tmp_path, 1) as site, httpx2.Client(trust_env=False) as client:
        answer = client.post(site.url + "/outputs/x.wav", headers={"x-request-id": "mine-1"})
        error_of(answer, UpstreamFailed)
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["retry-after"] == "2"
        answer = client.get(site.url, headers={"x-request-id": 'no"id'})
        error_of(answer, UpstreamFailed)
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_silent_balancer_is_told_as_an_error_of_ours(tmp_path: Path) -> None:
    """504 comes when a balancer takes a request and says nothing."""
    changes = {"proxy_read_timeout 260s": "proxy_read_timeout 1s"}
    silent = threading.Event()

    def converse(connection: socket.socket) -> None:
        connection.recv(65536)
        silent.wait(20)

    with upstream(converse) as port, Nginx(tmp_path, port, changes=changes) as site:
        answer = httpx2.post(site.url + SPEECH, trust_env=False, timeout=20)
        silent.set()
    error_of(answer, UpstreamTimeout)
    assert answer.headers["retry-after"] == "2"


def test_headers_too_large_are_told_as_an_error_of_ours(site: Nginx) -> None:
    """A header line above nginx's 8 KiB is answered 431."""
    error_of(httpx2.get(site.url, headers={"x-large": "x" * 9000}, trust_env=False), HeadersTooLarge)


def test_the_balancers_own_errors_pass_as_they_are(tmp_path: Path) -> None:
    """An error that the balancer answers keeps its body, its Retry-After and its id, each there once."""
    told = b'{"error": {"code": "not_ready"}}'
    head = b"HTTP/1.1 503 No\r\nx-request-id: theirs\r\nretry-after: 7\r\ncontent-length: %d\r\n\r\n" % len(told)

    def converse(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(head + told)

    with upstream(converse) as port, Nginx(tmp_path, port) as site:
        answer = httpx2.get(site.url, trust_env=False)
    assert (answer.status_code, answer.content) == (503, told)
    assert answer.headers.get_list("retry-after") == ["7"]
    assert answer.headers.get_list("x-request-id") == ["theirs"]


def test_the_balancer_is_told_the_request_id(tmp_path: Path) -> None:
    """The balancer logs a request by the id that nginx would tell of it."""
    seen: list[str] = []

    def converse(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            seen.append(request.decode().lower())
            connection.sendall(EMPTY)

    with upstream(converse) as port, Nginx(tmp_path, port) as site, httpx2.Client(trust_env=False) as client:
        client.get(site.url, headers={"x-request-id": "mine-1"})
        client.get(site.url)
    assert "\r\nx-request-id: mine-1\r\n" in seen[0]
    assert re.search(r"\r\nx-request-id: [0-9a-f]{32}\r\n", seen[1])


def test_files_of_a_page_are_served_beside_the_balancer(tmp_path: Path) -> None:
    """A file under /ui/ comes from the disk, gzipped where it may be; the page and the rest are the balancer's."""
    (tmp_path / "www/ui/assets").mkdir(parents=True)
    (tmp_path / "www/ui/index.html").write_text("a page")
    (tmp_path / "www/ui/icon.svg").write_text("an icon")
    (tmp_path / "www/ui/assets/app-1a2b.js").write_text("plain")
    (tmp_path / "www/ui/assets/app-1a2b.js.gz").write_bytes(gzip.compress(b"zipped"))
    with upstream(answer_all) as port, Nginx(tmp_path, port) as site, httpx2.Client(trust_env=False) as client:
        for path in ("", "index.html", "other", "assets/gone.js"):
            assert client.get(f"{site.url}/ui/{path}").content == b"", path
        icon = client.get(f"{site.url}/ui/icon.svg")
        assert (icon.text, icon.headers["cache-control"]) == ("an icon", "no-cache")
        zipped = client.get(f"{site.url}/ui/assets/app-1a2b.js", headers={"accept-encoding": "gzip"})
        assert (zipped.text, zipped.headers["content-encoding"]) == ("zipped", "gzip")
        assert "immutable" in zipped.headers["cache-control"]
        plain = client.get(f"{site.url}/ui/assets/app-1a2b.js", headers={"accept-encoding": "identity"})
        assert (plain.text, plain.headers["x-content-type-options"]) == ("plain", "nosniff")
