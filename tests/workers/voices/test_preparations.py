"""Leases: each voice is prepared once, and no worker's death holds one up for long."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.errors import StorageFull
from tests.workers.voices.making import draft, sample, speechlike
from workers.engine.espeak import EspeakEngine
from workers.voices import preparations as preparations_module
from workers.voices import preparing
from workers.voices.artifacts import Artifacts
from workers.voices.database import Database
from workers.voices.examiner import write_copy
from workers.voices.preparations import MOST_ATTEMPTS, Preparations
from workers.voices.preparing import Preparer
from workers.voices.store import VoiceStore

KIND = "test-1"


@pytest.fixture
def store(database: Database) -> VoiceStore:
    return VoiceStore(database)


@pytest.fixture
def two(database: Database) -> tuple[Preparations, Preparations]:
    """The views of two workers with the same engine."""
    return Preparations(database, kind=KIND, owner="one"), Preparations(database, kind=KIND, owner="two")


def test_each_voice_is_claimed_once(store: VoiceStore, database: Database) -> None:
    """However many workers want it at the same time."""
    names = {store.create_voice(draft(f"v{number}"), [sample(number)], kind=KIND).id for number in range(20)}
    workers = [Preparations(database, kind=KIND, owner=f"w{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        claims = [claim for _ in range(4) for claim in pool.map(lambda worker: worker.claim(), workers)]
    claimed = [claim.voice for claim in claims if claim is not None]
    assert sorted(claimed) == sorted(names)


def test_finished_voice_is_ready_with_its_artifact(store: VoiceStore, two: tuple[Preparations, Preparations]) -> None:
    """For its kind of engine alone; another kind prepares it for itself."""
    voice = store.create_voice(draft("v"), [sample(1), sample(2)], kind=KIND)
    claim = two[0].claim()
    assert claim is not None
    assert (claim.voice, claim.copies, claim.attempt) == (voice.id, (sample(1).copy_digest, sample(2).copy_digest), 1)
    assert two[0].finish(voice.id, artifact="a" * 64, size=5)
    (found,) = store.changes(KIND, None).voices
    assert (found.status, found.conditionals, found.version) == ("ready", "a" * 64, 1)
    assert store.referenced() == {
        "a" * 64,
        *(digest for n in (1, 2) for digest in (sample(n).digest, sample(n).copy_digest)),
    }
    assert store.changes("other-1", None).voices[0].status == "pending"


def test_another_worker_takes_over_from_one_that_died(
    store: VoiceStore, two: tuple[Preparations, Preparations], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the lease is over; what the dead one would still say counts no more."""
    store.create_voice(draft("v"), [sample()], kind=KIND)
    monkeypatch.setattr(preparations_module, "LEASE_S", -1)
    first = two[0].claim()
    assert first is not None
    second = two[1].claim()
    assert second is not None
    assert (second.voice, second.attempt) == (first.voice, 2)
    assert not two[0].renew(first.voice)
    assert not two[0].finish(first.voice, artifact="a" * 64, size=1)
    assert not two[0].fail(first.voice, "too late")
    assert two[1].finish(second.voice, artifact="b" * 64, size=1)
    assert store.changes(KIND, None).voices[0].conditionals == "b" * 64


def test_lease_that_is_renewed_is_kept(
    store: VoiceStore, two: tuple[Preparations, Preparations], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as its owner says so; one that is given back is anybody's at once."""
    store.create_voice(draft("v"), [sample()], kind=KIND)
    monkeypatch.setattr(preparations_module, "LEASE_S", -1)
    claim = two[0].claim()
    assert claim is not None
    monkeypatch.setattr(preparations_module, "LEASE_S", 60)
    assert two[0].renew(claim.voice)
    assert two[1].claim() is None
    two[0].give_back(claim.voice, counted=False)
    again = two[1].claim()
    assert again is not None
    assert again.attempt == 1, "an orderly end is no attempt"
    two[1].give_back(claim.voice, counted=True)
    assert two[0].claim() == replace(again, attempt=2)


def test_urgent_voice_goes_first(store: VoiceStore, two: tuple[Preparations, Preparations]) -> None:
    """Somebody waits for it; the others follow by age."""
    ids = [store.create_voice(draft(f"v{number}"), [sample(number)], kind=KIND).id for number in range(3)]
    claims = [two[0].claim([ids[2]]), two[0].claim(), two[0].claim()]
    assert [claim.voice for claim in claims if claim is not None] == [ids[2], ids[0], ids[1]]


def test_failed_voice_says_why_and_is_not_tried_again(
    store: VoiceStore, two: tuple[Preparations, Preparations]
) -> None:
    """Its reason is visible to all."""
    voice = store.create_voice(draft("v"), [sample()], kind=KIND)
    two[0].claim()
    assert two[0].fail(voice.id, "no voiced speech")
    (found,) = store.changes(KIND, None).voices
    assert (found.status, found.reason) == ("failed", "no voiced speech")
    assert two[1].claim() is None


def test_lost_artifact_is_made_again_once(store: VoiceStore, two: tuple[Preparations, Preparations]) -> None:
    """By whoever comes first; a second complaint about the same one changes nothing."""
    voice = store.create_voice(draft("v"), [sample()], kind=KIND)
    two[0].claim()
    two[0].finish(voice.id, artifact="a" * 64, size=1)
    two[1].again(voice.id, "a" * 64)
    two[0].again(voice.id, "a" * 64)
    assert [event.kind for event in store.events(0, 100)][-2:] == ["voice.ready", "voice.pending"]
    assert two[0].claim() is not None


def test_voice_removed_while_it_is_prepared(store: VoiceStore, two: tuple[Preparations, Preparations]) -> None:
    """The work was for nothing, and no trace of it stays."""
    voice = store.create_voice(draft("v"), [sample()], kind=KIND)
    two[0].claim()
    store.delete_voice(voice.id, version=None)
    assert not two[0].finish(voice.id, artifact="a" * 64, size=1)
    assert not two[0].renew(voice.id)
    assert store.referenced() == set()


def test_common_work_has_one_leader(store: VoiceStore, two: tuple[Preparations, Preparations]) -> None:
    """Until its time is over."""
    assert store.store_id
    assert two[0].lead("work", 60)
    assert not two[1].lead("work", 60)
    assert two[0].lead("work", -1)
    assert two[1].lead("work", 60)


@asynccontextmanager
async def preparing_by(preparations: Preparations, artifacts: Artifacts) -> AsyncIterator[None]:
    """A worker's preparer at work, with the real engine."""
    engine = EspeakEngine()
    task = asyncio.create_task(Preparer(engine, preparations, artifacts, lambda: True).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        engine.close()


async def status_when(store: VoiceStore, true_of: Callable[[str], bool]) -> tuple[str, str | None]:
    async with asyncio.timeout(20):
        while True:
            (voice,) = store.changes(KIND, None).voices
            if true_of(voice.status):
                return voice.status, voice.reason
            await asyncio.sleep(0.05)  # the store is asked, as a worker asks it


async def test_voice_that_ends_its_workers_is_given_up(
    store: VoiceStore, two: tuple[Preparations, Preparations], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not go round for ever, killing one after the other."""
    store.create_voice(draft("v"), [sample()], kind=KIND)
    monkeypatch.setattr(preparations_module, "LEASE_S", -1)
    for _ in range(MOST_ATTEMPTS):
        assert two[0].claim() is not None, "and the worker dies"
    monkeypatch.undo()
    async with preparing_by(two[1], Artifacts(tmp_path)):
        status, reason = await status_when(store, lambda status: status != "pending")
    assert (status, reason) == ("failed", "every worker that prepared it ended meanwhile")


async def test_full_disk_is_waited_for(
    store: VoiceStore, two: tuple[Preparations, Preparations], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The voice stays pending for as long as it takes, and is prepared once there is room."""
    artifacts, monkeypatching = Artifacts(tmp_path), pytest.MonkeyPatch()
    write_copy(speechlike(), 24_000, str(tmp_path / "copy"))
    copy = artifacts.put((tmp_path / "copy").read_bytes())
    store.create_voice(draft("v"), [replace(sample(), copy_digest=copy)], kind=KIND)
    monkeypatch.setattr(preparing, "_PAUSE_S", 0.01)
    often = asyncio.Event()
    refused = itertools.count(1)

    def no_room(_: bytes) -> str:
        if next(refused) > 2 * MOST_ATTEMPTS:
            often.set()
        raise StorageFull("there is no room")

    monkeypatching.setattr(artifacts, "put", no_room)
    async with preparing_by(two[0], artifacts):
        await asyncio.wait_for(often.wait(), 20)
        assert (await status_when(store, bool))[0] == "pending"
        monkeypatching.undo()
        assert (await status_when(store, lambda status: status != "pending"))[0] == "ready"
