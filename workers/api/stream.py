"""The WebSocket that takes text as it is written and speaks it sentence by sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, cast

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ValidationError
from starlette.websockets import WebSocketDisconnect

from fleet.access import SUBPROTOCOL
from fleet.asgi import ClientGone
from fleet.errors import InvalidJson, InvalidValue, RequestTimeout
from fleet.routes import STREAM_PATH
from fleet.sockets import NORMAL_CLOSE
from fleet.speech_contract import usage_of
from fleet.stream_contract import CLIENT_MESSAGE, Cancel, ClientMessage, Done, End, Flush, Start, Started, WrittenText
from workers.api.errors import from_pydantic
from workers.api.state import Worker
from workers.live import LiveSpeech
from workers.resolution import Speech, resolve

router = APIRouter(tags=["speech"])


@router.websocket(STREAM_PATH)
async def stream_speech(socket: WebSocket) -> None:
    """Text in, sound out; docs/api.md tells the messages."""
    worker = cast(Worker, socket.app.state.worker)
    offered = socket.scope["subprotocols"]
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    try:
        async with asyncio.timeout(worker.settings.stream_limit_s):
            await _Session(socket, worker).run()
    except TimeoutError:
        message = f"a connection may last {worker.settings.stream_limit_s:g} s"
        raise RequestTimeout(message) from None
    except WebSocketDisconnect:
        raise ClientGone from None


class _Session:
    """One connection."""

    def __init__(self, socket: WebSocket, worker: Worker) -> None:
        self._socket, self._worker = socket, worker

    async def run(self) -> None:
        first = await self._receive()
        start = first if isinstance(first, Start) else Start()
        speech = await self._resolved(start)
        live = LiveSpeech(
            self._worker.synthesis,
            speech,
            language=speech.language or speech.voice.language or "en",
            max_waiting_chars=self._worker.settings.max_text_chars,
        )
        await self._tell(self._started(speech))
        with self._worker.metrics.streams.track_inprogress():
            try:
                await _first_failure(self._read(live, None if first is start else first), self._speak(live))
            finally:
                await live.aclose()

    async def _resolved(self, start: Start) -> Speech:
        worker = self._worker
        speech = resolve(
            start,
            capabilities=worker.engine.capabilities,
            library=await worker.library.current(),
            max_text_chars=worker.settings.max_text_chars,
            loudness=worker.settings.loudness,
        )
        self._socket.scope["state"]["log"] = {"voice": speech.voice.id, "format": str(speech.audio_format)}
        return speech

    def _started(self, speech: Speech) -> Started:
        return Started(
            request_id=self._socket.scope["state"]["request_id"],
            engine=self._worker.engine.capabilities.engine,
            voice=speech.voice.id,
            emotion=None if speech.emotion is None else speech.emotion.id,
            language=speech.language,
            seed=speech.seed,
            format=speech.audio_format,
            ignored_parameters=list(speech.ignored),
        )

    async def _read(self, live: LiveSpeech, message: ClientMessage | None) -> None:
        """The caller's messages until the last."""
        while not isinstance(message, End):
            match message:
                case WrittenText():
                    live.write(message.text)
                case Flush():
                    live.flush()
                case Cancel():
                    await live.cancel()
                case Start():
                    raise InvalidValue("start comes before all other messages", param="type")
            await live.room()
            message = await self._receive(live)
        live.end()
        with suppress(WebSocketDisconnect):
            while True:  # nothing more is expected, but the caller may leave
                await self._socket.receive()
                if self._socket.client_state.name == "DISCONNECTED":
                    break
        raise ClientGone

    async def _speak(self, live: LiveSpeech) -> None:
        async for heard in live.heard():
            if isinstance(heard, bytes):
                await self._send(self._socket.send_bytes(heard))
            else:
                await self._tell(heard)
        await self._tell(Done(usage=usage_of(live.chars, live.audio_s)))
        await self._socket.close(NORMAL_CLOSE)

    async def _receive(self, live: LiveSpeech | None = None) -> ClientMessage:
        """The next message. Raises `RequestTimeout` when none comes while nothing is being said."""
        idle_s = self._worker.settings.stream_idle_s
        waiting = asyncio.ensure_future(self._socket.receive())
        try:
            while not (await asyncio.wait({waiting}, timeout=idle_s))[0]:
                if live is None or live.silent:
                    raise RequestTimeout(f"nothing was written for {idle_s:g} s")
            return _parsed(waiting.result())
        finally:
            waiting.cancel()

    async def _tell(self, message: BaseModel) -> None:
        await self._send(self._socket.send_text(message.model_dump_json()))

    async def _send(self, sending: Awaitable[None]) -> None:
        limit_s = self._worker.settings.stream_idle_s
        try:
            async with asyncio.timeout(limit_s):
                await sending
        except TimeoutError:
            raise ClientGone from None


def _parsed(message: Any) -> ClientMessage:
    if message["type"] == "websocket.disconnect":
        raise ClientGone
    text = message.get("text")
    if text is None:
        raise InvalidValue("messages to the server are JSON, sent as text")
    try:
        return CLIENT_MESSAGE.validate_python(json.loads(text))  # pydantic's parser would call half a surrogate no JSON
    except ValidationError as error:
        raise from_pydantic(error) from None
    except ValueError as error:
        raise InvalidJson(f"this is not JSON: {error}") from None
    except RecursionError:
        raise InvalidJson("the message is nested too deeply") from None


async def _first_failure(*works: Any) -> None:
    """Run both; the second one's end is the end of all, and so is any failure."""
    reading, speaking = (asyncio.ensure_future(work) for work in works)
    try:
        await asyncio.wait({reading, speaking}, return_when=asyncio.FIRST_COMPLETED)
        (speaking if speaking.done() else reading).result()
    finally:
        for task in (reading, speaking):
            task.cancel()
        await asyncio.wait({reading, speaking})
