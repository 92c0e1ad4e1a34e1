"""A worker's settings, read once from the environment into a frozen object."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from fleet.settings import LogLevel, Port, ProcessSettings
from workers.engine.choice import Device, EngineName


class WorkerSettings(ProcessSettings):
    """`CHATTERBOX_*`; `API_PORT` and `LOG_LEVEL` are accepted too."""

    model_config = SettingsConfigDict(env_prefix="CHATTERBOX_")

    name: str = Field("worker-0", description="What this worker is called in logs, headers and figures.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(
        6100, validation_alias=AliasChoices("CHATTERBOX_PORT", "API_PORT"), description="Port to listen on."
    )
    engine: EngineName = Field("auto", description="`espeak`, `chatterbox`, or `auto`: what the machine allows.")
    device: Device = Field("auto", description="`cpu`, `cuda`, or `auto`.")
    checkpoint: Path | None = Field(None, description="Directory of the Chatterbox checkpoint.")
    max_text_chars: int = Field(10_000, ge=1, le=1_000_000, description="Longest text of one request.")
    max_jobs: int = Field(256, ge=1, le=10_000, description="Requests spoken at once; one more is answered 429.")
    body_timeout_s: float = Field(30, gt=0, description="Seconds a request's body may take to arrive.")
    shutdown_timeout_s: int = Field(10, ge=0, description="Seconds requests in flight get to finish at the end.")
    enable_docs: bool = Field(True, description="Serve `/docs` and `/openapi.json`.")
    log_level: LogLevel = Field(
        "info",
        validation_alias=AliasChoices("CHATTERBOX_LOG_LEVEL", "LOG_LEVEL"),
        description="`debug`, `info`, `warning` or `error`.",
    )

    @property
    def max_body_bytes(self) -> int:
        """Room for the longest text with every character escaped as a JSON surrogate pair, and for the other fields."""
        return 12 * self.max_text_chars + 64 * 1024
