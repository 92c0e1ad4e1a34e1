"""The segments of a text, told while it is spoken."""

from __future__ import annotations

import base64
import re
from itertools import pairwise
from typing import Any

import httpx2
import numpy as np
import pytest

from fleet.contract import SAMPLE_RATE
from tests.workers.test_speech_events import events_of
from workers.engine.base import Job, Pause
from workers.engine.espeak import EspeakEngine

LONG = "A sentence that is long enough to be spoken by itself, since segments join what is short. " * 6


@pytest.fixture(params=["worker", "balancer"])
def side(request: pytest.FixtureRequest, http: httpx2.Client, worker_http: httpx2.Client) -> httpx2.Client:
    return http if request.param == "balancer" else worker_http


def told(side: httpx2.Client, text: str, **more: object) -> list[tuple[str, dict[str, Any]]]:
    answer = side.post("/synthesize/stream", json={"text": text, "format": "pcm", **more})
    assert answer.status_code == 200
    return list(events_of(iter(answer.text.split("\n"))))


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        "One. [pause 1s] Two.",
        "One.\n\nTwo.\n\n\n\nThree.",
        "Only one.",
        "One.\n\n...\n\nThree.",
        "[pause 1s] One.",
        "One. [pause 0s] Two. [pause 1s] Three.",
    ],
)
@pytest.mark.parametrize("speed", [1, 2, 0.25])
def test_each_segment_is_told_once_and_in_order(side: httpx2.Client, text: str, speed: float) -> None:
    """First the pieces, then each with the place where it ends, behind its sound; the last ends with the sound."""
    events = told(side, text, speed=speed)
    assert events[0][0] == "speech.segments"
    segments = events[0][1]["segments"]
    assert "".join("".join(segments).split()) == "".join(re.sub(r"\[pause .s\]", "", text).split())
    sent, ends = 0, list[float]()
    for kind, data in events[1:-1]:
        if kind == "speech.audio.delta":
            sent += len(base64.b64decode(data["audio"])) // 2
        else:
            assert (kind, data["index"]) == ("speech.segment.done", len(ends))
            assert data["audio_s"] <= sent / SAMPLE_RATE + 0.001
            ends.append(data["audio_s"])
    assert events[-1][0] == "speech.audio.done"
    assert len(ends) == len(segments)
    assert all(earlier <= later for earlier, later in pairwise(ends))
    assert ends[-1] == pytest.approx(sent / SAMPLE_RATE, abs=0.001)


def test_segments_end_where_the_sound_pauses(worker_http: httpx2.Client) -> None:
    """What is told of the first segment's end is where, after its pause, the second is heard."""
    events = told(worker_http, "First. [pause 1s] Second.")
    sound = b"".join(base64.b64decode(data["audio"]) for kind, data in events if kind == "speech.audio.delta")
    samples = np.frombuffer(sound, "<i2")
    end = round(SAMPLE_RATE * next(data["audio_s"] for kind, data in events if kind == "speech.segment.done"))
    assert not np.any(samples[end - round(0.95 * SAMPLE_RATE) : end])
    assert np.any(samples[end : end + SAMPLE_RATE // 4])


@pytest.mark.parametrize("speed", [2, 0.5, 0.25])
def test_segments_end_where_the_sound_pauses_at_any_speed(worker_http: httpx2.Client, speed: float) -> None:
    """What a change of tempo holds back when a segment is over belongs to the segment."""
    plain, stretched = (
        [data["audio_s"] for kind, data in told(worker_http, LONG, speed=spoken) if kind == "speech.segment.done"]
        for spoken in (1, speed)
    )
    assert len(plain) > 1
    assert [end * speed for end in stretched] == pytest.approx(plain, abs=0.05)


def test_segments_without_a_pause_between_them_end_apart(worker_http: httpx2.Client) -> None:
    """Where the text asks for none, the first one ends where it would with the pause, but for that."""
    apart, joined = (
        [data["audio_s"] for kind, data in told(worker_http, text) if kind == "speech.segment.done"]
        for text in ("First. [pause 1s] Second.", "First. [pause 0s] Second.")
    )
    assert joined == pytest.approx([apart[0] - 1, apart[1] - 1], abs=0.002)


def test_openai_events_stay_openai_events(side: httpx2.Client) -> None:
    """On OpenAI's route there are its own events only."""
    answer = side.post("/v1/audio/speech", json={"input": LONG, "response_format": "pcm", "stream_format": "sse"})
    kinds = {kind for kind, _ in events_of(iter(answer.text.split("\n")))}
    assert kinds == {"speech.audio.delta", "speech.audio.done"}


async def test_an_engine_counts_what_is_over(engine: EspeakEngine) -> None:
    """Pauses count the segments before them, which are those that the engine names beforehand."""
    job = Job("counted", LONG + "\n\nAnother paragraph.", engine.capabilities.voices[0].id)
    pauses = [sound async for sound in engine.submit(job) if isinstance(sound, Pause)]
    assert [pause.done for pause in pauses] == list(range(1, len(engine.segments(job))))
