"""Which kind of request a path and a method make: what the edges of both processes must know of the routes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

STREAM_PATH = "/v1/audio/stream"
"""The WebSocket that takes text as it is written."""

DRAIN_PATH = "/draining"
"""Of a worker; the balancer passes nothing on to it."""

_ADMINISTRATION = re.compile(r"/workers(/.*)?|/draining", re.DOTALL)
_UPLOAD = re.compile(r"/encode|/voices|/emotions/[^/]+/voices")
_SPEECH = re.compile(r"/v1/audio/speech|/synthesize(/stream)?|/generate|/tts|/emotions/[^/]+/test")
_SPEECH_BY_GET = "/tts-stream"

_OPEN = re.compile(
    r"/|/ui(/.*)?|/health|/ready|/v1/test|/v1/audio/(voices|models)|/docs|/openapi\.json|/static-offline-docs/[^/]+",
    re.DOTALL,
)


def is_upload(scope: Mapping[str, Any]) -> bool:
    """Whether a request carries sound: what may be larger, and take longer to arrive, than any other."""
    return scope["method"] == "POST" and _UPLOAD.fullmatch(scope["path"]) is not None


def is_speech(scope: Mapping[str, Any]) -> bool:
    """Whether a request has something spoken. It may be done twice: it leaves nothing behind but a file of speech."""
    if scope["type"] == "websocket":
        return True
    if scope["method"] == "POST":
        return _SPEECH.fullmatch(scope["path"]) is not None
    return bool(scope["method"] == "GET" and scope["path"] == _SPEECH_BY_GET)


def is_administration(scope: Mapping[str, Any]) -> bool:
    """Whether a request changes the fleet itself."""
    return scope["type"] == "http" and _ADMINISTRATION.fullmatch(scope["path"]) is not None


def needs_no_key(scope: Mapping[str, Any]) -> bool:
    """What clients ask before they have a key, and what watches over a process."""
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and bool(_OPEN.fullmatch(scope["path"]))
