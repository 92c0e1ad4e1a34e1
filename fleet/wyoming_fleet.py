"""The fleet as a Wyoming server asks it: its voices, and speech over its WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
from wyoming.tts import SynthesizeVoice

from fleet.contract import VoiceList
from fleet.error_answers import from_message, from_response
from fleet.errors import Unreachable
from fleet.routes import STREAM_PATH

_TIMEOUT = httpx2.Timeout(120, connect=3)
_CLOSE_TIMEOUT_S = 1.0

_PIECE = 500
"""Characters of one message: far below what the fleet takes in one, however they are escaped."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Where the fleet is, and the key it wants if it wants one."""

    url: str
    key: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"authorization": f"Bearer {self.key}"}

    async def voices(self) -> VoiceList:
        """Raises `FleetError`."""
        try:
            async with httpx2.AsyncClient(timeout=_TIMEOUT, trust_env=False, headers=self.headers) as client:
                answer = await client.get(f"{self.url}/v1/audio/voices")
                return VoiceList.model_validate_json(answer.raise_for_status().content)
        except (httpx2.HTTPError, ValueError) as error:
            raise Unreachable(f"no fleet answers at {self.url}: {error}") from None

    async def streaming(self) -> ClientConnection:
        """A connection that takes text as it is written. Raises `FleetError`."""
        try:
            address = "ws" + self.url.removeprefix("http") + STREAM_PATH
            return await connect(
                address,
                additional_headers=self.headers,
                compression=None,
                proxy=None,
                ping_timeout=None,  # a fleet that lets text wait is slow to answer, and not gone
                close_timeout=_CLOSE_TIMEOUT_S,
            )
        except InvalidStatus as refused:
            raise from_response(refused.response.status_code, _parsed(refused.response.body)) from None
        except (OSError, InvalidHandshake) as error:
            raise Unreachable(f"no fleet answers at {self.url}: {error}") from None


def start_of(voice: SynthesizeVoice | None) -> dict[str, Any]:
    """The first message: how to speak."""
    start: dict[str, Any] = {"type": "start", "format": "pcm"}
    if voice is not None and voice.name:
        start["voice"] = voice.name
    elif voice is not None and voice.language:
        start["language"] = voice.language
    return start


async def write(socket: ClientConnection, written: asyncio.Queue[str | None]) -> None:
    """Pass text on at the fleet's pace, until `None` ends it."""
    with suppress(WebSocketException):  # whoever reads from it tells why
        while (text := await written.get()) is not None:
            for start in range(0, len(text), _PIECE):
                await socket.send(json.dumps({"type": "text", "text": text[start : start + _PIECE]}))
        await socket.send(json.dumps({"type": "end"}))


async def sound(socket: ClientConnection) -> AsyncIterator[bytes]:
    """The sound as it is made. Raises the error that the fleet tells."""
    async for message in socket:
        if isinstance(message, bytes):
            yield message
            continue
        told = json.loads(message)
        if told["type"] == "error":
            raise from_message(told)
        if told["type"] == "done":
            return


def _parsed(body: bytes | bytearray | None) -> object:
    try:
        return json.loads(body or b"")
    except ValueError:
        return None
