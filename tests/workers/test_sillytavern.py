"""Requests as SillyTavern's Chatterbox provider sends them, on a worker and through the balancer."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from fleet.contract import AudioFormat
from tests.sound import decode, loudness

ORIGIN = {"origin": "http://127.0.0.1:8000"}
STANDARD: dict[str, Any] = {
    "text": "Hello from the tavern.",
    "voice_mode": "predefined",
    "temperature": 0.8,
    "exaggeration": 0.5,
    "cfg_weight": 0.5,
    "seed": -1,
    "speed_factor": 1.0,
    "language": "en",
    "split_text": True,
    "chunk_size": 120,
    "output_format": "wav",
    "predefined_voice_id": "S1",
}


@pytest.fixture(params=["worker", "balancer"])
def side(request: pytest.FixtureRequest, http: httpx2.Client, worker_http: httpx2.Client) -> httpx2.Client:
    return http if request.param == "balancer" else worker_http


def test_connection_and_lists(side: httpx2.Client) -> None:
    """What the provider asks when it is chosen, from a page of another port."""
    assert side.get("/", headers=ORIGIN).status_code == 200
    voices = side.get("/get_predefined_voices", headers=ORIGIN)
    assert voices.headers["access-control-allow-origin"] == ORIGIN["origin"]
    assert {"display_name", "filename", "voice_id"} <= voices.json()[0].keys()
    assert all(isinstance(name, str) for name in side.get("/get_reference_files").json())


@pytest.mark.parametrize("output_format", ["wav", "opus"])
def test_standard_speech(side: httpx2.Client, output_format: str) -> None:
    """The provider's whole body, for its default voice and for one that was chosen."""
    asked = {**STANDARD, "output_format": output_format}
    for voice in ("S1", side.get("/get_predefined_voices").json()[1]["voice_id"]):
        answer = side.post("/tts", json=asked | {"predefined_voice_id": voice}, headers=ORIGIN)
        assert answer.status_code == 200, answer.text
        assert {"split_text", "chunk_size"} <= set(answer.headers["x-ignored-parameters"].split(","))
        samples, rate = decode(answer.content, AudioFormat(output_format))
        assert len(samples) / rate > 0.8
        assert loudness(samples) > 0.01


def test_streaming_speech(side: httpx2.Client) -> None:
    """The address that the provider gives an audio element."""
    asked = {key: str(value) for key, value in STANDARD.items() if key not in ("split_text", "chunk_size")}
    answer = side.get("/tts-stream", params=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    assert len(decode(answer.content, AudioFormat.wav)[0]) > 10_000


def test_cloned_voice(side: httpx2.Client) -> None:
    """A voice made from a recording is a reference file."""
    text = "A recording of somebody who speaks for some seconds will do, if there are enough words in it."
    recording = side.post("/synthesize", json={"text": text, "voice": "onyx"})
    made = side.post("/voices", files={"file": ("barkeep.wav", recording.content)}, data={"name": "The Barkeep"})
    assert made.status_code == 201, made.text
    try:
        assert "The Barkeep" in side.get("/get_reference_files").json()
        for name in ("The Barkeep", "The Barkeep.wav"):
            asked = STANDARD | {"voice_mode": "clone", "reference_audio_filename": name}
            answer = side.post("/tts", json=asked)
            assert (answer.status_code, answer.headers["x-voice"]) == (200, made.json()["id"])
    finally:
        side.delete(f"/voices/{made.json()['id']}")


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"predefined_voice_id": "nobody"}, 404, "predefined_voice_id"),
        ({"voice_mode": "clone"}, 422, "reference_audio_filename"),
        ({"voice_mode": "sing"}, 422, "voice_mode"),
        ({"output_format": "midi"}, 422, "output_format"),
        ({"speed_factor": 0}, 422, "speed_factor"),
        ({"seed": 2**60}, 422, "seed"),
        ({"text": ""}, 422, "text"),
    ],
)
def test_bad_values_name_their_field(side: httpx2.Client, change: dict[str, Any], status: int, param: str) -> None:
    """By the provider's own names where it has one."""
    answer = side.post("/tts", json=STANDARD | change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


def test_what_others_send_is_reported(side: httpx2.Client) -> None:
    """Fields that this service has never heard of are no error here."""
    answer = side.post("/tts", json=STANDARD | {"audio\r\nname": 1, "top_k": 5})
    assert answer.status_code == 200
    assert "audioname" in answer.headers["x-ignored-parameters"]
    for query in ("foo=1", "foo=1&split_text=true"):
        answer = side.get(f"/tts-stream?text=Hi.&{query}")
        assert answer.status_code == 200
        assert "foo" in answer.headers["x-ignored-parameters"].split(",")
