"""Keys, their limits and origins, on a real worker and a real balancer."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fleet.keys import read_keys
from fleet.startup_errors import InvalidSettings
from tests.running import ROOT, RunningBalancer, RunningWorker, free_port, wait_for

ALICE, BOB = "alices-key-0123456789", "bobs-key-0123456789"
SPEECH = {"input": "Hello.", "response_format": "pcm"}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"# callers\nalice {ALICE}\n\nbob sha256:{hashlib.sha256(BOB.encode()).hexdigest()} # hashed\n")
    return path


@pytest.fixture(scope="module", params=["worker", "balancer"])
def guarded(request: pytest.FixtureRequest, keys_file: Path) -> Iterator[str]:
    """A server that wants keys, with three requests a minute for each, and one at once."""
    settings: dict[str, Any] = {
        "api_keys": keys_file,
        "key_rate": "3/minute",
        "key_concurrency": 1,
        "cors_origins": "https://a.example",
    }
    if request.param == "worker":
        with RunningWorker(free_port(0), **settings) as worker:
            yield worker.url
    else:
        with RunningWorker(free_port(0)) as worker, RunningBalancer(worker.url, **settings) as balancer:
            wait_for(lambda: httpx2.get(f"{balancer.url}/ready", trust_env=False).status_code == 200)
            yield balancer.url


def test_open_routes_need_no_key_and_all_others_do(guarded: str) -> None:
    """A refusal says what to send, in OpenAI's shape."""
    with httpx2.Client(base_url=guarded, trust_env=False) as client:
        for path in ("/", "/health", "/ready", "/v1/test", "/v1/audio/voices", "/v1/audio/models", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        for headers in ({}, bearer("wrong"), bearer(ALICE + "0"), {"authorization": f"Basic {ALICE}"}):
            answer = client.post("/v1/audio/speech", json=SPEECH, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json()["error"]["code"] == "invalid_api_key"
        for path in ("/metrics", "/voices", "/v1/models", "/nothing"):
            assert client.get(path).status_code == 401, path


def test_each_key_has_its_own_rate(guarded: str) -> None:
    """One key's requests do not count against another's, and only speech is counted."""
    with httpx2.Client(base_url=guarded, trust_env=False, timeout=30) as client:
        for _ in range(5):
            assert client.get("/v1/models", headers=bearer(ALICE)).status_code == 200
        answers = [client.post("/v1/audio/speech", json=SPEECH, headers=bearer(ALICE)) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
        assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 61
        assert client.post("/v1/audio/speech", json=SPEECH, headers=bearer(BOB)).status_code == 200


def test_a_key_has_so_many_requests_at_once(guarded: str) -> None:
    """The place is free again when the first is over."""
    with httpx2.Client(base_url=guarded, trust_env=False, timeout=30) as client:
        long = {"input": "A long text. " * 700, "response_format": "pcm"}
        with client.stream("POST", "/v1/audio/speech", json=long, headers=bearer(BOB)) as first:
            assert first.status_code == 200
            second = client.post("/v1/audio/speech", json=SPEECH, headers=bearer(BOB))
            assert (second.status_code, second.json()["error"]["code"]) == (429, "rate_limit_exceeded")


def test_cors_names_origins_and_never_credentials(guarded: str) -> None:
    """A preflight needs no key; another origin is told nothing."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    with httpx2.Client(base_url=guarded, trust_env=False) as client:
        allowed = client.options("/v1/audio/speech", headers={"origin": "https://a.example", **asked})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert "access-control-allow-credentials" not in allowed.headers
        refused = client.options("/v1/audio/speech", headers={"origin": "https://b.example", **asked})
        assert "access-control-allow-origin" not in refused.headers
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
        for answer in (allowed, refused):
            assert len(answer.headers["x-request-id"]) == 32
        odd = client.options(
            "/health", headers={"origin": "https://a.example", "access-control-request-method": "SING"}
        )
        assert (odd.status_code, odd.json()["error"]["code"]) == (400, "bad_request")
        for path in ("/health", "/v1/test"):
            told = client.get(path, headers={"origin": "https://a.example"})
            assert told.headers.get_list("access-control-allow-origin") == ["https://a.example"]
            assert told.headers["vary"].lower() == "origin"


def test_without_keys_pages_of_other_origins_change_nothing(http: httpx2.Client) -> None:
    """A form needs no preflight, so CORS would not stop it; a page of this machine may."""
    for origin, status in (("https://evil.example", 403), ("null", 403), ("http://localhost:8000", 422)):
        answer = http.post("/voices", files={"nothing": b""}, headers={"origin": origin})
        assert answer.status_code == status, answer.text
    assert http.get("/health", headers={"origin": "http://localhost:8000"}).headers["access-control-allow-origin"]


CROSS = {"sec-fetch-site": "cross-site"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        (CROSS, 403),
        (CROSS | {"referer": "http://evil.example/page"}, 403),
        (CROSS | {"referer": "http://localhost:8000/"}, 200),
        (CROSS | {"origin": "http://localhost:8000"}, 200),
        ({"sec-fetch-site": "same-site"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_without_keys_pages_of_other_origins_have_nothing_spoken(
    http: httpx2.Client, worker_http: httpx2.Client, headers: dict[str, str], status: int
) -> None:
    """Not by an address either that an element of a page plays; a page's own origin, and those allowed, may."""
    for side in (http, worker_http):
        answer = side.get("/tts-stream", params={"text": "Hi."}, headers=headers)
        assert answer.status_code == status, answer.text
        own = side.get("/tts-stream", params={"text": "Hi."}, headers={"origin": str(side.base_url).rstrip("/")})
        assert own.status_code == 200
        assert side.get("/v1/test", headers=headers).status_code == 200


def test_a_worker_leaves_the_judgement_to_its_balancer() -> None:
    """An origin that the balancer allows is served, whatever the worker behind it would allow by itself."""
    with (
        RunningWorker(free_port(0)) as worker,
        RunningBalancer(worker.url, cors_origins="https://a.example") as balancer,
    ):
        balancer.wait_ready(1)
        for headers in (CROSS | {"origin": "https://a.example"}, CROSS | {"referer": "https://a.example/"}):
            answer = httpx2.get(f"{balancer.url}/tts-stream?text=Hi.", headers=headers, trust_env=False)
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("module", ["workers", "balancer"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"HOST": "0.0.0.0"}, "can be reached from other machines"),
        ({"KEY_RATE": "3/minute"}, "limits each key, but there are none"),
        ({"KEY_RATE": "often"}, "must be like 60/minute"),
        ({"CORS_ORIGINS": "example.org"}, "is no origin"),
        ({"API_KEYS": "/nowhere"}, "cannot be read"),
    ],
)
def test_start_is_refused(module: str, settings: dict[str, str], said: str) -> None:
    """With one line that names the setting, before anything listens."""
    prefix = {"workers": "CHATTERBOX", "balancer": "BALANCER"}[module]
    environment = {f"{prefix}_{name}": value for name, value in settings.items()} | {
        f"{prefix}_PORT": str(free_port(0))
    }
    ended = subprocess.run(
        [sys.executable, "-P", "-m", module],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert said in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "content",
    ["", "# none\n", "short\n", "a b c\n", f"a {ALICE}\na {BOB}\n", f"{ALICE}\n{ALICE}\n", "sl/ash+0123456789\n"],
)
def test_unfit_files_of_keys_are_refused(tmp_path: Path, content: str) -> None:
    """Without quoting a key."""
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(InvalidSettings) as raised:
        read_keys(path)
    assert ALICE not in raised.value.message
