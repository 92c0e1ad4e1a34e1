"""`fleet wyoming` as a process of its own, asked by the `wyoming` package's client as Home Assistant asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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
    time.sleep(0.3)
    yield chosen
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


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
    ("asked", "said"),
    [
        (Synthesize(text="Hello.", voice=SynthesizeVoice(name="nobody")).event(), "there is no voice"),
        (Synthesize(text="...").event(), "nothing that can be spoken"),
        (Event("synthesize", {}), "text"),
    ],
)
async def test_errors_are_told_and_the_connection_goes_on(client: AsyncTcpClient, asked: Event, said: str) -> None:
    """With the reason, as Home Assistant logs it."""
    await client.write_event(asked)
    events, _ = await spoken(client, Error)
    assert said in Error.from_event(events[-1]).text
    await client.write_event(Synthesize(text="Still here.").event())
    assert (await spoken(client, AudioStop))[1]


async def test_leaving_frees_the_engine(port: int, fleet: RunningFleet) -> None:
    """Within a second."""
    async with AsyncTcpClient("127.0.0.1", port) as leaving:
        await leaving.write_event(Synthesize(text="This goes on and on. " * 400).event())
        await spoken(leaving, AudioChunk)
    wait_for(lambda: in_flight(fleet) == 0, 1.5)


def test_start_is_refused_with_one_line(port: int) -> None:
    """For an address that is none, and one that is taken."""
    for uri, said in (("http://x", "--uri"), (f"tcp://127.0.0.1:{port}", "cannot listen")):
        ended = subprocess.run(
            [*COMMAND, "--uri", uri],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (ended.returncode, said in ended.stderr) == (1, True), ended.stderr
