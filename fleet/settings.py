"""What the settings of every process share: a prefix in the environment, no unknown names, one clear line on error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.keys import parse_rate
from fleet.startup_errors import InvalidSettings

Port = Annotated[int, Field(ge=1, le=65535)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)]


class ProcessSettings(BaseSettings):
    """Base of the frozen settings objects."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Each setting's own environment variable against its field name."""
        prefix = cls.model_config.get("env_prefix", "")
        return {f"{prefix}{field}".upper(): field for field in cls.model_fields}

    @classmethod
    def from_environment(cls) -> Self:
        """The settings, or `InvalidSettings` naming the first variable that is unknown or malformed."""
        prefix, variables = cls.model_config.get("env_prefix", ""), cls.variables()
        for name in os.environ:
            if name.upper().startswith(prefix) and name.upper() not in variables:
                raise InvalidSettings(f"unknown setting {name}")
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0])
            raise InvalidSettings(f"{cls._given_as(field)}: {first['msg']} (got {first['input']!r})") from None

    @classmethod
    def variable(cls, field: str) -> str:
        """A setting's environment variable."""
        return next(variable for variable, named in cls.variables().items() if named == field)

    @classmethod
    def _given_as(cls, found: str) -> str:
        """The variable that the person has set, for a field or one of its names as pydantic tells it."""
        present = {name.upper() for name in os.environ}
        for variable, field in cls.variables().items():
            alias = cls.model_fields[field].validation_alias
            names = [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else [variable]
            if found.upper() in (field.upper(), *names):
                return next((name for name in names if name in present), variable)
        return found


def _rate(value: str) -> str:
    try:
        parse_rate(value)
    except ValueError:
        raise ValueError("must be like 60/minute, or 10/second; 1000/day") from None
    return value


def _origins(value: str) -> str:
    for word in (word.strip() for word in value.split(",")):
        parts = urlsplit(word)
        is_origin = parts.scheme in ("http", "https") and parts.netloc and parts.path in ("", "/")
        if word not in ("", "*", "loopback") and not (is_origin and not parts.query and not parts.fragment):
            raise ValueError(f"{word!r} is no origin such as https://example.org")
    return value


class ServingSettings(ProcessSettings):
    """What both servers let their operator say of who may use them. Subclasses name `host`."""

    host: str = "127.0.0.1"
    api_keys: Path | None = None
    open_access: bool = Field(False, description="Let everybody in without a key, on a public address too.")
    key_rate: Annotated[str, AfterValidator(_rate)] | None = Field(
        None,
        description="Requests for speech that each key may make, such as `60/minute; 1000/day`; none is any.",
    )
    key_concurrency: int = Field(0, ge=0, description="Requests for speech that each key may have at once; 0 is any.")
    cors_origins: Annotated[str, AfterValidator(_origins)] = Field(
        "loopback",
        description="Origins whose pages may use this, separated by commas; `loopback` is this machine, `*` all.",
    )
