"""The HTTP that is not ours to choose: heads and upgrades as clients and proxies send them."""

from __future__ import annotations

import socket
import time

import pytest

from tests.running import RunningFleet
from tests.wire import ask, read_answer

SPEECH = b'{"input": "Hi.", "response_format": "pcm"}'
H2C = (
    b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
)
FRAMED = {
    "by its length": (b"content-length: %d\r\n\r\n" % len(SPEECH), SPEECH),
    "in chunks": (b"transfer-encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(SPEECH), SPEECH)),
}


@pytest.fixture(params=["worker", "balancer"])
def port(request: pytest.FixtureRequest, fleet: RunningFleet) -> int:
    return fleet.port if request.param == "balancer" else int(fleet.worker_urls()[0].rsplit(":", 1)[1])


def test_white_space_around_a_header_is_no_part_of_it(port: int) -> None:
    """Spaces and tabs at the end of a line are passed over, as those at its beginning are."""
    answer = ask(port, b"GET /v1/test HTTP/1.1\r\nhost: x\r\nx-request-id: \tmy-id.2 \t \r\n\r\n")
    assert answer.headers["x-request-id"] == "my-id.2"


@pytest.mark.parametrize("pause_s", [0, 0.1], ids=["at once", "later"])
@pytest.mark.parametrize(("framing", "body"), FRAMED.values(), ids=FRAMED.keys())
def test_an_upgrade_to_what_is_not_spoken_here_is_ignored(
    port: int, framing: bytes, body: bytes, pause_s: float
) -> None:
    """Java's client offers HTTP/2 with every request: it is served by HTTP/1.1, body and all, and so is the next."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for _ in range(2):
            connection.sendall(H2C + framing + (b"" if pause_s else body))
            if pause_s:
                time.sleep(pause_s)
                connection.sendall(body)
            answer = read_answer(connection)
            assert (answer.status, answer.headers["content-type"]) == (200, "audio/pcm"), answer.body
        connection.sendall(b"GET /v1/test HTTP/1.1\r\nhost: x\r\n\r\n")
        assert read_answer(connection).body == b'{"status":"ok"}'


@pytest.mark.parametrize("method", [b"CONNECT", b"GET"])
def test_pipelined_upgrades_and_tunnels_are_answered(port: int, method: bytes) -> None:
    """Neither a request behind an upgrade nor one for a tunnel is lost without a word."""
    target = b"x:443" if method == b"CONNECT" else b"/v1/test"
    head = method + b" " + target + b" HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    answer = ask(port, head * 2)
    assert answer.status in ((400, 404, 405) if method == b"CONNECT" else (200,))


def test_thousands_of_upgrades_in_one_packet_are_borne(port: int) -> None:
    """Each is answered in its turn, and the server goes on."""
    request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request * 3000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert ask(port, request).status == 200
