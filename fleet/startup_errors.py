"""Why a process cannot begin. None of these is sent over HTTP: the process ends with one line and code 1.

StartupError
├── InvalidSettings          500 invalid_settings
├── PortInUse                500 port_in_use
├── ModelMissing             500 model_missing
├── ModelInvalid             500 model_invalid
├── EngineUnavailable        500 engine_unavailable
├── LibraryUnusable          500 library_unusable
└── ChildDied                500 child_died
"""

from __future__ import annotations

from fleet.errors import FleetError


class StartupError(FleetError, code="startup_failed"):
    pass


class InvalidSettings(StartupError, code="invalid_settings"):
    pass


class PortInUse(StartupError, code="port_in_use"):
    pass


class ModelMissing(StartupError, code="model_missing"):
    pass


class ModelInvalid(StartupError, code="model_invalid"):
    """A model's file is damaged or is not of the kind its name says."""


class EngineUnavailable(StartupError, code="engine_unavailable"):
    pass


class LibraryUnusable(StartupError, code="library_unusable"):
    """The library's database or folder cannot be opened, or is newer than this program."""


class ChildDied(StartupError, code="child_died"):
    pass
