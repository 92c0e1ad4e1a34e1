"""What the settings of every process share: a prefix in the environment, no unknown names, one clear line on error."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.errors import InvalidSettings

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
    def _given_as(cls, found: str) -> str:
        """The variable that the person has set, for a field or one of its names as pydantic tells it."""
        present = {name.upper() for name in os.environ}
        for variable, field in cls.variables().items():
            alias = cls.model_fields[field].validation_alias
            names = [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else [variable]
            if found.upper() in (field.upper(), *names):
                return next((name for name in names if name in present), variable)
        return found
