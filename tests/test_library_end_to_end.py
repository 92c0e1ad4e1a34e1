"""One library behind several workers and a balancer, in real processes, and the faults it must survive."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.balancer.faulty import FaultyWorker, never_answer
from tests.postgres import fresh_database, running_postgres
from tests.running import RunningBalancer, RunningWorker, free_port, jobs, wait_for
from tests.workers.voices.making import voice_file

VOICE = voice_file()
QUICK: dict[str, Any] = {"housekeeping_interval_s": 0.3, "artifact_grace_s": 0.5}


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., AbstractContextManager[RunningWorker]]:
    """Starts workers that share one library, of either kind."""
    shared: dict[str, Any] = {"data_dir": tmp_path / "data"}
    if request.param == "postgresql":
        shared["database_url"] = fresh_database(request.getfixturevalue("postgres"), f"fleet_{uuid.uuid4().hex}")
    return lambda **settings: RunningWorker(free_port(0), **shared, **settings)


def upload(url: str, name: str, **fields: Any) -> httpx2.Response:
    return httpx2.post(
        f"{url}/voices", files={"file": ("v.wav", VOICE)}, data={"name": name, **fields}, timeout=30, trust_env=False
    )


def speak(url: str, voice: str, text: str = "Hello.", **fields: Any) -> httpx2.Response:
    request = {"text": text, "voice": voice, "format": "pcm", **fields}
    return httpx2.post(f"{url}/synthesize", json=request, timeout=60, trust_env=False)


def get(url: str, path: str) -> Any:
    return httpx2.get(f"{url}{path}", trust_env=False).json()


def test_change_through_one_worker_holds_on_the_other_at_once(
    start: Callable[..., AbstractContextManager[RunningWorker]],
) -> None:
    """A voice that is made, changed, used by an emotion and removed; nothing waits, nothing is mixed."""
    with start(name="one") as one, start(name="two") as two:
        assert get(one.url, "/health")["store_id"] == get(two.url, "/health")["store_id"]
        for turn in range(5):
            voice = upload(one.url, f"Anna {turn}").json()
            assert speak(two.url, f"Anna {turn}").headers["x-voice"] == voice["id"]
            renamed = {"name": f"Hanna {turn}", "defaults": {"exaggeration": 1.5}}
            httpx2.patch(f"{two.url}/voices/{voice['id']}", json=renamed, trust_env=False)
            assert speak(one.url, f"hanna {turn}").status_code == 200
            assert speak(one.url, f"Anna {turn}").status_code == 404
            mood = {"name": f"glad {turn}", "voices": [voice["id"]]}
            httpx2.post(f"{one.url}/emotions", json=mood, trust_env=False)
            told = httpx2.post(
                f"{two.url}/generate", json={"text": "Hi.", "emotion": f"glad {turn}"}, trust_env=False
            ).json()
            assert (told["voice"], told["parameters"]["exaggeration"]) == (voice["id"], 1.5)
            assert httpx2.get(f"{one.url}{told['audio_url']}", trust_env=False).status_code == 200
            forced = {"force": "true"}
            httpx2.delete(f"{two.url}/voices/{voice['id']}", params=forced, trust_env=False)
            assert speak(one.url, f"hanna {turn}").status_code == 404


def test_worker_that_dies_leaves_its_voice_to_another(
    start: Callable[..., AbstractContextManager[RunningWorker]],
) -> None:
    """Killed between the recording and its preparation: a request on another worker gets its sound."""
    with start(module="tests.workers.slow_preparing") as slow:
        assert upload(slow.url, "Orphan").status_code == 201
        time.sleep(1)
        slow.process.send_signal(signal.SIGKILL)
        slow.process.wait()
        with start() as other:
            answer = speak(other.url, "orphan")
            assert answer.status_code == 200, answer.text


def test_fifty_writers_over_two_workers(start: Callable[..., AbstractContextManager[RunningWorker]]) -> None:
    """Each is answered, and what was answered 201 is there."""
    with start() as one, start() as two:

        def write(number: int) -> tuple[int, str]:
            url = (one.url, two.url)[number % 2]
            answer = httpx2.post(f"{url}/emotions", json={"name": f"mood {number // 2}"}, timeout=60, trust_env=False)
            return answer.status_code, f"mood {number // 2}"

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(write, range(100)))
        assert sorted({status for status, _ in answers}) == [201, 409]
        assert sum(status == 201 for status, _ in answers) == 50
        for url in (one.url, two.url):
            names = {emotion["name"] for emotion in get(url, "/emotions?limit=1000")["emotions"]}
            assert {f"mood {number}" for number in range(50)} <= names


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_library_outlives_its_workers(data: Path) -> None:
    """A new worker finds the voices, ready to speak, without preparing them again."""
    with RunningWorker(free_port(0), data_dir=data) as first:
        upload(first.url, "Anna")
        sound = speak(first.url, "anna").content
    with RunningWorker(free_port(0), data_dir=data) as second:
        assert speak(second.url, "anna").content == sound
        metrics = httpx2.get(f"{second.url}/metrics", trust_env=False).text
        assert 'chatterbox_voices_prepared_total{outcome="ok"} 0.0' in metrics


def conditionals_of(data: Path) -> Path:
    with sqlite3.connect(data / "library.db") as connection:
        (digest,) = connection.execute("SELECT artifact FROM preparations").fetchone()
    return data / "sha256" / str(digest)[:2] / str(digest)


def test_damaged_conditionals_are_made_again(data: Path) -> None:
    """Set aside, rebuilt from the recording, and the request that found it is served."""
    with RunningWorker(free_port(0), data_dir=data) as first:
        upload(first.url, "Anna")
        sound = speak(first.url, "anna").content
    path = conditionals_of(data)
    contents = bytearray(path.read_bytes())
    contents[-3] ^= 1
    path.write_bytes(contents)
    with RunningWorker(free_port(0), data_dir=data) as second:
        assert speak(second.url, "anna").content == sound
        assert path.with_name(f"{path.name}.quarantined").exists()


def test_lost_recordings_are_told(data: Path) -> None:
    """Where neither the conditionals nor the copy is left, the voice says so instead of failing requests oddly."""
    with RunningWorker(free_port(0), data_dir=data) as first:
        voice = upload(first.url, "Anna").json()
        speak(first.url, "anna")
    shutil.rmtree(data / "sha256")
    with RunningWorker(free_port(0), data_dir=data) as second:
        answer = speak(second.url, "anna")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "voice_unfit")
        assert "damaged or gone" in get(second.url, f"/voices/{voice['id']}")["reason"]
        assert httpx2.get(f"{second.url}/voices/{voice['id']}/sample", trust_env=False).status_code == 404


def test_removed_voice_finishes_what_it_is_saying(data: Path) -> None:
    """Its files go later, when nothing needs them."""
    with RunningWorker(free_port(0), data_dir=data, **QUICK) as worker:
        voice = upload(worker.url, "Anna").json()
        whole = speak(worker.url, "anna", "A sentence to be said. " * 200).content
        request = {"text": "A sentence to be said. " * 200, "voice": "anna", "format": "pcm"}
        with httpx2.stream("POST", f"{worker.url}/synthesize", json=request, timeout=60, trust_env=False) as stream:
            pieces = stream.iter_raw(65536)
            first = next(pieces)
            httpx2.delete(f"{worker.url}/voices/{voice['id']}", trust_env=False)
            wait_for(lambda: not list((data / "sha256").glob("*/*")))
            assert first + b"".join(pieces) == whole
        assert speak(worker.url, "anna").status_code == 404


def test_locked_store_refuses_changes_and_lets_speech_go_on(data: Path) -> None:
    """Within a bounded time, and all is well again afterwards."""
    with RunningWorker(free_port(0), data_dir=data) as worker:
        upload(worker.url, "Anna")
        assert speak(worker.url, "anna").status_code == 200
        other = sqlite3.connect(data / "library.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        refused = httpx2.post(f"{worker.url}/emotions", json={"name": "x"}, timeout=30, trust_env=False)
        assert time.monotonic() - began < 15
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert speak(worker.url, "anna").status_code == 200
        other.execute("ROLLBACK")
        other.close()
        assert httpx2.post(f"{worker.url}/emotions", json={"name": "x"}, trust_env=False).status_code == 201


def test_full_disk_refuses_uploads_and_lets_speech_go_on(data: Path) -> None:
    """507, nothing half-written, and what is there is still read."""
    with RunningWorker(free_port(0), data_dir=data) as worker:
        upload(worker.url, "Anna")
        assert speak(worker.url, "anna").status_code == 200
        files = set((data / "sha256").rglob("*"))
        process = psutil.Process(worker.process.pid)
        process.rlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        refused = httpx2.post(
            f"{worker.url}/voices",
            files={"file": ("v.wav", voice_file(200))},
            data={"name": "Bob"},
            timeout=30,
            trust_env=False,
        )
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full"), refused.text
        generated = httpx2.post(f"{worker.url}/generate", json={"text": "word " * 50}, timeout=30, trust_env=False)
        assert (generated.status_code, generated.json()["error"]["code"]) == (507, "storage_full")
        assert set((data / "sha256").rglob("*")) == files
        assert not list((data / "outputs").iterdir())
        assert speak(worker.url, "anna").status_code == 200
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert upload(worker.url, "Bob").status_code == 201
        wait_for(lambda: jobs(worker.url) == (0, 0))


def test_balancer_carries_recordings_and_events(data: Path) -> None:
    """Uploads above a mebibyte, requests for the new voice on whichever worker is next, and the stream of events."""
    with (
        RunningWorker(free_port(0), data_dir=data, name="one") as one,
        RunningWorker(free_port(0), data_dir=data, name="two") as two,
        RunningBalancer(one.url, two.url) as balancer,
    ):
        balancer.wait_ready(2)
        with httpx2.stream("GET", f"{balancer.url}/voices/events", timeout=30, trust_env=False) as events:
            lines = events.iter_lines()
            assert next(lines).startswith(": revision")
            large = voice_file(seconds=60)
            assert len(large) > 2 * 2**20
            answer = httpx2.post(
                f"{balancer.url}/voices",
                files={"file": ("v.wav", large)},
                data={"name": "Anna"},
                timeout=30,
                trust_env=False,
            )
            assert answer.status_code == 201, answer.text
            found = {speak(balancer.url, "anna").headers["x-worker"] for _ in range(4)}
            assert found == {"one", "two"}
            told = next(json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))
            assert (told["kind"], told["name"]) == ("voice.created", "Anna")
        told = httpx2.post(f"{balancer.url}/generate", json={"text": "Hi.", "voice": "anna"}, trust_env=False).json()
        for _ in range(2):
            assert httpx2.get(balancer.url + told["audio_url"], trust_env=False).status_code == 200
        for path, size in (("/voices", 60 * 2**20), ("/emotions/calm/voices", 60 * 2**20), ("/emotions", 2 * 2**20)):
            assert httpx2.post(balancer.url + path, content=bytes(size), trust_env=False).status_code == 413


def test_balancer_refuses_a_worker_with_another_library(tmp_path: Path) -> None:
    """Voices would come and go with the turn; the reason is told, and the worker joins once it is the same."""
    with (
        RunningWorker(free_port(0), data_dir=tmp_path / "one", name="one") as one,
        RunningWorker(free_port(0), data_dir=tmp_path / "two", name="two") as two,
        RunningBalancer(one.url, two.url) as balancer,
    ):
        wait_for(lambda: balancer.stats().totals.ready == 1)
        time.sleep(2)
        stats = balancer.stats()
        assert stats.totals.ready == 1
        (refused,) = [worker for worker in stats.workers if worker.state != "ready"]
        assert "another" in (refused.reason or "")


def test_write_that_was_sent_is_never_sent_again(data: Path) -> None:
    """A worker that is lost over it costs the caller an error, not a second voice."""
    with (
        FaultyWorker(never_answer) as lost,
        RunningWorker(free_port(0), data_dir=data) as other,
        RunningBalancer(lost.url, other.url, idle_timeout_s=1) as balancer,
    ):
        balancer.wait_ready(2)
        answers = [
            httpx2.post(f"{balancer.url}/emotions", json={"name": f"m{number}"}, timeout=30, trust_env=False)
            for number in range(2)
        ]
        assert sorted(answer.status_code for answer in answers) == [201, 504]
        assert lost.posts == 1


@pytest.mark.parametrize("told", ["worker", "balancer"])
def test_follower_of_changes_does_not_hold_up_the_end(tmp_path: Path, told: str) -> None:
    """A server that is told to end closes its streams of changes at once, whole, and ends long before its limit."""
    with (
        RunningWorker(free_port(0), data_dir=tmp_path / "data", shutdown_timeout_s=60) as worker,
        RunningBalancer(worker.url, probe_interval_s=0.1, shutdown_timeout_s=60) as balancer,
    ):
        balancer.wait_ready(1)
        server = worker if told == "worker" else balancer
        with httpx2.stream("GET", f"{server.url}/voices/events", timeout=30, trust_env=False) as following:
            lines = following.iter_lines()
            assert next(lines).startswith(": revision")
            server.process.terminate()
            assert server.process.wait(20) in (0, -signal.SIGTERM)
            assert not any(line.startswith("data:") for line in lines)
