"""A Wyoming server, as Home Assistant speaks to voices: what each connection writes is spoken by the fleet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import structlog
from websockets.exceptions import WebSocketException
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.server import AsyncEventHandler
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice

import fleet
from fleet.contract import SAMPLE_RATE, VoiceList
from fleet.errors import FleetError, InvalidValue, NothingToSpeak, UpstreamFailed
from fleet.wyoming_fleet import Fleet, sound, start_of, write

log = structlog.get_logger()

_WAITING_CHUNKS = 1_000
"""Chunks of text that may wait for the fleet here; then the connection is read no further."""

_AUDIO = {"rate": SAMPLE_RATE, "width": 2, "channels": 1}
_PROJECT = Attribution(name="Chatterbox Fleet", url="https://github.com/resemble-ai/chatterbox")


class Handler(AsyncEventHandler):
    """One connection. What is being spoken ends with it; whatever is asked for ends with `audio-stop`, errors too."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, served: Fleet) -> None:
        super().__init__(reader, writer)
        self._fleet = served
        self._speaking: asyncio.Task[None] | None = None
        self._written: asyncio.Queue[str | None] | None = None  # text of a streaming request; None ends it

    async def run(self) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # nobody is left
            await super().run()

    async def handle_event(self, event: Event) -> bool:
        """Whether the connection goes on."""
        try:
            await self._handle(event)
        except FleetError as error:
            await self._refuse(event, error)
        except (KeyError, TypeError, AttributeError) as error:
            await self._refuse(event, InvalidValue(f"{event.type}: {error!r}"))
        return True

    async def _handle(self, event: Event) -> None:
        if Describe.is_type(event.type):
            await self.write_event(info_of(await self._fleet.voices()).event())
        elif SynthesizeStart.is_type(event.type):
            voice = SynthesizeStart.from_event(event).voice
            await self._finish_speaking()
            self._written = asyncio.Queue(_WAITING_CHUNKS)
            self._speaking = asyncio.create_task(self._speak(voice, self._written, streaming=True))
        elif SynthesizeChunk.is_type(event.type) and self._written is not None:
            await self._hand_over(_text_of(event))
        elif SynthesizeStop.is_type(event.type) and self._written is not None:
            await self._hand_over(None)
            self._written = None
        elif Synthesize.is_type(event.type) and self._written is None:  # in a stream it repeats the text
            voice, text = Synthesize.from_event(event).voice, _text_of(event)
            await self._finish_speaking()
            whole: asyncio.Queue[str | None] = asyncio.Queue()
            whole.put_nowait(text)
            whole.put_nowait(None)
            self._speaking = asyncio.create_task(self._speak(voice, whole, streaming=False))

    async def _refuse(self, event: Event, error: FleetError) -> None:
        streaming = SynthesizeStart.is_type(event.type)
        asks = streaming or Synthesize.is_type(event.type)
        if asks:
            await self._finish_speaking()
        await self._tell(error)
        if asks:
            await self._end(streaming=streaming)

    async def disconnect(self) -> None:
        await self._stop_speaking()

    async def _stop_speaking(self) -> None:
        if self._speaking is not None:
            self._speaking.cancel()
            await asyncio.wait({self._speaking})

    async def _finish_speaking(self) -> None:
        """Until all that was asked for is spoken; what is still being written, and so has no end, ends now."""
        if self._speaking is None:
            return
        if self._written is None:
            await asyncio.wait({self._speaking})
            return
        self._written = None
        await self._stop_speaking()
        if self._speaking.cancelled():
            await self._end(streaming=True)

    async def _hand_over(self, text: str | None) -> None:
        """Text for what is being spoken; waits where too much waits, unless that has come to an end."""
        assert self._written is not None
        assert self._speaking is not None
        putting = asyncio.ensure_future(self._written.put(text))
        await asyncio.wait({putting, self._speaking}, return_when=asyncio.FIRST_COMPLETED)
        putting.cancel()

    async def _speak(
        self, voice: SynthesizeVoice | None, written: asyncio.Queue[str | None], *, streaming: bool
    ) -> None:
        with suppress(ConnectionError):
            try:
                async with await self._fleet.streaming() as socket:
                    await socket.send(json.dumps(start_of(voice)))
                    writing = asyncio.create_task(write(socket, written))
                    try:
                        await self._pass_on(sound(socket))
                    finally:
                        writing.cancel()
            except ConnectionError:  # of the caller, who has left
                raise
            except (WebSocketException, OSError) as error:
                await self._tell(UpstreamFailed(f"the fleet was lost: {error}"))
            except FleetError as error:
                await self._tell(error)
            await self._end(streaming=streaming)

    async def _end(self, *, streaming: bool) -> None:
        await self.write_event(AudioStop().event())
        if streaming:
            await self.write_event(SynthesizeStopped().event())

    async def _pass_on(self, sound: AsyncIterator[bytes]) -> None:
        await self.write_event(AudioStart(**_AUDIO).event())
        heard = False
        async for piece in sound:
            heard = True
            await self.write_event(AudioChunk(**_AUDIO, audio=piece).event())
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


def _text_of(event: Event) -> str:
    """Raises `InvalidValue`, or `KeyError` where there is none."""
    text = event.data["text"]
    if text is not None and not isinstance(text, str):
        raise InvalidValue(f"{event.type}: the text must be a string", param="text")
    return text or ""
