"""`python -m workers`: one worker, configured by `CHATTERBOX_*` in the environment."""

from __future__ import annotations

import asyncio

import structlog
from starlette.types import ASGIApp

from fleet.access import Access
from fleet.logs import configure_logging
from fleet.server import exit_with, serve
from fleet.startup_errors import InvalidSettings, StartupError
from workers.app import make_app
from workers.engine.choice import open_engine
from workers.loudness import can_measure
from workers.registration import Registration
from workers.settings import WorkerSettings
from workers.voices.opening import DataDirectory, open_library

log = structlog.get_logger()


def main() -> None:
    try:
        settings = WorkerSettings.from_environment()
        configure_logging(settings.log_level, process=settings.name)
        access = Access.of(settings)
        registration = settings.registration
        serve(
            lambda stopping: _application(settings, access, registration, stopping),
            host=settings.host,
            port=settings.port,
            shutdown_timeout_s=settings.shutdown_timeout_s,
        )
    except StartupError as error:
        exit_with(error)


def _application(
    settings: WorkerSettings, access: Access, registration: Registration, stopping: asyncio.Event
) -> ASGIApp:
    if settings.loudness is not None and not can_measure():
        raise InvalidSettings(f"{settings.variable('loudness')} needs the package pyloudnorm, which is not installed")
    try:
        engine = open_engine(
            settings.engine,
            device=settings.device,
            checkpoint=settings.checkpoint,
            max_jobs=settings.max_jobs,
            chatterbox=settings.chatterbox,
        )
    except InvalidSettings as error:
        raise InvalidSettings(f"{settings.variable_of(error.param)}: {error.message}", param=error.param) from error
    capabilities = engine.capabilities
    log.info("engine_open", engine=capabilities.engine, model=capabilities.model, device=capabilities.device)
    data = DataDirectory(settings.data_dir)
    library, close = open_library(
        engine,
        data.path,
        database_url=settings.database_url,
        name=settings.name,
        limit_bytes=settings.max_library_size,
        wait_s=settings.voice_wait_s,
        cache_bytes=settings.voice_cache_size,
        closing=stopping,
    )
    return make_app(
        settings,
        access=access,
        engine=engine,
        library=library,
        data=data,
        registration=registration,
        close_library=close,
    )


if __name__ == "__main__":
    main()
