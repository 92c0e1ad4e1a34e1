"""The library's tables. `migrations/` makes them; a test holds the two against each other."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# The one row that every writer takes first, so that revisions become visible in their order.
library = Table(
    "library",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("store_id", String(32), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("default_voice", String(64)),
)

# Times are seconds since the epoch: the same number type in both databases, without their zones.
voices = Table(
    "voices",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("language", String(35)),
    Column("defaults", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# Ids, names and aliases of all voices are one name space; the primary key is what settles a race for a name.
voice_names = Table(
    "voice_names",
    metadata,
    Column("key", Text, primary_key=True),
    Column("voice_id", ForeignKey("voices.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("alias", Text),
    Column("position", Integer, nullable=False),
)

samples = Table(
    "samples",
    metadata,
    Column("voice_id", ForeignKey("voices.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("filename", Text, nullable=False),
    Column("media_type", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("copy_digest", String(64), nullable=False),
    Column("copy_size", BigInteger, nullable=False),
    Column("report", JSON, nullable=False),
)

# What each kind of engine made of a voice. The owner of a lease is the worker that prepares it at the moment.
preparations = Table(
    "preparations",
    metadata,
    Column("voice_id", ForeignKey("voices.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", String(128), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("reason", Text),
    Column("artifact", String(64)),
    Column("size", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("owner", String(64)),
    Column("lease_until", Double),
)

emotions = Table(
    "emotions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("character", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("defaults", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# No foreign key on voices: an emotion may name one of an engine's own voices, which have no row.
emotion_voices = Table(
    "emotion_voices",
    metadata,
    Column("emotion_id", ForeignKey("emotions.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("voice_id", String(64), nullable=False, index=True),
)

events = Table(
    "events",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("at", Double, nullable=False),
)

# Work that one worker at a time does for all, such as collecting garbage.
leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("until", Double, nullable=False),
)
