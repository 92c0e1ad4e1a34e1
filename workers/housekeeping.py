"""What one worker does for the whole fleet from time to time: files that nothing needs any more are removed."""

from __future__ import annotations

import asyncio

import structlog

from fleet.errors import FleetError
from workers.outputs import Outputs
from workers.voices.library import Library

log = structlog.get_logger()

_LEASE = "housekeeping"


async def keep_house(library: Library, outputs: Outputs, *, interval_s: float, grace_s: float) -> None:
    """Until cancelled. Of all workers that share the library one does the work, and another when that one is gone."""
    while True:
        try:
            if await asyncio.to_thread(library.preparations.lead, _LEASE, 2 * interval_s):
                await asyncio.to_thread(library.artifacts.collect, library.store.referenced, grace_s)
                await asyncio.to_thread(outputs.tidy)
        except (FleetError, OSError) as error:
            log.warning("housekeeping_interrupted", reason=str(error))
        except Exception:  # The next round may fare better, and none is worth a worker.
            log.exception("housekeeping_crashed")
        await asyncio.sleep(interval_s)
