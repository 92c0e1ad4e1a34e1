"""Every failure a person or a program may meet, each with a code, an HTTP status and a message for a person.

FleetError
├── RequestError             the caller can mend it
│   ├── InvalidJson              400 invalid_json
│   ├── InvalidEncoding          400 invalid_encoding
│   ├── BadRequest               400 bad_request
│   ├── Unauthorized             401 invalid_api_key
│   ├── OriginNotAllowed         403 origin_not_allowed
│   ├── NotAdministrator         403 not_administrator
│   ├── RouteNotFound            404 route_not_found
│   ├── VoiceNotFound            404 voice_not_found
│   ├── EmotionNotFound          404 emotion_not_found
│   ├── OutputNotFound           404 output_not_found
│   ├── ModelNotFound            404 model_not_found
│   ├── WorkerNotFound           404 worker_not_found
│   ├── MethodNotAllowed         405 method_not_allowed
│   ├── RequestTimeout           408 request_timeout
│   ├── NameTaken                409 name_taken
│   ├── VoiceInUse               409 voice_in_use
│   ├── VoiceBuiltIn             409 voice_built_in
│   ├── VoiceUnfit               409 voice_unfit
│   ├── WorkerFixed              409 worker_fixed
│   ├── PreconditionFailed       412 precondition_failed
│   ├── BodyTooLarge             413 body_too_large
│   ├── UnsupportedMediaType     415 unsupported_media_type
│   ├── RangeNotSatisfiable      416 range_not_satisfiable
│   ├── InvalidValue             422 invalid_value
│   ├── MissingField             422 missing_field
│   ├── UnknownField             422 unknown_field
│   ├── TextTooLong              422 text_too_long
│   ├── NothingToSpeak           422 nothing_to_speak
│   ├── RecordingUnfit           422 recording_unfit
│   ├── UpgradeRequired          426 upgrade_required
│   ├── RateLimited              429 rate_limit_exceeded
│   └── HeadersTooLarge          431 headers_too_large
├── ServiceError             the service cannot answer now
│   ├── Overloaded               429 overloaded
│   ├── InternalError            500 internal_error
│   ├── SynthesisFailed          500 synthesis_failed
│   ├── UpstreamFailed           502 upstream_failed
│   ├── Draining                 503 draining
│   ├── EngineLost               503 engine_lost
│   ├── NotReady                 503 not_ready
│   ├── VoicePending             503 voice_pending
│   ├── StoreUnavailable         503 store_unavailable
│   ├── Unreachable              503 unreachable
│   ├── UpstreamTimeout          504 upstream_timeout
│   ├── DeadlineExceeded         504 deadline_exceeded
│   └── StorageFull              507 storage_full
└── StartupError             a process cannot begin: startup_errors.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

_LONGEST_MESSAGE, _LONGEST_PARAM = 2_000, 100


def _printable(text: str, longest: int) -> str:
    """What a caller sent and we quote: bounded, and without the lone surrogates that UTF-8 cannot hold."""
    cut = text if len(text) <= longest else text[: longest - 3] + "..."
    return cut.encode(errors="replace").decode()


class FleetError(Exception):
    """Base of all errors of this project.

    `message` is for a person; `param` names the request field at fault; `retry_after` is in seconds and becomes the
    `Retry-After` header; `headers` are what an answer of this kind says beside it, names in lower case.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    headers: Mapping[str, str] = {}

    def __init_subclass__(cls, *, code: str | None = None, status: int | None = None) -> None:
        """Each kind states its own code and status; what it leaves out is its parent's."""
        super().__init_subclass__()
        cls.code, cls.status = code or cls.code, status or cls.status

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        self.message = _printable(message, _LONGEST_MESSAGE)
        self.param = None if param is None else _printable(param, _LONGEST_PARAM)
        super().__init__(self.message)
        self.retry_after = retry_after

    def with_header(self, name: str, value: str) -> Self:
        """The same, saying more in the answer's head."""
        self.headers = {**self.headers, name: value}
        return self

    def body(self, request_id: str | None) -> dict[str, object]:
        """The JSON body of an error response: OpenAI's shape with `request_id` added."""
        error = {"code": self.code, "message": self.message, "param": self.param, "request_id": request_id}
        return {"error": error}


class RequestError(FleetError, code="bad_request", status=400):
    pass


class InvalidJson(RequestError, code="invalid_json"):
    pass


class InvalidEncoding(RequestError, code="invalid_encoding"):
    pass


class BadRequest(RequestError):
    """The HTTP framing itself is wrong, so no field can be named."""


class Unauthorized(RequestError, code="invalid_api_key", status=401):
    headers: Mapping[str, str] = {"www-authenticate": "Bearer"}


class OriginNotAllowed(RequestError, code="origin_not_allowed", status=403):
    """A page in somebody's browser asked, and its origin is not among those allowed."""


class NotAdministrator(RequestError, code="not_administrator", status=403):
    """The fleet itself is changed by its administrators only."""


class RouteNotFound(RequestError, code="route_not_found", status=404):
    pass


class VoiceNotFound(RequestError, code="voice_not_found", status=404):
    pass


class EmotionNotFound(RequestError, code="emotion_not_found", status=404):
    pass


class OutputNotFound(RequestError, code="output_not_found", status=404):
    pass


class ModelNotFound(RequestError, code="model_not_found", status=404):
    pass


class WorkerNotFound(RequestError, code="worker_not_found", status=404):
    pass


class MethodNotAllowed(RequestError, code="method_not_allowed", status=405):
    """`Allow` names the methods that the path takes."""


class RequestTimeout(RequestError, code="request_timeout", status=408):
    """The caller did not finish sending its body in time."""


class NameTaken(RequestError, code="name_taken", status=409):
    pass


class VoiceInUse(RequestError, code="voice_in_use", status=409):
    """Emotion profiles refer to the voice."""


class VoiceBuiltIn(RequestError, code="voice_built_in", status=409):
    """The voice belongs to the engine and cannot be changed."""


class VoiceUnfit(RequestError, code="voice_unfit", status=409):
    """The engine could make nothing of the voice's recordings."""


class WorkerFixed(RequestError, code="worker_fixed", status=409):
    """The worker is named by the settings, and leaves the pool by them only."""


class PreconditionFailed(RequestError, code="precondition_failed", status=412):
    """Somebody else has changed it since the caller looked."""


class BodyTooLarge(RequestError, code="body_too_large", status=413):
    pass


class UnsupportedMediaType(RequestError, code="unsupported_media_type", status=415):
    pass


class RangeNotSatisfiable(RequestError, code="range_not_satisfiable", status=416):
    """`Content-Range` names how many bytes there are."""


class InvalidValue(RequestError, code="invalid_value", status=422):
    pass


class MissingField(RequestError, code="missing_field", status=422):
    pass


class UnknownField(RequestError, code="unknown_field", status=422):
    pass


class TextTooLong(RequestError, code="text_too_long", status=422):
    pass


class NothingToSpeak(RequestError, code="nothing_to_speak", status=422):
    """The text holds no sound: only punctuation, say, or only control characters."""


class RecordingUnfit(RequestError, code="recording_unfit", status=422):
    """No voice can be made of it: it is too short, too long, silent, damaged, or no sound at all."""


class UpgradeRequired(RequestError, code="upgrade_required", status=426):
    headers: Mapping[str, str] = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}


class RateLimited(RequestError, code="rate_limit_exceeded", status=429):
    """The caller's key has spent what it may; `Overloaded` is the service's own limit."""


class HeadersTooLarge(RequestError, code="headers_too_large", status=431):
    pass


class ServiceError(FleetError, code="internal_error", status=500):
    pass


class Overloaded(ServiceError, code="overloaded", status=429):
    """Full is an outcome of its own: the caller may come again after `retry_after` seconds."""


class InternalError(ServiceError):
    pass


class SynthesisFailed(ServiceError, code="synthesis_failed"):
    pass


class UpstreamFailed(ServiceError, code="upstream_failed", status=502):
    pass


class Draining(ServiceError, code="draining", status=503):
    """The worker finishes what it has and takes nothing new."""


class EngineLost(ServiceError, code="engine_lost", status=503):
    """The engine died, hung or is shutting down while it had this job; another worker can still serve it."""


class NotReady(ServiceError, code="not_ready", status=503):
    pass


class VoicePending(ServiceError, code="voice_pending", status=503):
    """The voice was made a moment ago and is still being prepared."""


class StoreUnavailable(ServiceError, code="store_unavailable", status=503):
    """The library's database does not answer, or is locked."""


class Unreachable(ServiceError, code="unreachable", status=503):
    """Raised by the client: nothing answers at the fleet's address."""


class UpstreamTimeout(ServiceError, code="upstream_timeout", status=504):
    pass


class DeadlineExceeded(ServiceError, code="deadline_exceeded", status=504):
    """The time that the caller gave its request is over."""


class StorageFull(ServiceError, code="storage_full", status=507):
    """The disk, or the library's share of it, is full."""
