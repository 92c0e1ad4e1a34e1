"""The store, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from fleet.errors import (
    EmotionNotFound,
    FleetError,
    NameTaken,
    PreconditionFailed,
    StorageFull,
    StoreUnavailable,
    VoiceInUse,
    VoiceNotFound,
)
from fleet.library_contract import EmotionProfile, SpeakingDefaults, VoiceChanges
from fleet.startup_errors import LibraryUnusable
from tests.workers.voices.making import draft, sample
from workers.voices import database as database_module
from workers.voices.database import Database, sqlite_url
from workers.voices.records import VoiceDraft, VoiceRecord
from workers.voices.schema import metadata
from workers.voices.store import VoiceStore

KIND = "test-1"


@pytest.fixture
def store(database: Database) -> VoiceStore:
    return VoiceStore(database, reserved=frozenset({"alto"}))


def made(store: VoiceStore, name: str, *aliases: str, number: int = 0) -> VoiceRecord:
    return store.create_voice(draft(name, *aliases), [sample(number)], kind=KIND)


def test_schema_is_what_the_migrations_make(database: Database) -> None:
    """Nothing in the tables' description is missing from the database, and nothing there is undescribed."""
    with database.reading() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert found == []


def test_first_start_brings_three_profiles_once(database_url: str) -> None:
    """A second start finds the same library, and what was removed from it stays so."""
    first = Database.open(database_url)
    store = VoiceStore(first)
    assert {emotion.name for emotion in store.changes(KIND, None).emotions} == {"neutral", "expressive", "calm"}
    store.delete_emotion("calm", version=None)
    first.close()
    second = Database.open(database_url)
    again = VoiceStore(second)
    assert again.store_id == store.store_id
    assert {emotion.name for emotion in again.changes(KIND, None).emotions} == {"neutral", "expressive"}
    second.close()


def test_many_processes_may_start_at_once(database_url: str) -> None:
    """Migrations run once, however many workers find the database empty."""
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: Database.open(database_url), range(8)))
        ids = set(pool.map(lambda database: VoiceStore(database).store_id, opened))
    assert len(ids) == 1
    for database in opened:
        database.close()


def test_library_of_a_newer_version_is_refused(database_url: str) -> None:
    """Rather than misread: the message says why."""
    database = Database.open(database_url)
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(LibraryUnusable, match="newer version"):
        Database.open(database_url)


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite:////nowhere/at/all.db"])
def test_unusable_address_is_refused(url: str) -> None:
    """With an error of our own."""
    with pytest.raises(LibraryUnusable):
        Database.open(url)


def test_password_is_not_told() -> None:
    """A server that does not answer is named without the secret."""
    with pytest.raises(LibraryUnusable) as refused:
        Database.open("postgresql://fleet:secret@127.0.0.1:1/library")
    assert "secret" not in refused.value.message


def test_voice_is_read_as_it_was_made(store: VoiceStore) -> None:
    """All fields come back, in any script."""
    drafted = VoiceDraft(
        "Жанна \N{DEVANAGARI LETTER KA}",
        description="tief",
        language="de",
        aliases=("narrator", "Ünï"),
        defaults=SpeakingDefaults(exaggeration=0.25, top_k=7),
    )
    voice = store.create_voice(drafted, [sample(1), sample(2)], kind=KIND)
    assert (voice.name, voice.description, voice.language) == (drafted.name, "tief", "de")
    assert voice.aliases == drafted.aliases
    assert voice.defaults == drafted.defaults
    assert voice.samples == (sample(1), sample(2))
    assert (voice.status, voice.version) == ("pending", 1)
    assert store.changes(KIND, None).voices == [voice]


@pytest.mark.parametrize(
    ("first", "second"),
    [("Anna", "ANNA"), ("Straße", "STRASSE"), ("\uff21nna", "anna"), ("e\u0301va", "\u00e9VA")],
)
def test_names_that_look_alike_are_one(store: VoiceStore, first: str, second: str) -> None:
    """Case, width and composition make no other name."""
    made(store, first)
    with pytest.raises(NameTaken) as refused:
        made(store, second)
    assert refused.value.param == "name"


def test_alias_of_another_voice_is_taken(store: VoiceStore) -> None:
    """Ids, names and aliases are one name space."""
    anna = made(store, "Anna", "narrator")
    for names in (("Bob", "Narrator"), ("Bob", anna.id), ("narrator",)):
        with pytest.raises(NameTaken):
            made(store, *names)
    bob = made(store, "Bob")
    with pytest.raises(NameTaken) as refused:
        store.change_voice(bob.id, VoiceChanges(aliases=["x", "anna"]), kind=KIND, version=None)
    assert refused.value.param == "aliases"


def test_ids_are_readable_and_unique(store: VoiceStore) -> None:
    """Made of the name where it has Latin letters, never one of the engine's."""
    assert made(store, "Élodie du Pont").id == "elodie-du-pont"
    assert made(store, "élodie, du pont").id.startswith("elodie-du-pont-")
    assert made(store, "Alto").id.startswith("alto-")
    assert made(store, "声").id.startswith("voice-")


def test_of_two_uploads_of_one_name_one_is_kept(store: VoiceStore) -> None:
    """At the same moment, with the loser told."""
    barrier = threading.Barrier(2)

    def upload(_: int) -> str:
        barrier.wait()
        try:
            return made(store, "Anna").name
        except NameTaken as error:
            return error.code

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(upload, range(2))) == ["Anna", "name_taken"]


def test_fifty_writers_at_once(store: VoiceStore) -> None:
    """None is lost, and events are numbered without a gap."""
    before = store.revision()
    with ThreadPoolExecutor(50) as pool:
        names = list(pool.map(lambda number: made(store, f"voice {number}", number=number).name, range(50)))
    changes = store.changes(KIND, before)
    assert {voice.name for voice in changes.voices} == set(names)
    assert [event.revision for event in changes.events] == list(range(before + 1, before + 51))


def test_lost_update_is_refused(store: VoiceStore) -> None:
    """Of many who change the version they have read, one succeeds."""
    anna = made(store, "Anna")

    def change(number: int) -> bool:
        try:
            store.change_voice(anna.id, VoiceChanges(description=str(number)), kind=KIND, version=1)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(change, range(8))) == 1
    assert store.change_voice(anna.id, VoiceChanges(description="x"), kind=KIND, version=None).version == 3


def test_change_leaves_out_what_is_not_named(store: VoiceStore) -> None:
    """And null clears what may be absent."""
    anna = store.create_voice(
        VoiceDraft("Anna", language="de", aliases=("a",), defaults=SpeakingDefaults(top_k=1)), [sample()], kind=KIND
    )
    changed = store.change_voice(anna.id, VoiceChanges(name="Hanna"), kind=KIND, version=None)
    assert (changed.name, changed.language, changed.aliases) == ("Hanna", "de", ("a",))
    cleared = store.change_voice(
        anna.id, VoiceChanges(language=None, aliases=None, defaults=None, name=None), kind=KIND, version=None
    )
    assert (cleared.name, cleared.language, cleared.aliases) == ("Hanna", None, ())
    assert cleared.defaults == SpeakingDefaults()
    made(store, "anna's old name is free again", "a")


def test_removed_voice_is_gone_with_all_it_had(store: VoiceStore) -> None:
    """Its names are free, and nothing refers to its files."""
    anna = store.create_voice(draft("Anna", "a", default=True), [sample()], kind=KIND)
    assert store.changes(KIND, None).default_voice == anna.id
    store.delete_voice(anna.id, version=1)
    assert store.changes(KIND, None).default_voice is None
    assert store.referenced() == set()
    with pytest.raises(VoiceNotFound):
        store.delete_voice(anna.id, version=None)
    made(store, "Anna", "a")


def test_voice_in_use_is_removed_only_by_force(store: VoiceStore) -> None:
    """Which takes it out of its profiles, each with a new version and an event."""
    anna, bob = made(store, "Anna"), made(store, "Bob")
    mood = store.create_emotion(EmotionProfile(name="sad"), [anna.id, bob.id])
    with pytest.raises(VoiceInUse, match="'sad'"):
        store.delete_voice(anna.id, version=None)
    before = store.revision()
    store.delete_voice(anna.id, version=None, force=True)
    changes = store.changes(KIND, before)
    assert [event.kind for event in changes.events] == ["voice.deleted", "emotion.updated"]
    assert [(found.voices, found.version) for found in changes.emotions] == [((bob.id,), mood.version + 1)]


def test_emotion_is_read_as_it_was_made(store: VoiceStore) -> None:
    """And replaced as a whole."""
    anna = made(store, "Anna")
    profile = EmotionProfile(name="Très triste", character="Anna", description="d", exaggeration=1.5, min_p=0.1)
    mood = store.create_emotion(profile, [anna.id, "alto"])
    assert (mood.id, mood.character, mood.voices) == ("tres-triste", "Anna", (anna.id, "alto"))
    assert mood.defaults == SpeakingDefaults(exaggeration=1.5, min_p=0.1)
    replaced = store.replace_emotion(mood.id, EmotionProfile(name="glad", temperature=1), [], version=1)
    assert (replaced.id, replaced.name, replaced.character, replaced.voices) == (mood.id, "glad", "", ())
    assert replaced.defaults == SpeakingDefaults(temperature=1)
    assert replaced.created_at == mood.created_at < replaced.updated_at


def test_emotion_is_refused_where_it_cannot_be(store: VoiceStore) -> None:
    """A taken name, a voice that is not there, a version that is not the newest, an id that is not there."""
    calm = EmotionProfile(name="CALM")
    cases: list[tuple[type[FleetError], Callable[[], Any]]] = [
        (NameTaken, lambda: store.create_emotion(calm, [])),
        (NameTaken, lambda: store.replace_emotion("neutral", calm, [], version=None)),
        (VoiceNotFound, lambda: store.create_emotion(EmotionProfile(name="x"), ["gone"])),
        (PreconditionFailed, lambda: store.replace_emotion("calm", calm, [], version=7)),
        (PreconditionFailed, lambda: store.delete_emotion("calm", version=7)),
        (EmotionNotFound, lambda: store.delete_emotion("nobody", version=None)),
        (EmotionNotFound, lambda: store.create_voice(draft("v"), [sample()], kind=KIND, emotion="nobody")),
    ]
    before = store.revision()
    for error, attempt in cases:
        with pytest.raises(error):
            attempt()
    assert store.revision() == before, "a refused change leaves nothing behind"
    assert store.replace_emotion("calm", calm, [], version=1).name == "CALM"


def test_reader_is_told_what_changed_and_no_more(store: VoiceStore) -> None:
    """Or everything, when what came between is no longer kept."""
    anna = made(store, "Anna")
    since = store.revision()
    bob = made(store, "Bob")
    store.delete_voice(anna.id, version=None)
    changes = store.changes(KIND, since)
    assert not changes.whole
    assert [voice.id for voice in changes.voices] == [bob.id]
    assert changes.voice_ids == {anna.id, bob.id}
    assert store.changes(KIND, -10).whole
    assert [event.kind for event in store.events(since, 1)] == ["voice.created"]


def test_library_may_not_outgrow_its_share(database: Database) -> None:
    """The recordings that would are refused, and leave nothing behind."""
    store = VoiceStore(database, limit_bytes=65)
    made(store, "Anna", number=1)
    made(store, "Bob", number=2)
    with pytest.raises(StorageFull):
        made(store, "Carl", number=3)
    assert len(store.changes(KIND, None).voices) == 2


def test_locked_store_is_waited_for_and_then_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers wait for a bounded time; readers go on."""
    monkeypatch.setattr(database_module, "LONGEST_WAIT_S", 0.2)
    database = Database.open(sqlite_url(tmp_path / "library.db"))
    store = VoiceStore(database)
    with create_engine(sqlite_url(tmp_path / "library.db")).connect() as other:
        other.exec_driver_sql("BEGIN EXCLUSIVE")
        assert store.revision() == 3
        with pytest.raises(StoreUnavailable) as refused:
            made(store, "Anna")
        assert refused.value.retry_after
        other.exec_driver_sql("ROLLBACK")
    assert made(store, "Anna").name == "Anna"
    database.close()
