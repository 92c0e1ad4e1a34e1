"""Who computes what of a voice: each is prepared once in the fleet, under a lease that outlives no worker for long.

Times are wall-clock seconds, as all workers of a fleet run on one machine or on machines whose clocks agree.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, delete, insert, or_, select, update

from fleet.library_contract import EventKind
from workers.voices.database import Database
from workers.voices.records import Claim
from workers.voices.schema import leases, preparations, samples, voices
from workers.voices.writing import record

LEASE_S = 10.0
"""A worker that dies holds up its voice for no longer; one that lives renews three times in it."""

MOST_ATTEMPTS = 5
"""Failures that may pass, such as a lost engine, and deaths of workers before a voice counts as failed."""


class Preparations:
    """One worker's view: the `kind` of conditionals that its engine makes, and its own name as `owner`."""

    def __init__(self, database: Database, *, kind: str, owner: str) -> None:
        self._database = database
        self._kind = kind
        self._owner = owner

    def claim(self, urgent: Collection[str] = ()) -> Claim | None:
        """The next voice that nobody prepares, the urgent ones and then the oldest first; None when there is none."""
        now = time.time()
        mine = and_(preparations.c.voice_id == voices.c.id, preparations.c.kind == self._kind)
        unclaimed = or_(preparations.c.lease_until.is_(None), preparations.c.lease_until < now)
        waits = or_(preparations.c.status.is_(None), and_(preparations.c.status == "pending", unclaimed))
        order = case((voices.c.id.in_(list(urgent)), 0), else_=1)
        wanted = (
            select(voices.c.id, preparations.c.attempts)
            .select_from(voices.outerjoin(preparations, mine))
            .where(waits)
            .order_by(order, voices.c.created_at, voices.c.id)
            .limit(1)
        )
        with self._database.reading() as connection:  # most calls find nothing, and need not keep others from writing
            if connection.execute(wanted).first() is None:
                return None
        with self._database.writing() as connection:
            row = connection.execute(wanted).first()
            if row is None:
                return None
            attempt = (row.attempts or 0) + 1
            held: dict[str, Any] = {"owner": self._owner, "lease_until": now + LEASE_S, "attempts": attempt}
            if row.attempts is None:
                key = {"voice_id": row.id, "kind": self._kind}
                connection.execute(insert(preparations).values(status="pending", size=0, **key, **held))
            else:
                connection.execute(update(preparations).where(self._is(row.id)).values(held))
            copies = select(samples.c.copy_digest).where(samples.c.voice_id == row.id).order_by(samples.c.position)
            return Claim(row.id, tuple(connection.execute(copies).scalars()), attempt)

    def renew(self, voice_id: str) -> bool:
        """Hold the lease for longer; False when it is lost."""
        with self._database.writing() as connection:
            held = update(preparations).where(self._is(voice_id), preparations.c.owner == self._owner)
            return connection.execute(held.values(lease_until=time.time() + LEASE_S)).rowcount == 1

    def finish(self, voice_id: str, *, artifact: str, size: int) -> bool:
        """The voice can speak. False when the lease was lost, or the voice is gone: the work was for nothing."""
        return self._settle(voice_id, status="ready", reason=None, artifact=artifact, size=size)

    def fail(self, voice_id: str, reason: str) -> bool:
        """Nothing can be made of the voice's recordings."""
        return self._settle(voice_id, status="failed", reason=reason, artifact=None, size=0)

    def give_back(self, voice_id: str, *, counted: bool) -> None:
        """Let another try, or this one later; whether what came of it counts as an attempt."""
        attempts = preparations.c.attempts if counted else preparations.c.attempts - 1
        with self._database.writing() as connection:
            held = update(preparations).where(self._is(voice_id), preparations.c.owner == self._owner)
            connection.execute(held.values(owner=None, lease_until=None, attempts=attempts))

    def again(self, voice_id: str, artifact: str) -> None:
        """What was made of the voice is damaged or gone: it is to be prepared anew, unless somebody has seen to it."""
        with self._database.writing() as connection:
            stale = update(preparations).where(self._is(voice_id), preparations.c.artifact == artifact)
            fresh = {"status": "pending", "artifact": None, "owner": None, "lease_until": None, "attempts": 0}
            if connection.execute(stale.values(fresh)).rowcount == 1:
                record(connection, "voice.pending", voice_id, self._name(connection, voice_id))

    def lead(self, name: str, seconds: float) -> bool:
        """Whether this worker does the fleet's common work of that name until the time is over."""
        now = time.time()
        with self._database.writing() as connection:
            row = connection.execute(select(leases).where(leases.c.name == name)).first()
            if row is not None and row.until > now and row.owner != self._owner:
                return False
            connection.execute(delete(leases).where(leases.c.name == name))
            connection.execute(insert(leases).values(name=name, owner=self._owner, until=now + seconds))
            return True

    def _settle(self, voice_id: str, *, status: str, reason: str | None, artifact: str | None, size: int) -> bool:
        with self._database.writing() as connection:
            held = update(preparations).where(self._is(voice_id), preparations.c.owner == self._owner)
            values = {"status": status, "reason": reason, "artifact": artifact, "size": size}
            if connection.execute(held.values(owner=None, lease_until=None, **values)).rowcount == 0:
                return False
            kind: EventKind = "voice.ready" if status == "ready" else "voice.failed"
            record(connection, kind, voice_id, self._name(connection, voice_id))
            return True

    def _is(self, voice_id: str) -> ColumnElement[bool]:
        return and_(preparations.c.voice_id == voice_id, preparations.c.kind == self._kind)

    @staticmethod
    def _name(connection: Connection, voice_id: str) -> str:
        return str(connection.execute(select(voices.c.name).where(voices.c.id == voice_id)).scalar_one())
