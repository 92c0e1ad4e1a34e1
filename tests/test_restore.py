"""A backup taken while the library changes and speaks, restored elsewhere; what is no whole backup is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.postgres import fresh_database, running_postgres
from tests.running import ROOT, RunningWorker, free_port
from tests.workers.voices.making import voice_file
from workers.voices.artifacts import Artifacts

VOICE = voice_file()

GRACE_S = 2.0
"""How long a file may wait for the database to refer to it: longer than a voice takes to be made."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest) -> tuple[str | None, str | None]:
    """The database of the library, and an empty one for the restored library."""
    if request.param == "sqlite":
        return None, None
    server = request.getfixturevalue("postgres")
    old, new = (fresh_database(server, f"{name}_{uuid.uuid4().hex}") for name in ("old", "new"))
    return old, new


def run(program: str, *arguments: str | Path, database: str | None = None) -> subprocess.CompletedProcess[str]:
    """`scripts/backup` and `scripts/restore`, without their launcher's own environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if database:
        environment["CHATTERBOX_DATABASE_URL"] = database
    command = [sys.executable, "-P", "-m", f"workers.voices.{program}", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def worker(data: Path, database: str | None) -> RunningWorker:
    given: dict[str, Any] = {"database_url": database} if database else {}
    # Files that nothing refers to any more are removed soon: a backup must hold on to what it copies.
    return RunningWorker(free_port(0), data_dir=data, housekeeping_interval_s=0.2, artifact_grace_s=GRACE_S, **given)


def add(url: str, name: str, *, seed: int = 1) -> str:
    files = {"file": ("v.wav", voice_file(100 + seed, 2 + seed / 100))}
    answer = httpx2.post(f"{url}/voices", files=files, data={"name": name}, timeout=60, trust_env=False)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def recordings(url: str) -> dict[str, bytes]:
    """The original recordings by their voices' names."""
    voices = httpx2.get(f"{url}/voices?limit=200", timeout=30, trust_env=False).json()["voices"]
    return {
        voice["name"]: httpx2.get(f"{url}/voices/{voice['id']}/sample", timeout=30, trust_env=False).content
        for voice in voices
        if voice["samples"]
    }


def make_and_remove(url: str, stop: threading.Event) -> None:
    """Voices pass until `stop`; each is removed when its files are no longer young."""
    passing = deque[tuple[float, str]]()
    for number in count():
        if stop.wait(0.1):
            return
        passing.append((time.monotonic(), add(url, f"passing {number}", seed=number % 50 + 4)))
        while passing and passing[0][0] + GRACE_S < time.monotonic():
            httpx2.delete(f"{url}/voices/{passing.popleft()[1]}", timeout=30, trust_env=False).raise_for_status()


@contextmanager
def under_load(url: str) -> Iterator[None]:
    """One caller who makes voices and removes them again, and one who speaks."""
    stop = threading.Event()

    def speak() -> None:
        while not stop.is_set():
            request = {"text": "Under load.", "voice": "kept 0", "format": "pcm"}
            httpx2.post(f"{url}/synthesize", json=request, timeout=60, trust_env=False).raise_for_status()

    failures: list[BaseException] = []

    def watched(work: Any) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told below, in the thread that asks
            failures.append(error)

    threads = [threading.Thread(target=watched, args=[work]) for work in (lambda: make_and_remove(url, stop), speak)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == []


def test_a_backup_under_load_speaks_elsewhere(tmp_path: Path, databases: tuple[str | None, str | None]) -> None:
    """Every voice of the backup is there with its recording, byte for byte, and is spoken with; emotions too."""
    old, new = databases
    backup = tmp_path / "backup"
    with worker(tmp_path / "data", old) as before:
        kept = [add(before.url, f"kept {number}", seed=number) for number in range(3)]
        mood = {"name": "glad", "exaggeration": 0.9, "voices": kept}
        httpx2.post(f"{before.url}/emotions", json=mood, trust_env=False).raise_for_status()
        with under_load(before.url):
            for attempt in range(3):  # the last one is restored
                shutil.rmtree(backup, ignore_errors=True)
                taken = run("backup", tmp_path / "data", backup, database=old)
                assert taken.returncode == 0, (attempt, taken.stderr)
        expected = {name: sound for name, sound in recordings(before.url).items() if name.startswith("kept")}
        assert len(expected) == 3
    shutil.rmtree(tmp_path / "data")

    restored = run("restore", backup, tmp_path / "elsewhere", database=new)
    assert restored.returncode == 0, restored.stderr
    with worker(tmp_path / "elsewhere", new) as after:
        found = recordings(after.url)
        assert expected.items() <= found.items()
        for name in found:
            request = {"text": "Restored.", "voice": name, "format": "pcm"}
            spoken = httpx2.post(f"{after.url}/synthesize", json=request, timeout=60, trust_env=False)
            assert (spoken.status_code, len(spoken.content) > 4800) == (200, True), spoken.text
        request = {"text": "Restored.", "emotion": "glad"}
        told = httpx2.post(f"{after.url}/generate", json=request, timeout=60, trust_env=False).json()
        assert (told["voice"], told["parameters"]["exaggeration"]) == (kept[0], 0.9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data directory and its backup."""
    folder = tmp_path_factory.mktemp("whole")
    with worker(folder / "data", None) as running:
        add(running.url, "one")
    assert run("backup", folder / "data", folder / "backup").returncode == 0
    return folder / "data", folder / "backup"


def test_nothing_is_removed_while_a_backup_is_taken(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """Who would remove files waits until it is whole, also for those that nothing refers to any more."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    shutil.copytree(whole[0], data)
    recording = recording_in(data)
    contents = recording.read_bytes()
    recording.unlink()
    os.mkfifo(recording)  # whoever reads it waits for what is written below
    with ThreadPoolExecutor() as threads:
        taken = threads.submit(run, "backup", data, backup)
        with recording.open("wb") as reached:
            removed = threads.submit(Artifacts(data / "sha256").collect, tuple, 0)
            assert not wait([removed], timeout=0.5).done
            reached.write(contents)
        assert taken.result().returncode == 0
        assert removed.result()


def flip_a_byte(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


def recording_in(directory: Path) -> Path:
    return max((directory / "sha256").glob("??/*"), key=lambda path: path.stat().st_size)


def test_a_damaged_backup_is_refused(tmp_path: Path, whole: tuple[Path, Path]) -> None:
    """A flipped byte, a missing file, a missing database, a folder that is no backup: nothing is restored."""
    for spoil, said in (
        (lambda backup: flip_a_byte(recording_in(backup)), "is damaged"),
        (lambda backup: recording_in(backup).unlink(), "not whole"),
        (lambda backup: (backup / "library.db").unlink(), "library.db is missing"),
        (lambda backup: (backup / "library.db").write_bytes(b"no database" * 1000), "is damaged"),
        (lambda backup: (backup / "backup.json").write_text("{}"), "is no backup"),
    ):
        backup = tmp_path / "spoilt"
        shutil.copytree(whole[1], backup)
        spoil(backup)
        for arguments in ((backup, tmp_path / "data"), ("--check", backup)):
            ended = run("restore", *arguments)
            assert (ended.returncode, said in ended.stderr) == (1, True), ended.stderr
            assert "Traceback" not in ended.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["spoilt"]
        shutil.rmtree(backup)
    assert run("restore", "--check", whole[1]).returncode == 0


def test_nothing_is_overwritten(tmp_path: Path, whole: tuple[Path, Path]) -> None:
    """Neither a backup nor a data directory; an empty folder may be filled."""
    data, backup = whole
    for ended in (run("backup", data, backup), run("restore", backup, data), run("backup", tmp_path, tmp_path / "x")):
        assert ended.returncode == 1
        assert ended.stderr.startswith("error: ")
    (tmp_path / "empty").mkdir()
    assert run("restore", backup, tmp_path / "empty").returncode == 0
    assert run("restore", backup, tmp_path / "other", database="postgresql://nobody@127.0.0.1:1/x").returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_damaged_recording_is_told_and_the_rest_is_kept(tmp_path: Path, whole: tuple[Path, Path]) -> None:
    """The backup is written, its command says what was damaged in the library and ends with 1."""
    data = tmp_path / "data"
    shutil.copytree(whole[0], data)
    damaged = recording_in(data)
    flip_a_byte(damaged)
    ended = run("backup", data, tmp_path / "backup")
    assert (ended.returncode, damaged.name in ended.stderr) == (1, True), ended.stderr
    assert run("restore", "--check", tmp_path / "backup").returncode == 0


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, whole: tuple[Path, Path]) -> None:
    """A server that is not there, and a target that cannot be written."""
    unreachable = run("backup", whole[0], tmp_path / "backup", database="postgresql://nobody@127.0.0.1:1/x")
    assert (unreachable.returncode, "Traceback" in unreachable.stderr) == (1, False), unreachable.stderr
    with suppress(FileNotFoundError):
        shutil.rmtree(tmp_path / "gone")
    file = tmp_path / "file"
    file.touch()
    assert run("backup", whole[0], file / "backup").returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
