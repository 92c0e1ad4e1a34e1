"""A worker's settings, read once from the environment into a frozen object."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from fleet.settings import LogLevel, Port, ServingSettings
from workers.engine.choice import Device, EngineName
from workers.registration import Registration


class WorkerSettings(ServingSettings):
    """`CHATTERBOX_*`; `API_KEYS`, `API_PORT` and `LOG_LEVEL` are accepted too."""

    model_config = SettingsConfigDict(env_prefix="CHATTERBOX_")

    name: str = Field("worker-0", description="What this worker is called in logs, headers and figures.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(
        6100, validation_alias=AliasChoices("CHATTERBOX_PORT", "API_PORT"), description="Port to listen on."
    )
    api_keys: Path | None = Field(
        None,
        validation_alias=AliasChoices("CHATTERBOX_API_KEYS", "API_KEYS"),
        description="File of the keys that callers need, one a line; none lets everybody in.",
    )
    engine: EngineName = Field("auto", description="`espeak`, `chatterbox`, or `auto`: what the machine allows.")
    device: Device = Field("auto", description="`cpu`, `cuda`, or `auto`.")
    checkpoint: str | None = Field(
        None, min_length=1, description="The Chatterbox model: a directory, or `hub:OWNER/NAME@COMMIT`."
    )
    data_dir: Path | None = Field(
        None, description="The library of voices and the files of speech; none keeps them only while the worker runs."
    )
    database_url: str | None = Field(
        None,
        min_length=1,
        description="The library's database, `postgresql://…`; none is SQLite in `data_dir`.",
    )
    max_voice_size: int = Field(50 * 2**20, ge=1024, description="Most bytes of recordings in one upload.")
    max_library_size: int = Field(10 * 2**30, ge=0, description="Most bytes of recordings and copies of all voices.")
    voice_cache_size: int = Field(64 * 2**20, ge=0, description="Bytes of prepared voices held in memory.")
    voice_wait_s: float = Field(30, ge=0, description="Seconds a request waits for a voice that is being prepared.")
    upload_timeout_s: float = Field(300, gt=0, description="Seconds an upload may take to arrive.")
    artifact_grace_s: float = Field(3600, ge=0, description="Seconds a file that nothing refers to is still kept.")
    max_output_age_s: float = Field(86_400, gt=0, description="Seconds a file of `/generate` is kept.")
    max_output_size: int = Field(2**30, ge=0, description="Most bytes of such files together; the oldest go first.")
    housekeeping_interval_s: float = Field(60, gt=0, description="Seconds between two rounds of removing old files.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Of the model's weights; `auto` is bf16 where the device computes in it."
    )
    attention: Literal["auto", "triton", "numba", "sdpa"] = Field("auto", description="T3's attention kernels.")
    strict: bool = Field(False, description="On CUDA, too, a seed gives the same tokens whatever else runs.")
    threads: int = Field(0, ge=0, le=1024, description="Threads the model computes with on a CPU; 0 takes all cores.")
    max_rows: int = Field(128, ge=2, le=512, description="Rows of one decode step; a segment takes two.")
    memory_share: float = Field(0.5, gt=0, le=1, description="Share of the free memory for T3's keys and values.")
    max_tokens: int = Field(1000, ge=1, le=4000, description="Longest speech of one segment, in tokens of 40 ms.")
    n_steps: int = Field(10, ge=1, le=100, description="Euler steps of standard quality; draft takes half, high twice.")
    watermark: bool = Field(True, description="Mark all speech as made by a machine, with PerTh.")
    stream_prompt_s: float = Field(10, ge=0.04, le=10, description="Seconds of a voice's recording S3Gen is shown.")
    stream_window_s: float = Field(2, ge=0, le=60, description="Seconds already spoken that each hop is made with.")
    vocoder_rows: int = Field(0, ge=0, le=256, description="Streams that share an Euler step; 0 suits the device.")
    max_text_chars: int = Field(10_000, ge=1, le=1_000_000, description="Longest text of one request.")
    max_jobs: int = Field(256, ge=1, le=10_000, description="Requests spoken at once; one more is answered 429.")
    loudness: float | None = Field(
        None, ge=-40, le=-8, description="LUFS that segments are brought to where a request says nothing of it."
    )
    request_timeout_s: float = Field(
        1800, gt=0, description="Seconds a request for speech may take in all; `X-Request-Timeout` shortens it."
    )
    balancers: str | None = Field(
        None, description="Balancers to register with, separated by commas; none for a fixed pool."
    )
    advertised_url: str | None = Field(None, description="The address that is registered; none is host and port.")
    balancer_key: Path | None = Field(None, description="File with the key that registers, where there are keys.")
    lease_s: float = Field(15, ge=1, le=3600, description="Seconds a registration holds; a third is between two.")
    stream_idle_s: float = Field(
        60, gt=0, description="Seconds `/v1/audio/stream` waits for text, or for a listener that takes no sound."
    )
    stream_limit_s: float = Field(3600, gt=0, description="Seconds such a connection may last.")
    body_timeout_s: float = Field(30, gt=0, description="Seconds a request's body may take to arrive.")
    shutdown_timeout_s: int = Field(10, ge=0, description="Seconds requests in flight get to finish at the end.")
    enable_docs: bool = Field(True, description="Serve `/docs` and `/openapi.json`.")
    log_level: LogLevel = Field(
        "info",
        validation_alias=AliasChoices("CHATTERBOX_LOG_LEVEL", "LOG_LEVEL"),
        description="`debug`, `info`, `warning` or `error`.",
    )

    @staticmethod
    def variable_of(option: str | None) -> str:
        """The variable that an option of the chatterbox engine was given by."""
        renamed = {"prompt_s": "stream_prompt_s", "window_s": "stream_window_s"}
        return f"CHATTERBOX_{renamed.get(option or '', option or 'ENGINE')}".upper()

    @property
    def chatterbox(self) -> dict[str, Any]:
        """The chatterbox engine's options by their names there."""
        same = (
            *("precision", "attention", "strict", "threads", "max_rows", "memory_share"),
            *("max_tokens", "n_steps", "watermark", "vocoder_rows"),
        )
        return {name: getattr(self, name) for name in same} | {
            "prompt_s": self.stream_prompt_s,
            "window_s": self.stream_window_s,
        }

    @property
    def registration(self) -> Registration:
        """Raises `InvalidSettings` for one that cannot be made."""
        return Registration.of(
            self.balancers,
            advertised_url=self.advertised_url,
            host=self.host,
            port=self.port,
            key_file=self.balancer_key,
            lease_s=self.lease_s,
        )

    @property
    def max_body_bytes(self) -> int:
        """Room for the longest text with every character escaped as a JSON surrogate pair, and for the other fields."""
        return 12 * self.max_text_chars + 64 * 1024

    @property
    def max_upload_bytes(self) -> int:
        """Room for the recordings, the form's other fields and what multipart puts between them."""
        return self.max_voice_size + 2**20
