"""The wire contract: formats, listings, health, figures and errors. Speech and the library have files of their own."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

SAMPLE_RATE = 24_000
"""Hz of every audio answer; mono."""

REQUEST_ID_HEADER = "x-request-id"


class AudioFormat(StrEnum):
    """What the audio is encoded as. `pcm` is bare signed 16-bit little-endian samples."""

    mp3 = "mp3"
    opus = "opus"
    aac = "aac"
    flac = "flac"
    wav = "wav"
    pcm = "pcm"

    @property
    def media_type(self) -> str:
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    AudioFormat.mp3: "audio/mpeg",
    AudioFormat.opus: "audio/ogg",
    AudioFormat.aac: "audio/aac",
    AudioFormat.flac: "audio/flac",
    AudioFormat.wav: "audio/wav",
    AudioFormat.pcm: "audio/pcm",
}


class VoiceSummary(BaseModel):
    id: str
    name: str
    description: str = ""
    language: str | None = None
    aliases: list[str] = []


class VoiceList(BaseModel):
    voices: list[VoiceSummary]


class ModelSummary(BaseModel):
    """OpenAI's model object. `created` is in seconds since the epoch: when the serving process started."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "chatterbox-fleet"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelSummary]


class AudioModel(BaseModel):
    id: str


class AudioModelList(BaseModel):
    models: list[AudioModel]


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    ready: bool
    reason: str | None = None


class DecodingFigures(BaseModel):
    """What an engine that decodes tokens has counted since it was opened, and what it holds now.

    `steps_per_s` is null before anything was decoded, `device_bytes` on a CPU. `step_rows` and `euler_rows` add up the
    live rows of all steps.
    """

    model_config = ConfigDict(from_attributes=True)

    steps_per_s: float | None
    steps: int
    step_rows: int
    tokens: int
    graph_replays: int
    eager_steps: int
    euler_steps: int
    euler_rows: int
    hops: int
    hops_late: int
    slots: int
    slots_used: int
    sequences_waiting: int
    conditionals_computed: int
    conditionals_hits: int
    device_bytes: int | None


class WorkerHealth(BaseModel):
    """A worker's `GET /health`. Seconds and bytes; `rtf` and `ttfa_s` are measured over the last syntheses, or null.

    `concurrency` is how many requests it speaks at once; more would wait inside it. `figures` is null for an engine
    that decodes no tokens. `store_id` is of the library of voices: workers of one fleet have the same. `parameters` are
    those that its engine honours.
    """

    status: Literal["ok"] = "ok"
    role: Literal["worker"] = "worker"
    name: str
    version: str
    engine: str
    model: str
    device: str
    demo_voice: bool
    ready: bool
    reason: str | None
    voices: int
    languages: int
    running_jobs: int
    queued_jobs: int
    rtf: float | None
    ttfa_s: float | None
    uptime_s: float
    memory_bytes: int
    pid: int
    store_id: str | None = None
    concurrency: int | None = None
    figures: DecodingFigures | None = None
    parameters: list[str] | None = None
    clones_voices: bool | None = None
    max_text_chars: int | None = None


class Drain(BaseModel):
    """A worker's `PUT /draining`: whether it is to take nothing new, and refuse its probes to say so."""

    model_config = ConfigDict(extra="forbid", strict=True)

    draining: bool


WorkerStateName = Literal["starting", "ready", "degraded", "draining", "ejected", "half_open", "dead"]


class WorkerState(BaseModel):
    """What the balancer's administration answers: the worker as it is now. `lease_s` is of one that has registered."""

    name: str
    url: str
    state: WorkerStateName
    reason: str | None
    in_flight: int
    lease_s: float | None = None


class WorkerStats(BaseModel):
    """One worker as the balancer sees it. `age_s` is how old `health` is; both are null before the first answer.

    `jobs` and `pending_chars` are the speech among what is in flight, `foreign_jobs` what it speaks for others, `limit`
    the places it has; `weight` is below 1 while it is started slowly.
    """

    name: str
    url: str
    source: str
    state: WorkerStateName
    reason: str | None
    since_s: float
    in_flight: int
    jobs: int
    foreign_jobs: int
    limit: int
    pending_chars: int
    weight: float
    requests: int
    failures: int
    ejections: int
    age_s: float | None
    health: WorkerHealth | None


class FleetTotals(BaseModel):
    """`ready` are the workers that take requests. `running_jobs`, `queued_jobs` and `memory_bytes` add up what those
    workers told whose figures are not `missing`.
    """

    workers: int
    ready: int
    in_flight: int
    waiting: dict[str, int]
    requests: int
    failures: int
    retries: int
    ejections: int
    bytes_sent: int
    running_jobs: int
    queued_jobs: int
    memory_bytes: int


class MissingFigures(BaseModel):
    """A worker whose own figures are not part of the totals, and why."""

    worker: str
    reason: str


class FleetStats(BaseModel):
    """The balancer's `GET /stats`."""

    version: str
    policy: str
    uptime_s: float
    totals: FleetTotals
    missing: list[MissingFigures]
    workers: list[WorkerStats]


class BalancerHealth(BaseModel):
    """The balancer's `GET /health`. `engine`, `model` and `device` are those of its ready workers.

    `demo_voice` where any of them has it, `clones_voices` where all of them do, `parameters` that all of them honour,
    `max_text_chars` the least of theirs. Null while no worker has told.
    """

    status: Literal["ok"] = "ok"
    role: Literal["balancer"] = "balancer"
    version: str
    engine: list[str]
    model: list[str]
    device: list[str]
    demo_voice: bool
    parameters: list[str] | None
    clones_voices: bool | None
    max_text_chars: int | None
    workers: int
    ready: int
    uptime_s: float
    memory_bytes: int
    pid: int


class ErrorDetail(BaseModel):
    code: str
    message: str
    param: str | None
    request_id: str | None


class ErrorBody(BaseModel):
    """The body of every error answer."""

    error: ErrorDetail
