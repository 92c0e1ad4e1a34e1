"""The balancer's settings, read once from the environment into a frozen object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field, HttpUrl, TypeAdapter
from pydantic_settings import SettingsConfigDict

from fleet.settings import LogLevel, Port, ServingSettings


def _worker_urls(value: str) -> str:
    urls = [url.strip() for url in value.split(",") if url.strip()]
    if not urls:
        raise ValueError("must name at least one worker")
    for url in urls:
        TypeAdapter(HttpUrl).validate_python(url)
    if len(set(urls)) != len(urls):
        raise ValueError("names a worker twice")
    return value


class BalancerSettings(ServingSettings):
    """`BALANCER_*`; `API_KEYS` is accepted too."""

    model_config = SettingsConfigDict(env_prefix="BALANCER_")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(6095, description="Port to listen on.")
    api_keys: Path | None = Field(
        None,
        validation_alias=AliasChoices("BALANCER_API_KEYS", "API_KEYS"),
        description="File of the keys that callers need, one a line; none lets everybody in.",
    )
    workers: Annotated[str, AfterValidator(_worker_urls)] = Field(
        "http://127.0.0.1:6100", description="The workers' addresses, separated by commas."
    )
    policy: Literal["round_robin"] = Field("round_robin", description="How a worker is chosen.")
    probe_interval_s: float = Field(1, gt=0, description="Seconds between two probes of a worker.")
    probe_timeout_s: float = Field(3, gt=0, description="Seconds a probe may take.")
    rise: int = Field(1, ge=1, description="Good probes in a row that make a worker ready.")
    fall: int = Field(2, ge=1, description="Bad probes in a row that eject one.")
    connect_timeout_s: float = Field(1, gt=0, description="Seconds to connect to a worker.")
    idle_timeout_s: float = Field(60, gt=0, description="Seconds a worker may be silent before or within an answer.")
    max_attempts: int = Field(3, ge=1, description="Workers tried for one request.")
    max_body_bytes: int = Field(1024 * 1024, ge=1, description="Largest request body.")
    max_upload_bytes: int = Field(51 * 2**20, ge=1, description="Largest body of a request with recordings.")
    upload_timeout_s: float = Field(300, gt=0, description="Seconds such a body may take to arrive.")
    body_timeout_s: float = Field(30, gt=0, description="Seconds a request's body may take to arrive.")
    shutdown_timeout_s: int = Field(10, ge=0, description="Seconds requests in flight get to finish at the end.")
    log_level: LogLevel = Field("info", description="`debug`, `info`, `warning` or `error`.")

    @property
    def worker_urls(self) -> list[str]:
        return [url.strip().rstrip("/") for url in self.workers.split(",") if url.strip()]
