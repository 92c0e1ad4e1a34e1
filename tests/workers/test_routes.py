"""What a worker and the balancer answer when all is well."""

from __future__ import annotations

import re

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleet.contract import AudioFormat, VoiceList, WorkerHealth
from fleet.speech_contract import SpeechRequest
from tests.running import RunningFleet, RunningWorker, free_port, wait_for
from tests.sound import decode, loudness

TEXT = "The quick brown fox jumps over the lazy dog, and then it speaks again."


@pytest.fixture(params=["worker", "balancer"])
def side(request: pytest.FixtureRequest, http: httpx2.Client, worker_http: httpx2.Client) -> httpx2.Client:
    return http if request.param == "balancer" else worker_http


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_speech_in_every_format(side: httpx2.Client, audio_format: AudioFormat) -> None:
    """Each format is labelled as what it is and holds the same seconds of speech."""
    answer = side.post("/v1/audio/speech", json={"input": TEXT, "response_format": audio_format})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == audio_format.media_type
    assert answer.headers["x-engine"] == "espeak"
    samples, rate = decode(answer.content, audio_format)
    assert 3.5 < len(samples) / rate < 5.5
    assert loudness(samples) > 0.02


def test_native_route_defaults_to_wav(side: httpx2.Client) -> None:
    """`/synthesize` takes `text` and answers WAV."""
    answer = side.post("/synthesize", json={"text": TEXT, "emotion": "calm", "voice": "tenor"})
    assert answer.headers["content-type"] == "audio/wav"
    assert (answer.headers["x-voice"], answer.headers["x-emotion"]) == ("tenor", "calm")
    assert loudness(decode(answer.content, AudioFormat.wav)[0]) > 0.02


def test_parameters_act(side: httpx2.Client) -> None:
    """Voice, emotion, language, exaggeration and speed each change the sound; the same request does not."""
    request = {"text": TEXT, "format": "pcm"}
    plain = side.post("/synthesize", json=request).content
    assert side.post("/synthesize", json=request).content == plain
    for change in ({"voice": "onyx"}, {"emotion": "expressive"}, {"language": "de"}, {"exaggeration": 1.5}):
        assert side.post("/synthesize", json={**request, **change}).content != plain, change
    double = side.post("/synthesize", json={**request, "speed": 2}).content
    assert len(double) == pytest.approx(len(plain) / 2, rel=0.03)


def test_ignored_parameters_are_told(side: httpx2.Client) -> None:
    """What the engine does not honour is named in a header."""
    answer = side.post("/synthesize", json={"text": TEXT, "temperature": 0.3, "seed": 7, "quality": "draft"})
    assert answer.headers["x-ignored-parameters"] == "quality,seed,temperature"


def test_listings_have_the_shapes_clients_read(side: httpx2.Client) -> None:
    """OpenAI's models, and Open WebUI's two lists of objects."""
    models = side.get("/v1/models").json()
    assert models["object"] == "list"
    assert {"tts-1", "gpt-4o-mini-tts"} <= {model["id"] for model in models["data"]}
    assert side.get("/v1/models/tts-1").json()["object"] == "model"
    assert side.get("/v1/models/nope").json()["error"]["message"].endswith("tts-1, tts-1-hd, gpt-4o-mini-tts")
    assert {"id": "tts-1"} in side.get("/v1/audio/models").json()["models"]
    voices = side.get("/v1/audio/voices").json()["voices"]
    assert all(isinstance(voice["id"], str) and isinstance(voice["name"], str) for voice in voices)
    assert len(VoiceList.model_validate({"voices": voices}).voices) >= 5
    assert side.get("/v1/test").json() == {"status": "ok"}


def test_every_listed_voice_speaks(side: httpx2.Client) -> None:
    """What the list offers can be asked for, by id, by name and by alias."""
    for voice in side.get("/v1/audio/voices").json()["voices"]:
        for name in (voice["id"], voice["name"], *voice["aliases"]):
            answer = side.post("/synthesize", json={"text": "Hi.", "voice": name, "format": "pcm"})
            assert answer.headers["x-voice"] == voice["id"]
            assert len(answer.content) > 5000


def test_worker_health_is_measured(worker_http: httpx2.Client) -> None:
    """After a synthesis the health answer holds figures of it."""
    worker_http.post("/synthesize", json={"text": TEXT})
    health = WorkerHealth.model_validate(worker_http.get("/health").json())
    assert health.ready
    assert health.demo_voice
    assert health.rtf is not None
    assert 0 < health.rtf < 1
    assert health.ttfa_s is not None
    assert 0 < health.ttfa_s < 5
    assert health.memory_bytes > 10_000_000
    assert health.figures is None


def test_worker_is_ready(worker_http: httpx2.Client) -> None:
    """`/ready` is 200 once a trial synthesis has succeeded."""
    answer = worker_http.get("/ready")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


def test_metrics_parse_and_count(side: httpx2.Client) -> None:
    """Prometheus can read the figures, and a synthesis moves them."""

    def total() -> float:
        families = text_string_to_metric_families(side.get("/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name in ("chatterbox_syntheses_total", "balancer_requests_total")
        )

    before = total()
    side.post("/synthesize", json={"text": "Count me."})
    wait_for(lambda: total() >= before + 1, 5)  # counted just after the last byte has left


def test_balancer_tells_what_speaks_behind_it(http: httpx2.Client, fleet: RunningFleet) -> None:
    """`/health`, `/ready` and `/stats` of the balancer speak for the fleet."""
    health = http.get("/health").json()
    assert (health["role"], health["engine"], health["ready"]) == ("balancer", ["espeak"], 2)
    assert http.get("/ready").status_code == 200
    stats = fleet.stats()
    assert [worker.state for worker in stats.workers] == ["ready", "ready"]
    assert all(worker.age_s is not None and worker.age_s < 10 for worker in stats.workers)
    assert stats.totals.in_flight == 0


def test_root_and_docs_answer(side: httpx2.Client) -> None:
    """A person who opens the address finds something there."""
    assert side.get("/").json()["name"] == "chatterbox-fleet"
    page = side.get("/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(assets) == 3
    for asset in assets:
        assert asset.startswith("/"), "the page works without a network"
        assert side.get(asset).status_code == 200


def test_docs_can_be_switched_off() -> None:
    """With `CHATTERBOX_ENABLE_DOCS=false` neither the page nor the document is there."""
    with RunningWorker(free_port(0), enable_docs="false") as worker:
        for path in ("/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
            assert httpx2.get(worker.url + path, trust_env=False).status_code == 404
        assert httpx2.get(worker.url + "/ready", trust_env=False).status_code == 200


def test_openapi_document_describes_the_request(side: httpx2.Client) -> None:
    """The document names the fields the contract has."""
    schemas = side.get("/openapi.json").json()["components"]["schemas"]
    assert set(SpeechRequest.model_fields) == set(schemas["SpeechRequest"]["properties"])


def test_openapi_document_holds_all_it_names(side: httpx2.Client) -> None:
    """Whoever makes a client from it finds each schema that a route refers to."""
    answer = side.get("/openapi.json")
    schemas = answer.json()["components"]["schemas"]
    named = set(re.findall(r'"\$ref": ?"#/components/schemas/([^"]+)"', answer.text))
    assert "LibraryEvent" in named
    assert named <= schemas.keys()


def test_head_is_answered_where_get_is(side: httpx2.Client) -> None:
    """With the same head and no body; what a head would have spoken, or never ends, does not take it."""
    kept = side.post("/generate", json={"text": "Hi."}).json()["audio_url"]
    for path in (kept, "/", "/health", "/v1/models", "/v1/models/tts-1", "/v1/audio/voices", "/v1/test", "/voices"):
        asked, got = side.head(path), side.get(path)
        assert (asked.status_code, asked.content) == (200, b""), path
        assert asked.headers["content-type"] == got.headers["content-type"]
    assert side.head("/docs").status_code == 200
    assert side.head("/outputs/nothing").status_code == 404
    for path in ("/tts-stream", "/voices/events", "/v1/audio/speech"):
        assert side.head(path).status_code == 405, path


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/health", "GET, HEAD"),
        ("GET", "/v1/audio/speech", "POST"),
        ("DELETE", "/voices", "GET, HEAD, POST"),
        ("POST", "/voices/alto", "DELETE, GET, HEAD, PATCH"),
        ("HEAD", "/tts-stream", "GET"),
        ("DELETE", "/docs", "GET, HEAD"),
    ],
)
def test_a_method_refused_names_those_taken(side: httpx2.Client, method: str, path: str, allowed: str) -> None:
    """`Allow` holds every method of the path, whichever route has it."""
    answer = side.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
