"""The balancer's settings, read once from the environment into a frozen object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from balancer.members import Named
from balancer.worker import HealthRules
from fleet.settings import LogLevel, Port, ServingSettings


def _workers(value: str) -> str:
    words = _words(value)
    if not words:
        raise ValueError("must name at least one worker, or be `none` where workers register")
    Named.of([word for word in words if word != NONE])
    return value


def _words(value: str) -> list[str]:
    return [word.strip() for word in value.split(",") if word.strip()]


NONE = "none"


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
    workers: Annotated[str, AfterValidator(_workers)] = Field(
        "http://127.0.0.1:6100",
        description="The workers' addresses, separated by commas; `dns://HOST:PORT` is all addresses of a name, `none` "
        "leaves the pool to registrations.",
    )
    workers_file: Path | None = Field(None, description="File with a worker a line in their place; SIGHUP reads it.")
    dns_interval_s: float = Field(5, gt=0, description="Seconds between two looks at a name.")
    mixed_models: bool = Field(False, description="Let workers of different models stand in one pool.")
    policy: Literal["round_robin", "least_outstanding", "p2c", "voice_affinity"] = Field(
        "round_robin", description="How a worker is chosen."
    )
    probe_interval_s: float = Field(1, gt=0, description="Seconds between two probes of a worker.")
    probe_timeout_s: float = Field(3, gt=0, description="Seconds a probe may take.")
    rise: int = Field(1, ge=1, description="Good probes in a row that make a worker ready.")
    fall: int = Field(2, ge=1, description="Bad probes in a row that eject one.")
    failures: int = Field(5, ge=1, description="Failed requests in a row that eject one.")
    most_ejected: float = Field(0.5, ge=0, le=1, description="Share of the workers that failed requests may eject.")
    ejection_s: float = Field(5, gt=0, description="Seconds of the first such ejection; each next takes twice as long.")
    longest_ejection_s: float = Field(300, gt=0, description="Seconds of the longest one.")
    slow_start_s: float = Field(10, ge=0, description="Seconds from a worker's return to its full share.")
    connect_timeout_s: float = Field(3, gt=0, description="Seconds to connect to a worker.")
    idle_timeout_s: float = Field(60, gt=0, description="Seconds a worker may be silent before or within an answer.")
    max_attempts: int = Field(4, ge=1, description="Workers tried for one request.")
    retry_share: float = Field(0.1, ge=0, le=1, description="Share of the last 10 s' requests that may be retried.")
    least_retries: int = Field(100, ge=0, description="Retries in 10 s that are always allowed.")
    max_queue: int = Field(512, ge=0, description="Requests that wait for a place; one more is answered 429.")
    queue_timeout_s: float = Field(30, gt=0, description="Seconds a request waits for a place.")
    request_timeout_s: float = Field(
        1800, gt=0, description="Seconds a request for speech may take in all; `X-Request-Timeout` shortens it."
    )
    write_timeout_s: float = Field(300, gt=0, description="Seconds a caller may take no byte of what is sent to it.")
    max_body_bytes: int = Field(1024 * 1024, ge=1, description="Largest request body.")
    max_upload_bytes: int = Field(51 * 2**20, ge=1, description="Largest body of a request with recordings.")
    upload_timeout_s: float = Field(300, gt=0, description="Seconds such a body may take to arrive.")
    body_timeout_s: float = Field(30, gt=0, description="Seconds a request's body may take to arrive.")
    shutdown_timeout_s: int = Field(10, ge=0, description="Seconds requests in flight get to finish at the end.")
    page: Path | None = Field(
        None, description="Directory of the built web page; none is `webui/dist` beside the programs."
    )
    log_level: LogLevel = Field("info", description="`debug`, `info`, `warning` or `error`.")

    @property
    def worker_words(self) -> list[str]:
        """Addresses and names."""
        return [word for word in _words(self.workers) if word != NONE]

    @property
    def rules(self) -> HealthRules:
        return HealthRules(
            rise=self.rise,
            fall=self.fall,
            failures=self.failures,
            most_ejected=self.most_ejected,
            ejection_s=self.ejection_s,
            longest_ejection_s=self.longest_ejection_s,
            slow_start_s=self.slow_start_s,
        )
