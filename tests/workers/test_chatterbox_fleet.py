"""The real engine on a tiny checkpoint, behind real processes and sockets."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.running import RunningFleet, jobs, wait_for
from tests.workers.engine.chatterbox.checkpoints import load_script
from tests.workers.voices.making import voice_file

BOUNDS = {"CHATTERBOX_MAX_TOKENS": "40", "CHATTERBOX_THREADS": "1", "CHATTERBOX_MAX_ROWS": "16", "OMP_NUM_THREADS": "1"}
"""Random weights hardly ever draw the token that ends speech; and several processes share the cores."""

VOICES = [f"{word} and so it goes on for a while." for word in ("First", "Second", "Third", "Fourth")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    load_script().write_checkpoint(directory, size="tiny")
    return directory


@pytest.fixture(scope="module")
def fleet(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """`scripts/up --engine chatterbox --checkpoint DIR` on the CPU: one worker and the balancer."""
    flags = ("--engine", "chatterbox", "--device", "cpu", "--checkpoint", str(checkpoint))
    with RunningFleet(tmp_path_factory.mktemp("data"), *flags, environment=BOUNDS) as running:
        yield running


def speak(fleet: RunningFleet, **request: object) -> httpx2.Response:
    body = {"response_format": "pcm", "seed": 1, **request}
    return httpx2.post(f"{fleet.url}/v1/audio/speech", json=body, timeout=60)


def test_it_speaks_through_the_balancer(fleet: RunningFleet) -> None:
    """A request is answered with the model's sound, and the headers name the engine."""
    answer = speak(fleet, input="Hello from the fleet.")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-engine"] == "chatterbox"
    assert "x-ignored-parameters" not in answer.headers
    assert len(answer.content) % 1920 == 0  # whole tokens: 960 samples of two bytes
    assert len(answer.content) > 0


def test_openai_names_and_parameters_are_honoured(fleet: RunningFleet) -> None:
    """The same seed gives the same bytes; another quality or exaggeration gives others; OpenAI's voices are known."""
    text = "Hello from the fleet."
    first = speak(fleet, input=text, voice="alloy", model="tts-1").content
    assert speak(fleet, input=text, voice="nova").content == first
    assert speak(fleet, input=text, quality="draft").content != first
    assert speak(fleet, input=text, seed=2).content != first
    assert speak(fleet, input=text, exaggeration=1.5).content != first


async def test_requests_at_once_equal_requests_alone(fleet: RunningFleet) -> None:
    """Four texts spoken together are each what they are alone, byte by byte."""
    alone = [speak(fleet, input=text).content for text in VOICES]
    together = await asyncio.gather(*(asyncio.to_thread(speak, fleet, input=text) for text in VOICES))
    assert [answer.content for answer in together] == alone


def test_voice_from_a_recording_speaks(fleet: RunningFleet) -> None:
    """Prepared once and kept as safetensors; its sound is its own, the same from request to request."""
    made = httpx2.post(
        f"{fleet.url}/voices",
        files={"file": ("v.wav", voice_file())},
        data={"name": "Anna", "language": "de"},
        timeout=60,
    )
    assert made.status_code == 201, made.text
    text = "Hello from the fleet."
    answers = [speak(fleet, input=text, voice="anna") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert answers[0].content == answers[1].content != speak(fleet, input=text).content
    assert answers[0].headers["x-ignored-parameters"] == "language"  # which this model does not speak
    assert httpx2.get(f"{fleet.url}/voices/anna").json()["status"] == "ready"
    (url,) = fleet.worker_urls()
    assert httpx2.get(f"{url}/health").json()["figures"]["conditionals_computed"] == 1
    kept = [path.read_bytes() for path in (fleet.data / "sha256").glob("*/*")]
    assert sum(b'"__metadata__"' in contents[:2000] for contents in kept) == 1


def test_bad_values_name_their_field(fleet: RunningFleet) -> None:
    """An unknown quality and a text without words are refused as such."""
    for request, param in (({"input": "Hi.", "quality": "best"}, "quality"), ({"input": "?!"}, "input")):
        answer = speak(fleet, **request)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def test_health_and_metrics_tell_what_was_decoded(fleet: RunningFleet) -> None:
    """Steps, tokens, hops and slots are counted, and nothing is left in a slot."""
    speak(fleet, input="Counted.")
    (url,) = fleet.worker_urls()
    figures = httpx2.get(f"{url}/health").json()["figures"]
    assert figures["steps"] >= figures["tokens"] / figures["slots"] > 0
    assert figures["hops"] > 0
    assert figures["steps_per_s"] > 0
    assert figures["device_bytes"] is None
    wait_for(lambda: httpx2.get(f"{url}/health").json()["figures"]["slots_used"] == 0)
    served = httpx2.get(f"{url}/metrics").text
    assert "chatterbox_speech_tokens_total" in served
    assert "chatterbox_kv_slots 16.0" in served


def test_client_that_leaves_frees_its_slots(fleet: RunningFleet) -> None:
    """A connection closed before the answer leaves no job behind."""
    (url,) = fleet.worker_urls()
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(f"{url}/v1/audio/speech", json={"input": "Nobody hears this one. " * 40}, timeout=0.3)
    wait_for(lambda: jobs(url) == (0, 0))


def test_torch_is_not_asked_for_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    """The directory is looked at before torch is imported."""
    code = (
        "import sys\nfrom fleet.startup_errors import ModelMissing\nfrom workers.engine.choice import open_engine\n"
        f"try:\n    open_engine('chatterbox', device='cpu', checkpoint={str(tmp_path)!r}, max_jobs=1)\n"
        "except ModelMissing:\n    print('torch' in sys.modules)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
