"""Leases: each voice is prepared once, and no worker's death holds one up for long."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.workers.voices.making import draft, sample
from workers.voices import preparations as preparations_module
from workers.voices.database import Database
from workers.voices.preparations import Preparations
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
    two[0].give_back(claim.voice)
    assert two[1].claim() is not None


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
