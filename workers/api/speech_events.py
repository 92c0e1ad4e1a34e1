"""Sound as server-sent events, as OpenAI's speech API tells it: pieces in base64, then what was used."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fleet.asgi import while_client_stays
from fleet.errors import FleetError, InternalError
from fleet.speech_contract import SpeechAudioDelta, SpeechAudioDone, SpeechSegmentDone, SpeechSegments, usage_of
from fleet.sse import error_event, event
from workers.synthesis import Measured

EVENT_STREAM = "text/event-stream"


class SpeechEventsResponse(Response):
    """Waits for the first piece before it sends a header, so a synthesis that fails at once gets an honest status.

    A later failure is an `error` event, and no `speech.audio.done` follows it. Whenever the caller leaves, `pieces` is
    closed, which cancels the synthesis; `measured` must be filled in as they come. Where there are `segments`, they are
    told, and each when it is over.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        measured: Measured,
        *,
        chars: int,
        headers: Mapping[str, str],
        segments: Sequence[str] = (),
    ) -> None:
        unbuffered = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(media_type=EVENT_STREAM, headers={**headers, **unbuffered})
        del self.headers["content-length"]
        self._pieces, self._measured, self._chars = pieces, measured, chars
        self._segments, self._ended = segments, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_client_stays(receive, self._stream(scope, send))

    async def _stream(self, scope: Scope, send: Send) -> None:
        async def tell(piece_told: bytes) -> None:
            await send({"type": "http.response.body", "body": piece_told, "more_body": True})

        async with aclosing(self._pieces) as pieces:
            piece = await anext(pieces, b"")
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                if self._segments:
                    told = SpeechSegments(segments=list(self._segments))
                    await tell(event(told.type, told.model_dump_json()))
                while piece:
                    delta = SpeechAudioDelta(audio=base64.b64encode(piece).decode())
                    await tell(event(delta.type, delta.model_dump_json()))
                    for ended in self._newly_ended():
                        await tell(ended)
                    piece = await anext(pieces, b"")
                self._end_all()
                for ended in self._newly_ended():
                    await tell(ended)
                done = SpeechAudioDone(usage=usage_of(self._chars, self._measured.sent_s))
                await tell(event(done.type, done.model_dump_json()))
            except FleetError as error:
                scope["state"]["outcome"] = error.code
                await tell(error_event(error, scope))
            except Exception:
                await tell(error_event(InternalError("the server met an error of its own; its log says more"), scope))
                raise
            await send({"type": "http.response.body", "body": b""})

    def _newly_ended(self) -> Iterator[bytes]:
        """An event for each segment whose end has been sent and that has not been told so."""
        ends = self._measured.segment_ends
        while self._ended < min(len(ends), len(self._segments)) and ends[self._ended] <= self._measured.sent_s:
            done = SpeechSegmentDone(index=self._ended, audio_s=round(ends[self._ended], 3))
            yield event(done.type, done.model_dump_json())
            self._ended += 1

    def _end_all(self) -> None:
        """The sound has ended, and whatever is left of it: a tempo rounds its length."""
        ends, sent_s = self._measured.segment_ends, self._measured.sent_s
        ends[:] = [min(end, sent_s) for end in ends] + [sent_s] * len(self._segments)
