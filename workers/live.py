"""Speech from text that is still being written: sentences spoken in order, one ahead of the one that is heard."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from fleet.errors import NothingToSpeak, TextTooLong
from fleet.stream_contract import SentenceBegun, UtteranceDone
from workers.engine.base import Pause, Sound
from workers.engine.pauses import SENTENCE_PAUSE_S, check_pauses, passages
from workers.resolution import Speech
from workers.sentences import SentenceBuffer
from workers.synthesis import Measured, Synthesis
from workers.track import Track

_AT_ONCE = 2
"""Sentences in the engine: the one that is heard and the one behind it."""

_MOST_UNREAD = 1_000
"""Messages, or utterances, that may wait behind text that has no room: a cancel that comes after them acts at once."""

_MOST_UNREAD_CHARS = 8
"""Characters that may wait so, in longest texts."""

_WAITING_PIECES = 8
"""Pieces of a sentence, each at most a second of sound, that wait for the reader here; more wait in the engine."""


@dataclass(eq=False, slots=True)
class _Sentence:
    """A sentence and its sound on the way; `None` ends it, an exception cuts it short."""

    text: str
    utterance: int
    pieces: asyncio.Queue[Sound | Exception | None] = field(default_factory=lambda: asyncio.Queue(_WAITING_PIECES))
    measured: Measured = field(default_factory=Measured)
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Text:
    utterance: int
    text: str


@dataclass(frozen=True, slots=True)
class _Flush:
    utterance: int
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class _Finish:
    pass


Heard = bytes | SentenceBegun | UtteranceDone


class LiveSpeech:
    """One connection's text and sound. `heard` is one task's, all else another's, which awaits `room` now and then.

    What is between two flushes is an utterance: one file in the format that was asked for, told as done exactly once.
    """

    def __init__(self, synthesis: Synthesis, speech: Speech, *, language: str, max_waiting_chars: int) -> None:
        self._synthesis, self._speech = synthesis, speech
        self._max_waiting_chars = max_waiting_chars
        self._buffer = SentenceBuffer(language)
        self._unread: deque[_Text | _Flush | _Finish] = deque()  # for which there is no room yet
        self._items: asyncio.Queue[_Sentence | _Flush | _Finish] = asyncio.Queue()
        self._sentences: list[_Sentence] = []  # in the queue or being heard
        self._room = asyncio.Event()
        self._utterance = 0  # that is being written
        self._unended = 0  # the first of which nobody has been told that it is done
        self.chars = 0
        self.audio_s = 0.0

    @property
    def silent(self) -> bool:
        """Whether all that was written has been heard."""
        return not self._sentences and not self._unread

    def write(self, text: str) -> None:
        """More text. Raises `TextTooLong` for too much at once."""
        if len(text) > self._max_waiting_chars:
            raise TextTooLong(f"at most {self._max_waiting_chars} characters may come at once", param="text")
        self.chars += len(text)
        self._unread.append(_Text(self._utterance, text))
        self._take_in()

    def flush(self) -> None:
        self._unread.append(_Flush(self._utterance))
        self._utterance += 1
        self._take_in()

    async def room(self) -> None:
        """Until no more waits than may: what is written is taken in any case."""
        while self._crowded():
            self._room.clear()
            await self._room.wait()

    async def cancel(self) -> None:
        """Forget all that has not been heard, and tell each utterance of it as cancelled."""
        self._buffer.flush()
        self._unread.clear()
        dropped, self._sentences = self._sentences, []
        while not self._items.empty():
            self._items.get_nowait()
        for sentence in dropped:
            await _stop(sentence)
            while not sentence.pieces.empty():
                sentence.pieces.get_nowait()
            sentence.pieces.put_nowait(None)
        self._utterance += 1
        for utterance in range(self._unended, self._utterance):
            self._items.put_nowait(_Flush(utterance, cancelled=True))
        self._room.set()

    def end(self) -> None:
        self.flush()
        self._unread.append(_Finish())
        self._take_in()

    async def aclose(self) -> None:
        """Stop everything."""
        for sentence in self._sentences:
            await _stop(sentence)

    async def heard(self) -> AsyncGenerator[Heard, None]:
        """What is to be sent, in order, until the end. Raises what speaking a sentence raises."""
        track = Track(self._speech)
        while not isinstance(item := await self._items.get(), _Finish):
            if isinstance(item, _Flush):
                self._unended = item.utterance + 1
                self._room.set()
                rest = b"" if item.cancelled else await asyncio.to_thread(track.finish)
                if rest and not track.empty:
                    yield rest
                self.audio_s += track.audio_s
                yield UtteranceDone(utterance=item.utterance, audio_s=round(track.audio_s, 3), cancelled=item.cancelled)
                track = Track(self._speech)
                continue
            began = False
            while (piece := await item.pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                if not began and not isinstance(piece, Pause):
                    began = True
                    if between := b"" if track.empty else await asyncio.to_thread(track.add, Pause(SENTENCE_PAUSE_S)):
                        yield between
                    yield SentenceBegun(utterance=item.utterance, text=item.text.strip())
                if encoded := await asyncio.to_thread(track.add, piece):
                    yield encoded
            if item in self._sentences:
                self._sentences.remove(item)
            self._take_in()

    def _crowded(self) -> bool:
        chars = sum(len(item.text) for item in self._unread if isinstance(item, _Text))
        most = max(len(self._unread), self._utterance - self._unended)
        return most > _MOST_UNREAD or chars > _MOST_UNREAD_CHARS * self._max_waiting_chars

    def _take_in(self) -> None:
        """Make sentences of what has been written, for as much of it as there is room."""
        while self._unread and self._fits(self._unread[0]):
            match item := self._unread.popleft():
                case _Text():
                    self._say(self._buffer.add(item.text), item.utterance)
                case _Flush():
                    self._say(self._buffer.flush(), item.utterance)
                    self._items.put_nowait(item)
                case _Finish():
                    self._items.put_nowait(item)
        self._begin()
        self._room.set()

    def _fits(self, item: _Text | _Flush | _Finish) -> bool:
        """Where nothing else waits to be spoken, the longest text does, too."""
        if not isinstance(item, _Text) or not self._sentences:
            return True
        waiting = len(self._buffer) + sum(len(sentence.text) for sentence in self._sentences)
        return waiting + len(item.text) <= self._max_waiting_chars

    def _say(self, texts: list[str], utterance: int) -> None:
        for text in texts:
            sentence = _Sentence(text, utterance)
            self._sentences.append(sentence)
            self._items.put_nowait(sentence)

    def _begin(self) -> None:
        for sentence in self._sentences[:_AT_ONCE]:
            if sentence.task is None:
                sentence.task = asyncio.create_task(self._speak(sentence), name="sentence")

    async def _speak(self, sentence: _Sentence) -> None:
        try:
            check_pauses(sentence.text, "text")
            await self._spoken(sentence)
        except NothingToSpeak:  # an emoji, or dots: the text goes on
            pass
        except Exception as error:  # noqa: BLE001 - raised again where the sentence is heard
            await sentence.pieces.put(error)
        await sentence.pieces.put(None)

    async def _spoken(self, sentence: _Sentence) -> None:
        parts = passages(sentence.text)
        if not any(part.text for part in parts):
            for part in parts:
                await sentence.pieces.put(Pause(part.pause_s))
            return
        speech = replace(self._speech, text=sentence.text)
        async with aclosing(self._synthesis.sound(speech, sentence.measured)) as sound:
            async for piece in sound:
                await sentence.pieces.put(piece)


async def _stop(sentence: _Sentence) -> None:
    if sentence.task is not None:
        sentence.task.cancel()
        await asyncio.wait({sentence.task})
