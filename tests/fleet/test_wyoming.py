"""`fleet wyoming` as a process of its own, asked by the `wyoming` package's client as Home Assistant asks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice

from fleet.contract import SAMPLE_RATE
from tests.running import ROOT, RunningFleet, free_port, in_flight, wait_for

COMMAND = [sys.executable, "-P", "-c", "from fleet.cli import app; app()", "wyoming", "--no-announce"]


@pytest.fixture(scope="module")
def port(fleet: RunningFleet) -> Iterator[int]:
    chosen = free_port(0)
    process = subprocess.Popen(
        [*COMMAND, "--uri", f"tcp://127.0.0.1:{chosen}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FLEET_URL": fleet.url},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "speaking Wyoming" in process.stderr.readline()
    yield chosen
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert "Traceback" not in process.stderr.read()


async def spoken(client: AsyncTcpClient, until: type) -> tuple[list[Event], bytes]:
    """The events up to one of the kind, and the sound in them."""
    events, sound = [], b""
    while (event := await client.read_event()) is not None:
        events.append(event)
        if AudioChunk.is_type(event.type):
            chunk = AudioChunk.from_event(event)
            assert (chunk.rate, chunk.width, chunk.channels) == (SAMPLE_RATE, 2, 1)
            sound += chunk.audio
        if until.is_type(event.type):  # type: ignore[attr-defined]  # each kind of event has it
            return events, sound
    raise AssertionError("the connection ended")


@pytest.fixture
async def client(port: int) -> AsyncIterator[AsyncTcpClient]:
    async with AsyncTcpClient("127.0.0.1", port) as connected:
        yield connected


async def test_describes_its_voices(client: AsyncTcpClient) -> None:
    """By id, each with its language."""
    await client.write_event(Describe().event())
    event = await client.read_event()
    assert event is not None
    (program,) = Info.from_event(event).tts
    assert program.supports_synthesize_streaming
    assert {"nova", "alto"} & {voice.name for voice in program.voices} or program.voices
    assert all(voice.languages and voice.installed for voice in program.voices)


async def test_speaks_a_text(client: AsyncTcpClient) -> None:
    """Between a start and a stop, and again on the same connection."""
    for text in ("Turn on the light.", "And off again, please."):
        await client.write_event(Synthesize(text=text, voice=SynthesizeVoice(name="nova")).event())
        events, sound = await spoken(client, AudioStop)
        assert AudioStart.is_type(events[0].type)
        samples = np.frombuffer(sound, "<i2")
        assert len(samples) > 0.6 * SAMPLE_RATE
        assert np.abs(samples).max() > 3000


async def test_speaks_text_as_it_is_written(client: AsyncTcpClient) -> None:
    """The first sentence is heard before the second is written; the repeated whole is not spoken twice."""
    await client.write_event(SynthesizeStart(voice=SynthesizeVoice(name="nova")).event())
    for text in ("The light ", "is on. And"):
        await client.write_event(SynthesizeChunk(text=text).event())
    _, first = await spoken(client, AudioChunk)
    assert first
    await client.write_event(SynthesizeChunk(text=" the door is shut.").event())
    await client.write_event(Synthesize(text="The light is on. And the door is shut.").event())
    await client.write_event(SynthesizeStop().event())
    _, rest = await spoken(client, SynthesizeStopped)
    assert 1 < (len(first) + len(rest)) / 2 / SAMPLE_RATE < 5


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (
            Synthesize(text="Hello.", voice=SynthesizeVoice(name="nobody")).event(),
            "voice_not_found",
            "there is no voice",
        ),
        (Synthesize(text="...").event(), "nothing_to_speak", "nothing that can be spoken"),
        (Event("synthesize", {"text": None}), "nothing_to_speak", "nothing that can be spoken"),
        (Synthesize(text="Hello. [pause 99s] You.").event(), "invalid_value", "pause"),
        (Event("synthesize", {"text": 5}), "invalid_value", "text"),
        (Event("synthesize", {}), "invalid_value", "text"),
    ],
)
async def test_errors_are_told_and_the_connection_goes_on(
    client: AsyncTcpClient, asked: Event, code: str, said: str
) -> None:
    """With code and reason, and an end for whoever waits for it, as Home Assistant does."""
    await client.write_event(asked)
    events, _ = await spoken(client, AudioStop)
    (error,) = [Error.from_event(event) for event in events if Error.is_type(event.type)]
    assert (error.code, said in error.text) == (code, True)
    await client.write_event(Synthesize(text="Still here.").event())
    assert (await spoken(client, AudioStop))[1]


async def test_streams_end_after_errors_too(client: AsyncTcpClient) -> None:
    """With both their ends; what is written to one that has failed is passed over."""
    await client.write_event(SynthesizeStart(voice=SynthesizeVoice(name="nobody")).event())
    events, _ = await spoken(client, SynthesizeStopped)
    assert [event.type for event in events if not AudioStart.is_type(event.type)] == [
        "error",
        "audio-stop",
        "synthesize-stopped",
    ]
    await client.write_event(SynthesizeChunk(text="Nobody says this.").event())
    await client.write_event(SynthesizeStop().event())
    await client.write_event(Event("synthesize-start", {"voice": 5}))
    events, _ = await spoken(client, SynthesizeStopped)
    assert [event.type for event in events] == ["error", "audio-stop", "synthesize-stopped"]


async def test_a_new_stream_ends_the_one_before(client: AsyncTcpClient, fleet: RunningFleet) -> None:
    """One whose text has no end yet is given up, with both its ends, and frees the engine."""
    for text in ("This goes on and on. " * 100, "This is short."):
        await client.write_event(SynthesizeStart(voice=SynthesizeVoice(name="nova")).event())
        await client.write_event(SynthesizeChunk(text=text).event())
    await client.write_event(SynthesizeStop().event())
    await spoken(client, SynthesizeStopped)
    assert 0.5 < len((await spoken(client, SynthesizeStopped))[1]) / 2 / SAMPLE_RATE < 3
    await client.write_event(Describe().event())
    await spoken(client, Info)
    await asyncio.to_thread(wait_for, lambda: in_flight(fleet) == 0, 1.5)


async def test_long_texts_go_to_the_fleet_in_pieces(client: AsyncTcpClient) -> None:
    """Above what it takes at once as text and as a message, in order."""
    long = "One. " + "\N{IDEOGRAPHIC SPACE}" * 400_000 + " Two."
    await client.write_event(Synthesize(text="One. Two.").event())
    _, short = await spoken(client, AudioStop)
    await client.write_event(Synthesize(text=long).event())
    events, whole = await spoken(client, AudioStop)
    assert not [Error.from_event(event).text for event in events if Error.is_type(event.type)]
    assert len(whole) == pytest.approx(len(short), rel=0.2)


async def test_leaving_while_a_stream_is_written_is_no_fault(port: int, fleet: RunningFleet) -> None:
    """Neither of one stream nor of the next; the engine is free, and nothing is left to complain."""
    async with AsyncTcpClient("127.0.0.1", port) as leaving:
        for _ in range(3):
            await leaving.write_event(SynthesizeStart().event())
            await leaving.write_event(SynthesizeChunk(text="This goes on and on. " * 400).event())
            await leaving.write_event(Describe().event())
    await asyncio.to_thread(wait_for, lambda: in_flight(fleet) == 0, 5)


async def test_leaving_frees_the_engine(port: int, fleet: RunningFleet) -> None:
    """Within a second."""
    async with AsyncTcpClient("127.0.0.1", port) as leaving:
        await leaving.write_event(Synthesize(text="This goes on and on. " * 400).event())
        await spoken(leaving, AudioChunk)
    wait_for(lambda: in_flight(fleet) == 0, 1.5)


def test_start_is_refused_with_one_line(port: int) -> None:
    """For an address that is none, and one that is taken."""
    for uri, said in (("http://x", "--uri"), ("stdio://", "--uri"), (f"tcp://127.0.0.1:{port}", "cannot listen")):
        ended = subprocess.run(
            [*COMMAND, "--uri", uri],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (ended.returncode, said in ended.stderr) == (1, True), ended.stderr
        assert "speaking" not in ended.stderr
