"""The nginx site with a certificate, in front of a real fleet."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import httpx2
import openai
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from tests.deploy.site import ELSEWHERE, LONG_TEXT, SPEECH, Certificate, Nginx, speak, upstream
from tests.running import RunningFleet
from tests.tools import require_tool

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One certificate for all tests here."""
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secure(fleet: RunningFleet, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """The TLS site in front of the fleet."""
    with Nginx(tmp_path_factory.mktemp("nginx"), fleet.port, certificate=certificate) as running:
        yield running


@pytest.fixture(scope="module")
def client(certificate: Certificate) -> Iterator[httpx2.Client]:
    """A client that believes the certificate."""
    with httpx2.Client(verify=certificate.trusted(), trust_env=False, timeout=60) as trusting:
        yield trusting


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_small_piece_passes_at_once(tmp_path: Path, certificate: Certificate, version: str) -> None:
    """Five bytes reach the listener before the next are made, through TLS and both versions of HTTP."""
    heard = threading.Event()
    was_heard = []

    def converse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(HEAD + b"5\r\nfirst\r\n")
        was_heard.append(heard.wait(5))
        connection.sendall(b"4\r\nlast\r\n0\r\n\r\n")

    with upstream(converse) as port, Nginx(tmp_path, port, certificate=certificate) as secure:
        curl = [require_tool("curl"), "--silent", "--no-buffer", "--noproxy", "*", "--cacert", str(certificate.chain)]
        asked = [version, "--write-out", "%{stderr}%{http_version}", "--data", "x", secure.url]
        with subprocess.Popen([*curl, *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listener:
            assert listener.stdout is not None
            first = listener.stdout.read(5)
            heard.set()
            rest, said = listener.communicate(timeout=20)
    assert (first, rest) == (b"first", b"last")
    assert was_heard == [True]
    assert version.startswith(f"--http{said.decode()}")


def test_speech_is_the_same_through_tls(secure: Nginx, fleet: RunningFleet, client: httpx2.Client) -> None:
    """A text is heard in many pieces, byte for byte as the balancer gives it."""
    text = LONG_TEXT[:1000]
    request = {"input": text, "response_format": "pcm"}
    with client.stream("POST", secure.url + SPEECH, json=request) as answer:
        assert b"".join(answer.iter_raw()) == speak(fleet.url, text)


@pytest.mark.parametrize(
    ("version", "accepted"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
def test_only_good_versions_are_spoken(
    secure: Nginx, certificate: Certificate, version: ssl.TLSVersion, accepted: bool
) -> None:
    """TLS 1.2 and 1.3 are accepted with ciphers that keep a recorded conversation secret; 1.1 is refused."""
    context = certificate.trusted()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with nullcontext() if accepted else pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", secure.port)) as connection:
        if not accepted:
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                context.wrap_socket(connection, server_hostname="127.0.0.1")
            return
        with context.wrap_socket(connection, server_hostname="127.0.0.1") as spoken:
            cipher = spoken.cipher()
            assert cipher is not None
            assert cipher[0].startswith(("ECDHE-", "TLS_"))


def test_plain_http_is_sent_to_tls(secure: Nginx) -> None:
    """A plain request is answered with its own address under https, for the same method; a proof of the name is not."""
    plain = f"http://127.0.0.1:{secure.plain_port}"
    with httpx2.Client(trust_env=False) as client:
        answer = client.post(f"{plain}{SPEECH}?a=%20b")
        assert (answer.status_code, answer.headers["location"]) == (308, f"https://127.0.0.1{SPEECH}?a=%20b")
        assert client.get(f"{plain}/.well-known/acme-challenge/none").status_code == 404


def test_browsers_are_held_to_tls_where_that_is_chosen(
    fleet: RunningFleet, certificate: Certificate, client: httpx2.Client, secure: Nginx, tmp_path: Path
) -> None:
    """The line of the site that is a remark as shipped does what it says once it is none."""
    assert "strict-transport-security" not in client.get(f"{secure.url}/health").headers
    changes = {"# add_header Strict": "add_header Strict"}
    with Nginx(tmp_path, fleet.port, certificate=certificate, changes=changes) as strict:
        answer = client.get(f"{strict.url}/health")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]


def test_figures_stay_closed_and_errors_ours(secure: Nginx, certificate: Certificate, client: httpx2.Client) -> None:
    """Both sites share one server: what is closed in one is closed in the other."""
    transport = httpx2.HTTPTransport(local_address=ELSEWHERE, verify=certificate.trusted())
    with httpx2.Client(transport=transport) as stranger:
        answer = stranger.get(f"{secure.url}/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_administrator")
    assert client.get(f"{secure.url}/metrics").status_code == 200


async def test_a_websocket_of_a_page_beside_it(secure: Nginx, certificate: Certificate) -> None:
    """A page that came through TLS may use the WebSocket; another page may not."""
    address = secure.url.replace("https", "wss") + "/v1/audio/stream"
    trusted = certificate.trusted()
    async with connect(address, proxy=None, ssl=trusted, origin=Origin(secure.url)):
        pass
    with pytest.raises(InvalidStatus):
        await connect(address, proxy=None, ssl=trusted, origin=Origin("https://elsewhere.example"))


def test_openai_client_through_it(secure: Nginx, certificate: Certificate) -> None:
    """The installed package, streaming, with a certificate it is told to believe."""
    with (
        openai.DefaultHttpxClient(verify=certificate.trusted(), trust_env=False) as http_client,
        openai.OpenAI(base_url=f"{secure.url}/v1", api_key="none", max_retries=0, http_client=http_client) as client,
        client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input="Hello through TLS.", response_format="pcm"
        ) as speech,
    ):
        assert len(b"".join(speech.iter_bytes())) > 48_000 // 2
