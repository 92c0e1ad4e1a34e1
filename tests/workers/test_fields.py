"""The fields of a request for speech, at a worker and through the balancer."""

from __future__ import annotations

import httpx2
import pytest

from fleet.speech_contract import SpeechRequest, StreamRequest

SPEECH = "/v1/audio/speech"
JSON = {"content-type": "application/json"}


@pytest.fixture(params=["worker", "balancer"])
def side(request: pytest.FixtureRequest, http: httpx2.Client, worker_http: httpx2.Client) -> httpx2.Client:
    return http if request.param == "balancer" else worker_http


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b'"voice": ""', "voice: must not be empty"),
        (b'"voice": "%s"' % (b"x" * 200), "voice: may hold at most 128 characters"),
        (b'"voice": {}', "voice: it needs 'id'"),
        (b'"voice": {"id": "alto", "x": 1}', "voice: there is no field 'x' in it"),
        (b'"voice": {"id": ""}', "voice: must not be empty"),
        (b'"\\ud800": 1', "the name of a field must be valid Unicode, without lone surrogates"),
    ],
)
def test_what_is_wrong_is_said_in_words(side: httpx2.Client, given: bytes, said: str) -> None:
    """Of the form that was meant, where a field takes several."""
    answer = side.post(SPEECH, content=b'{"input": "a", %s}' % given, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, said)


def test_null_is_as_good_as_left_out(side: httpx2.Client) -> None:
    """Of every field that has a default."""
    unset = dict.fromkeys(set(SpeechRequest.model_fields) - {"input"})
    answer = side.post(SPEECH, json={"input": "fine", **unset})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    native = dict.fromkeys(set(StreamRequest.model_fields) - {"text"})
    assert side.post("/synthesize/stream", json={"text": "fine", **native}).status_code == 200
