"""What is heard at the ends and the joins of real answers."""

from __future__ import annotations

import httpx2
import numpy as np
import pytest

from fleet.contract import SAMPLE_RATE, AudioFormat
from tests.sound import decode
from workers.engine.base import Samples


def spoken(http: httpx2.Client, text: str, **fields: object) -> Samples:
    answer = http.post("/v1/audio/speech", json={"input": text, "response_format": "wav", "voice": "alto", **fields})
    assert answer.status_code == 200, answer.text
    return decode(answer.content, AudioFormat.wav)[0]


def gaps_s(samples: Samples) -> list[float]:
    """Lengths of the silences within, longest first, in seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    return [float(gap) / SAMPLE_RATE for gap in np.sort(np.diff(loud))[::-1][:4]]


@pytest.mark.parametrize("text", ["Hello there.", "One.\n\nTwo.", "Is it? " * 60])
def test_ends_are_short_and_silent(http: httpx2.Client, text: str) -> None:
    """At most 60 ms before the first sound and 120 ms behind the last, and no step at either edge."""
    samples = spoken(http, text)
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    assert loud[0] / SAMPLE_RATE < 0.075
    assert (len(samples) - loud[-1]) / SAMPLE_RATE < 0.13
    assert abs(samples[0]) < 0.002
    assert abs(samples[-1]) < 0.002


def test_pause_is_heard_where_it_was_written(http: httpx2.Client) -> None:
    """Beside the little quiet around it."""
    assert gaps_s(spoken(http, "One. [pause 1.5s] Two."))[0] == pytest.approx(1.6, abs=0.1)
    with_ends = spoken(http, "[pause 700ms] One. [pause 2 s]")
    loud = np.flatnonzero(np.abs(with_ends) > 0.005)
    assert loud[0] / SAMPLE_RATE == pytest.approx(0.72, abs=0.05)
    assert (len(with_ends) - loud[-1]) / SAMPLE_RATE == pytest.approx(2.06, abs=0.06)


def test_paragraphs_are_further_apart_than_sentences(http: httpx2.Client) -> None:
    """Half a second and what is left of the quiet around it."""
    assert gaps_s(spoken(http, "One.\n\nTwo."))[0] == pytest.approx(0.6, abs=0.12)
    assert gaps_s(spoken(http, "One.\n\nTwo."))[0] > gaps_s(spoken(http, "One. Two."))[0]


def test_joins_do_not_click(http: httpx2.Client) -> None:
    """No step at a join is larger than those within speech."""
    alone = spoken(http, "Seven eight nine.")
    joined = spoken(http, "Seven eight nine. [pause 50ms] Seven eight nine. [pause 50ms] Seven eight nine.")
    assert np.abs(np.diff(joined)).max() <= np.abs(np.diff(alone)).max() * 1.05


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Hello. [pause 11s]", "invalid_value"),
        ("[pause 1s]", "nothing_to_speak"),
        ("[pause 9s] a" * 7, "invalid_value"),
    ],
)
def test_unfit_pauses_are_refused(http: httpx2.Client, text: str, code: str) -> None:
    """By the name of the text's field."""
    answer = http.post("/v1/audio/speech", json={"input": text})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
    assert answer.json()["error"]["param"] == "input"
