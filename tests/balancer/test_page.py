"""The web page as the balancer serves it, and the figures that it listens to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from fleet.contract import FleetStats
from tests.running import RunningBalancer, RunningFleet, wait_for

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build leaves."""
    page = tmp_path_factory.mktemp("page") / "dist"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html><title>Fleet</title>")
    (page / "assets/app-1a2b.js").write_text("plain")
    (page / "assets/app-1a2b.js.gz").write_bytes(gzip.compress(b"zipped"))
    (page.parent / "secret").write_text("not to be had")
    (page / "link").symlink_to(page.parent / "secret")
    return page


@pytest.fixture(scope="module")
def balancer(built: Path) -> Iterator[RunningBalancer]:
    with RunningBalancer("http://127.0.0.1:9", page=built) as running:
        yield running


@pytest.fixture(scope="module")
def page(balancer: RunningBalancer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=balancer.url, trust_env=False, timeout=10) as client:
        yield client


def test_browsers_get_the_page_and_programs_what_they_got_before(page: httpx2.Client) -> None:
    """Who takes HTML is shown the page; everybody else is told what this is."""
    shown = page.get("/", headers=BROWSER)
    assert (shown.status_code, shown.text) == (200, "<!doctype html><title>Fleet</title>")
    assert shown.headers["cache-control"] == "no-cache"
    told = page.get("/", headers={"accept": "*/*"})
    assert told.json()["role"] == "balancer"
    assert "Accept" in shown.headers["vary"]
    assert "Accept" in told.headers["vary"]
    again = page.get("/", headers={**BROWSER, "if-none-match": shown.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_may_reach_nothing_elsewhere(page: httpx2.Client) -> None:
    """Its policy allows this origin alone, no frame around it, and the microphone to itself."""
    headers = page.get("/ui/", headers=BROWSER).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "microphone=(self)" in headers["permissions-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_files_are_kept_by_browsers_and_sent_zipped(page: httpx2.Client) -> None:
    """What has its content's hash in its name may be kept for good; the twin goes to those who take gzip."""
    zipped = page.get("/ui/assets/app-1a2b.js", headers={"accept-encoding": "br, gzip;q=0.5"})
    assert (zipped.text, zipped.headers["content-encoding"]) == ("zipped", "gzip")
    assert zipped.headers["content-type"].startswith("text/javascript")
    assert "immutable" in zipped.headers["cache-control"]
    for refused in ("identity", "gzip;q=0"):
        plain = page.get("/ui/assets/app-1a2b.js", headers={"accept-encoding": refused})
        assert (plain.text, plain.headers.get("content-encoding")) == ("plain", None)
    assert page.head("/ui/assets/app-1a2b.js", headers={"accept-encoding": "identity"}).headers["content-length"] == "5"


@pytest.mark.parametrize(
    "path",
    [
        "/ui/none.js",
        "/ui/../secret",
        "/ui/%2e%2e/secret",
        "/ui/..%2fsecret",
        "/ui/link",
        "/ui/assets",
        "/ui//etc/passwd",
    ],
)
def test_nothing_beside_the_page_can_be_read(balancer: RunningBalancer, path: str) -> None:
    """A path leads into the page's directory or nowhere."""
    with httpx2.Client(trust_env=False) as client:
        request = client.build_request("GET", balancer.url)
        request.extensions["target"] = path.encode()
        refused = client.send(request)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "route_not_found")


def test_files_are_only_read(page: httpx2.Client) -> None:
    """Nothing is posted to a file."""
    refused = page.post("/ui/index.html")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_without_a_build_a_browser_is_told_how_to_get_one(tmp_path: Path) -> None:
    """The service runs all the same, and programs see no difference."""
    with RunningBalancer("http://127.0.0.1:9", page=tmp_path / "none") as running:
        shown = httpx2.get(f"{running.url}/", headers=BROWSER, trust_env=False)
        assert (shown.status_code, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "scripts/up" in shown.text
        assert httpx2.get(f"{running.url}/", trust_env=False).json()["role"] == "balancer"
        (tmp_path / "none").mkdir()
        (tmp_path / "none/index.html").write_text("built meanwhile")
        assert httpx2.get(f"{running.url}/", headers=BROWSER, trust_env=False).text == "built meanwhile"


def test_keys_do_not_keep_the_page_away(tmp_path: Path, built: Path) -> None:
    """It is what asks for the key; the figures it listens to need one."""
    (tmp_path / "keys").write_text("anna first-key-of-all\n")
    with RunningBalancer("http://127.0.0.1:9", page=built, api_keys=tmp_path / "keys") as running:
        assert httpx2.get(f"{running.url}/", headers=BROWSER, trust_env=False).status_code == 200
        assert httpx2.get(f"{running.url}/ui/assets/app-1a2b.js", trust_env=False).status_code == 200
        assert httpx2.get(f"{running.url}/stats/events", trust_env=False).status_code == 401


def stats_heard(answer: httpx2.Response, count: int) -> list[FleetStats]:
    heard: list[FleetStats] = []
    for line in answer.iter_lines():
        if line.startswith("data: "):
            heard.append(FleetStats.model_validate(json.loads(line.removeprefix("data: "))))
        if len(heard) == count:
            break
    return heard


def test_figures_are_told_at_once_and_each_second(fleet: RunningFleet, http: httpx2.Client) -> None:
    """As `/stats` has them, newer each time."""
    with http.stream("GET", "/stats/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        first, second = stats_heard(answer, 2)
    assert [worker.name for worker in first.workers] == [worker.name for worker in fleet.stats().workers]
    assert 0.5 < second.uptime_s - first.uptime_s < 5
    head = http.head("/stats/events")
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


def test_listeners_do_not_keep_a_balancer_from_stopping(built: Path) -> None:
    """The stream ends when the balancer does, long before its patience would."""
    with (
        RunningBalancer("http://127.0.0.1:9", page=built, shutdown_timeout_s=30) as running,
        httpx2.stream("GET", f"{running.url}/stats/events", trust_env=False, timeout=10) as answer,
    ):
        stats_heard(answer, 1)
        running.process.terminate()
        wait_for(lambda: running.process.poll() is not None, 10)
        running.start()
        wait_for(running._answers)


def test_health_tells_what_a_page_must_know(http: httpx2.Client) -> None:
    """What the engines honour, whether they clone, how long a text may be, and that it is the demo voice."""
    told = http.get("/health").json()
    assert told["demo_voice"] is True
    assert told["parameters"] == ["exaggeration"]
    assert told["clones_voices"] is True
    assert told["max_text_chars"] == 10_000


@pytest.mark.parametrize(
    ("name", "origin", "allowed"),
    [
        ("127.0.0.1", "http://127.0.0.1", True),
        ("localhost", "http://localhost", True),
        ("127.0.0.1", "http://localhost", False),  # another page's, for all that is known
        ("rebound.example", "http://rebound.example", False),  # whose name may have been bound to this machine
        ("127.0.0.1", "http://evil.example", False),
        ("127.0.0.1", "null", False),
    ],
)
def test_its_own_page_may_drain_a_worker(fleet: RunningFleet, name: str, origin: str, allowed: bool) -> None:
    """Without keys, a page is an administrator where this very address, which cannot be rebound, has served it."""
    port = fleet.port if origin != "null" else None
    headers = {"host": f"{name}:{fleet.port}", "origin": f"{origin}:{port}" if port else origin}
    answer = httpx2.post(f"{fleet.url}/workers/nobody/drain", headers=headers, trust_env=False)
    assert answer.json()["error"]["code"] in (
        ("worker_not_found",) if allowed else ("not_administrator", "origin_not_allowed")
    )


def test_a_page_of_another_port_may_not(fleet: RunningFleet) -> None:
    """Whatever else this machine serves is somebody else's."""
    headers = {"origin": f"http://127.0.0.1:{fleet.port + 1}"}
    refused = httpx2.post(f"{fleet.url}/workers/nobody/drain", headers=headers, trust_env=False)
    assert refused.json()["error"]["code"] == "not_administrator"
