"""A Wyoming server, as Home Assistant speaks to voices: what each connection writes is spoken by the fleet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.server import AsyncEventHandler
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice

import fleet
from fleet.contract import SAMPLE_RATE, VoiceList
from fleet.error_answers import from_response
from fleet.errors import FleetError, NothingToSpeak, Unreachable, UpstreamFailed
from fleet.routes import STREAM_PATH

log = structlog.get_logger()

_TIMEOUT = httpx2.Timeout(120, connect=3)
_CLOSE_TIMEOUT_S = 1.0
_AUDIO = {"rate": SAMPLE_RATE, "width": 2, "channels": 1}
_PROJECT = Attribution(name="Chatterbox Fleet", url="https://github.com/resemble-ai/chatterbox")


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
                address, additional_headers=self.headers, compression=None, proxy=None, close_timeout=_CLOSE_TIMEOUT_S
            )
        except InvalidStatus as refused:
            raise from_response(refused.response.status_code, _parsed(refused.response.body)) from None
        except (OSError, InvalidHandshake) as error:
            raise Unreachable(f"no fleet answers at {self.url}: {error}") from None


class Handler(AsyncEventHandler):
    """One connection. What is being spoken ends with it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, served: Fleet) -> None:
        super().__init__(reader, writer)
        self._fleet = served
        self._speaking: asyncio.Task[None] | None = None
        self._written: asyncio.Queue[str | None] | None = None  # text of a streaming request; None ends it

    async def handle_event(self, event: Event) -> bool:
        """Whether the connection goes on."""
        try:
            if Describe.is_type(event.type):
                await self.write_event(info_of(await self._fleet.voices()).event())
            elif SynthesizeStart.is_type(event.type):
                await self._finish_speaking()
                self._written = asyncio.Queue()
                voice = SynthesizeStart.from_event(event).voice
                self._speaking = asyncio.create_task(self._speak(voice, self._written, streaming=True))
            elif SynthesizeChunk.is_type(event.type) and self._written is not None:
                self._written.put_nowait(SynthesizeChunk.from_event(event).text)
            elif SynthesizeStop.is_type(event.type) and self._written is not None:
                self._written.put_nowait(None)
                self._written = None
            elif Synthesize.is_type(event.type) and self._written is None:  # in a stream it repeats the text
                await self._finish_speaking()
                asked = Synthesize.from_event(event)
                whole: asyncio.Queue[str | None] = asyncio.Queue()
                whole.put_nowait(str(asked.text))
                whole.put_nowait(None)
                self._speaking = asyncio.create_task(self._speak(asked.voice, whole, streaming=False))
        except FleetError as error:
            await self._tell(error)
        except (KeyError, TypeError, AttributeError) as error:
            await self.write_event(Error(text=f"{event.type}: {error!r}", code="invalid_value").event())
        return True

    async def disconnect(self) -> None:
        if self._speaking is not None:
            self._speaking.cancel()
            await asyncio.wait({self._speaking})

    async def _finish_speaking(self) -> None:
        if self._speaking is not None:
            await asyncio.wait({self._speaking})

    async def _speak(
        self, voice: SynthesizeVoice | None, written: asyncio.Queue[str | None], *, streaming: bool
    ) -> None:
        with suppress(ConnectionError):
            try:
                async with await self._fleet.streaming() as socket:
                    await socket.send(json.dumps(_start_of(voice)))
                    writing = asyncio.create_task(_write(socket, written))
                    try:
                        await self._pass_on(_sound(socket))
                    finally:
                        writing.cancel()
            except (WebSocketException, OSError) as error:
                await self._tell(UpstreamFailed(f"the fleet was lost: {error}"))
            except FleetError as error:
                await self._tell(error)
            if streaming:
                await self.write_event(SynthesizeStopped().event())

    async def _pass_on(self, sound: AsyncIterator[bytes]) -> None:
        await self.write_event(AudioStart(**_AUDIO).event())
        heard = False
        async for piece in sound:
            heard = True
            await self.write_event(AudioChunk(**_AUDIO, audio=piece).event())
        await self.write_event(AudioStop().event())
        if not heard:
            raise NothingToSpeak("the text holds nothing that can be spoken", param="text")

    async def _tell(self, error: FleetError) -> None:
        log.warning("wyoming_refused", code=error.code, reason=error.message)
        await self.write_event(Error(text=error.message, code=error.code).event())


def info_of(voices: VoiceList) -> Info:
    """What Home Assistant shows of this service."""
    program = TtsProgram(
        name="chatterbox-fleet",
        description="Chatterbox Fleet",
        attribution=_PROJECT,
        installed=True,
        version=fleet.__version__,
        voices=[
            TtsVoice(
                name=voice.id,
                description=voice.name,
                attribution=_PROJECT,
                installed=True,
                version=None,
                languages=[voice.language or "en"],
            )
            for voice in voices.voices
        ],
        supports_synthesize_streaming=True,
    )
    return Info(tts=[program])


def _start_of(voice: SynthesizeVoice | None) -> dict[str, Any]:
    start: dict[str, Any] = {"type": "start", "format": "pcm"}
    if voice is not None and voice.name:
        start["voice"] = voice.name
    elif voice is not None and voice.language:
        start["language"] = voice.language
    return start


async def _write(socket: ClientConnection, written: asyncio.Queue[str | None]) -> None:
    with suppress(WebSocketException):  # whoever reads from it tells why
        while (text := await written.get()) is not None:
            await socket.send(json.dumps({"type": "text", "text": text}))
        await socket.send(json.dumps({"type": "end"}))


async def _sound(socket: ClientConnection) -> AsyncIterator[bytes]:
    """Raises the error that the fleet tells."""
    async for message in socket:
        if isinstance(message, bytes):
            yield message
            continue
        told = json.loads(message)
        if told["type"] == "error":
            raise UpstreamFailed(str(told["error"]["message"]))
        if told["type"] == "done":
            return


def _parsed(body: bytes | bytearray | None) -> object:
    try:
        return json.loads(body or b"")
    except ValueError:
        return None
