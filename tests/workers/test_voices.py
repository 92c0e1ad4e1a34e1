"""The routes of voices, emotions and files of speech, on a real worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile

from fleet.contract import AudioFormat
from tests.running import RunningWorker, free_port, wait_for
from tests.sound import decode
from tests.workers.voices.making import voice_file, wav

VOICE = voice_file()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    limits: dict[str, Any] = {"max_voice_size": 2_000_000, "voice_wait_s": 5, "max_output_size": 3_000_000}
    with RunningWorker(free_port(0), data_dir=tmp_path_factory.mktemp("data"), **limits) as running:
        yield running


@pytest.fixture(scope="module")
def client(worker: RunningWorker) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=worker.url, timeout=30, trust_env=False) as opened:
        yield opened


def upload(client: httpx2.Client, contents: bytes = VOICE, filename: str = "v.wav", **fields: Any) -> httpx2.Response:
    return client.post("/voices", files={"file": (filename, contents)}, data=fields)


def made(client: httpx2.Client, name: str, **fields: Any) -> dict[str, Any]:
    answer = upload(client, name=name, **fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def error_of(answer: httpx2.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def test_voice_from_a_recording_speaks_at_once(client: httpx2.Client) -> None:
    """Its first request waits for it, by any of its names, and says which voice it was."""
    low = made(client, "Low", aliases="deep, bass", language="en-GB", exaggeration="0.3")
    assert (low["status"], low["aliases"], low["defaults"]["exaggeration"]) == ("pending", ["deep", "bass"], 0.3)
    assert low["samples"][0]["report"]["duration_s"] == 4
    for name in (low["id"], "LOW", "bass"):
        answer = client.post("/v1/audio/speech", json={"input": "Hello.", "voice": name, "response_format": "pcm"})
        assert answer.status_code == 200, answer.text
        assert (answer.headers["x-voice"], answer.headers["x-language"]) == (low["id"], "en-gb")
        assert int(answer.headers["x-seed"]) >= 0
    found = client.get(f"/voices/{low['id']}").json()
    assert (found["status"], found["reason"]) == ("ready", None)
    assert low["id"] in [voice["id"] for voice in client.get("/v1/audio/voices").json()["voices"]]


def test_two_voices_are_two_sounds(client: httpx2.Client) -> None:
    """Requests at the same moment are never mixed."""
    pitches = {"Two low": 90.0, "Two high": 230.0}
    for name, pitch in pitches.items():
        upload(client, voice_file(pitch), name=name)

    def speak(name: str) -> bytes:
        request = {"input": "One and the same sentence.", "voice": name, "response_format": "pcm"}
        return client.post("/v1/audio/speech", json=request).content

    alone = {name: speak(name) for name in pitches}
    assert alone["Two low"] != alone["Two high"]
    with ThreadPoolExecutor(8) as pool:
        for name, sound in zip([*pitches] * 8, pool.map(speak, [*pitches] * 8), strict=True):
            assert sound == alone[name]


def test_several_recordings_make_one_voice(client: httpx2.Client) -> None:
    """Each can be heard as it was given, and as its copy."""
    second = voice_file(100, 2)
    files = [("file", ("a.wav", VOICE)), ("file", ("b b.wav", second))]
    voice = client.post("/voices", files=files, data={"name": "Several"}).json()
    assert [sample["filename"] for sample in voice["samples"]] == ["a.wav", "b b.wav"]
    given = client.get(f"/voices/{voice['id']}/sample", params={"index": 1})
    assert (given.content, given.headers["content-type"]) == (second, "audio/wav")
    assert given.headers["x-content-type-options"] == "nosniff"
    copy = client.get(f"/voices/{voice['id']}/sample", params={"normalised": True})
    assert copy.headers["content-type"] == "audio/flac"
    assert decode(copy.content, AudioFormat.flac)[1] == 24_000
    part = client.get(f"/voices/{voice['id']}/sample", headers={"range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"RIFF")
    assert error_of(client.get(f"/voices/{voice['id']}/sample", params={"index": 2}))[0] == 404
    assert error_of(client.get("/voices/alto/sample"))[0] == 404


def test_names_in_any_script(client: httpx2.Client) -> None:
    """They are found however they are written, and headers stay plain."""
    for name in ("Жанна", "声优", "אבגד", "Straßenbahn", "नमस्ते", "👩🏽 Ada"):
        voice = made(client, name)
        answer = client.post("/synthesize", json={"text": "Hi.", "voice": name.upper()})
        assert (answer.status_code, answer.headers["x-voice"]) == (200, voice["id"])
        assert client.get("/voices", params={"search": name}).json()["voices"][0]["name"] == name


def test_name_is_the_files_where_none_is_given(client: httpx2.Client) -> None:
    """Without its folder and ending."""
    assert upload(client, filename="../some/Uncle Bob.wav").json()["name"] == "Uncle Bob"


def test_name_that_is_taken_is_refused(client: httpx2.Client) -> None:
    """Also when both uploads come at the same moment."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: upload(client, name="Twin"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert {error_of(answer)[1:] for answer in answers if answer.status_code == 409} == {("name_taken", "name")}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": "x" * 129}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "\u200b\u2028"}, "name"),
        ({"name": "evil\u202egnp.exe"}, "name"),
        ({"name": "n1", "language": "not a tag"}, "language"),
        ({"name": "n2", "aliases": ",".join(f"a{n}" for n in range(33))}, "aliases"),
        ({"name": "n3", "exaggeration": "3"}, "exaggeration"),
        ({"name": "n4", "exaggeration": "nan"}, "exaggeration"),
        ({"name": "n5", "top_k": "1.5"}, "top_k"),
        ({"name": "n6", "default": "perhaps"}, "default"),
        ({"name": "n7", "description": "x" * 1001}, "description"),
    ],
)
def test_bad_field_is_named(client: httpx2.Client, fields: dict[str, Any], param: str) -> None:
    """And no voice is made."""
    before = client.get("/voices").json()["total"]
    assert error_of(upload(client, **fields)) == (422, "invalid_value", param)
    assert client.get("/voices").json()["total"] == before


def test_upload_without_a_recording_is_refused(client: httpx2.Client) -> None:
    """As a form without a file, as JSON, and as a broken form."""
    assert error_of(client.post("/voices", data={"name": "x"}))[0:1] == (422,)
    assert error_of(client.post("/voices", json={"name": "x"}))[0] in (415, 422)
    broken = client.post("/voices", content=b"--x\r\n", headers={"content-type": "multipart/form-data; boundary=x"})
    assert error_of(broken)[0] in (400, 422)


@pytest.mark.parametrize(
    ("contents", "filename", "status"),
    [(b"text", "v.wav", 422), (VOICE, "v.pt", 415), (b"\x80\x04pickle", "v.wav", 415), (VOICE[:300], "v.wav", 422)],
)
def test_unfit_file_is_refused(client: httpx2.Client, contents: bytes, filename: str, status: int) -> None:
    """With the reason, naming the field."""
    answer = upload(client, contents, filename, name="unfit")
    assert error_of(answer)[::2] == (status, "file")


@pytest.mark.parametrize("path", ["/voices", "/emotions/calm/voices"])
def test_misspelt_field_of_a_form_is_named(client: httpx2.Client, path: str) -> None:
    """It would be lost without a word otherwise."""
    count = client.get("/voices").json()["total"]
    refused = client.post(path, data={"name": "Misspelt", "alias": "m"}, files={"file": ("v.wav", VOICE)})
    assert error_of(refused) == (422, "unknown_field", "alias")
    assert client.get("/voices").json()["total"] == count


def test_oversize_upload_is_refused_in_both_forms(client: httpx2.Client) -> None:
    """By its length, or while it streams in; nothing is kept."""
    large = VOICE + bytes(4_000_000)
    assert error_of(upload(client, large, name="large"))[:2] == (413, "body_too_large")
    request = client.build_request("POST", "/voices", files={"file": ("v.wav", large)}, data={"name": "large"})
    body = request.read()
    headers = {"content-type": request.headers["content-type"]}
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    assert error_of(client.post("/voices", content=pieces, headers=headers))[:2] == (413, "body_too_large")
    just_above = VOICE + bytes(2_000_001 - len(VOICE))
    assert error_of(upload(client, just_above, name="large"))[1:] == ("body_too_large", "file")


@pytest.mark.parametrize(
    "path",
    ["/voices/..%2f..%2fetc", "/voices/%00", "/voices/A", "/voices/" + "a" * 65, "/voices/%e5%a3%b0", "/voices/a%0ab"],
)
def test_odd_ids_lead_nowhere(client: httpx2.Client, path: str) -> None:
    """Neither a file nor a crash."""
    for method in ("GET", "DELETE"):
        assert client.request(method, path).status_code in (404, 422)
    assert client.get(path + "/sample").status_code in (404, 422)


def test_change_shows_a_new_version(client: httpx2.Client) -> None:
    """An old ETag is refused, whoever holds it; without one the last writer wins."""
    voice = made(client, "Changing")
    path = f"/voices/{voice['id']}"
    tag = client.get(path).headers["etag"]
    changed = client.patch(path, json={"name": "Changed", "aliases": ["c"]}, headers={"if-match": tag})
    assert (changed.status_code, changed.json()["name"]) == (200, "Changed")
    assert changed.headers["etag"] != tag
    assert error_of(client.patch(path, json={"name": "Lost"}, headers={"if-match": tag}))[:2] == (
        412,
        "precondition_failed",
    )
    assert error_of(client.delete(path, headers={"if-match": tag}))[0] == 412
    assert error_of(client.patch(path, json={}, headers={"if-match": "nonsense"})) == (422, "invalid_value", "If-Match")
    assert error_of(client.patch(path, json={}, headers={"if-match": '"something-else"'}))[0] == 412
    refused = error_of(client.patch(path, json={"defaults": {"temperature": 99}}))
    assert refused == (422, "invalid_value", "defaults.temperature")
    assert client.patch(path, json={"description": "d"}).json()["aliases"] == ["c"]
    assert error_of(client.patch(path, json={"nmae": "x"}))[1:] == ("unknown_field", "nmae")
    assert error_of(client.patch("/voices/nobody", json={}))[0] == 404


def test_default_voice_is_the_operators_choice(client: httpx2.Client) -> None:
    """One of the library's or of the engine's; it is listed first, and removing it brings the engine's back."""
    chosen = made(client, "Chosen", default="true")
    assert client.post("/synthesize", json={"text": "Hi."}).headers["x-voice"] == chosen["id"]
    assert client.get("/v1/audio/voices").json()["voices"][0]["id"] == chosen["id"]
    assert client.patch("/voices/tenor", json={"default": True}).json()["default"]
    assert client.post("/synthesize", json={"text": "Hi."}).headers["x-voice"] == "tenor"
    client.patch(f"/voices/{chosen['id']}", json={"default": True})
    assert client.delete(f"/voices/{chosen['id']}").status_code == 204
    assert client.post("/synthesize", json={"text": "Hi."}).headers["x-voice"] == "alto"


def test_engines_own_voices_cannot_be_changed(client: httpx2.Client) -> None:
    """But for being the default."""
    for answer in (client.patch("/voices/alto", json={"name": "Mine"}), client.delete("/voices/alto")):
        assert error_of(answer)[:2] == (409, "voice_built_in")


def test_pages_hold_every_voice_once(client: httpx2.Client) -> None:
    """In the order of their names, searched and filtered."""
    for number in range(5):
        made(client, f"Page {number}", language="de" if number % 2 else "de-AT", description="paged")
    found, cursor = [], None
    while True:
        page = client.get("/voices", params={"limit": 2, "search": "PAGED", **({"cursor": cursor} if cursor else {})})
        found += [voice["name"] for voice in page.json()["voices"]]
        if (cursor := page.json()["next"]) is None:
            break
    assert found == [f"Page {number}" for number in range(5)]
    assert client.get("/voices", params={"search": "paged", "language": "de_at"}).json()["total"] == 3
    assert client.get("/voices", params={"search": "paged", "status": "failed"}).json()["total"] == 0
    for bad in ({"limit": 0}, {"limit": 1001}, {"cursor": "???"}, {"cursor": "ß"}, {"status": "odd"}):
        assert error_of(client.get("/voices", params=bad))[:2] == (422, "invalid_value")


def test_unfit_voice_says_why(client: httpx2.Client) -> None:
    """What the engine refuses is visible, and a request for it is answered with the reason."""
    noise = np.random.default_rng(0).standard_normal(3 * 24_000) * 0.1
    voice = upload(client, wav(noise.astype(np.float32)), name="Noise").json()
    wait_for(lambda: client.get(f"/voices/{voice['id']}").json()["status"] == "failed")
    assert "voiced" in client.get(f"/voices/{voice['id']}").json()["reason"]
    assert error_of(client.post("/synthesize", json={"text": "Hi.", "voice": "noise"})) == (409, "voice_unfit", "voice")


def test_emotion_speaks_with_its_voice_and_parameters(client: httpx2.Client) -> None:
    """Until the request says otherwise; every field comes back."""
    voice = made(client, "Actor")
    profile = {"name": "Actor, très gai", "character": "Actor", "exaggeration": 1.2, "voices": ["ACTOR"]}
    mood = client.post("/emotions", json=profile)
    assert mood.status_code == 201
    assert mood.headers["location"] == f"/emotions/{mood.json()['id']}"
    assert mood.json()["voices"] == [voice["id"]]
    told = client.post("/generate", json={"text": "Hi.", "emotion": "actor, TRÈS gai", "temperature": 0.3}).json()
    assert (told["voice"], told["emotion"]) == (voice["id"], mood.json()["id"])
    assert (told["parameters"]["exaggeration"], told["parameters"]["temperature"]) == (1.2, 0.3)
    assert told["ignored_parameters"] == ["temperature"]
    tested = client.post(f"/emotions/{mood.json()['id']}/test")
    assert (tested.status_code, tested.headers["x-voice"]) == (200, voice["id"])
    assert client.post(f"/emotions/{mood.json()['id']}/test", json={"text": "x", "format": "mp3"}).status_code == 200


def test_recording_can_be_given_to_an_emotion(client: httpx2.Client) -> None:
    """It becomes a voice of its own, the last of the profile."""
    mood = client.post("/emotions", json={"name": "Given", "voices": ["alto"]}).json()
    for number in (2, 3):
        added = client.post(f"/emotions/{mood['id']}/voices", files={"file": ("v.wav", VOICE)})
        assert (added.status_code, added.json()["name"]) == (201, f"Given {number}")
    voices = client.get(f"/emotions/{mood['id']}").json()["voices"]
    assert voices == ["alto", "given-2", "given-3"]
    missing = client.post("/emotions/nobody/voices", files={"file": ("v.wav", VOICE)})
    assert error_of(missing)[:2] == (404, "emotion_not_found")


def test_voice_of_an_emotion_is_not_lost_by_accident(client: httpx2.Client) -> None:
    """Removing it takes force, and then the emotion speaks with the default voice."""
    voice = made(client, "Needed")
    client.post("/emotions", json={"name": "Needs it", "voices": [voice["id"]]})
    assert error_of(client.delete(f"/voices/{voice['id']}"))[:2] == (409, "voice_in_use")
    assert client.delete(f"/voices/{voice['id']}", params={"force": True}).status_code == 204
    assert client.post("/synthesize", json={"text": "Hi.", "emotion": "needs it"}).headers["x-voice"] == "alto"
    assert client.get("/emotions/needs-it").json()["voices"] == []


def test_emotion_is_replaced_with_care(client: httpx2.Client) -> None:
    """The version read must be the newest; a voice that is not there is refused, as is a taken name."""
    mood = client.post("/emotions", json={"name": "Careful"})
    path, tag = mood.headers["location"], mood.headers["etag"]
    assert client.put(path, json={"name": "Careful", "min_p": 0.2}, headers={"if-match": tag}).json()["min_p"] == 0.2
    assert error_of(client.put(path, json={"name": "x"}, headers={"if-match": tag}))[0] == 412
    assert error_of(client.put(path, json={"name": "x", "voices": ["gone"]})) == (404, "voice_not_found", "voices")
    assert error_of(client.post("/emotions", json={"name": "CALM"})) == (409, "name_taken", "name")
    assert error_of(client.post("/emotions", json={"name": "x", "exaggeration": 2.1}))[2] == "exaggeration"
    assert client.delete(path).status_code == 204
    assert error_of(client.get(path))[:2] == (404, "emotion_not_found")
    assert error_of(client.post("/synthesize", json={"text": "x", "emotion": "careful"}))[2] == "emotion"


def test_generated_file_is_whole_and_served_in_parts(client: httpx2.Client, tmp_path: Path) -> None:
    """Its length is in its header, its figures are those of the sound."""
    told = client.post("/generate", json={"text": "A file of speech.", "speed": 2, "seed": 7}).json()
    assert (told["seed"], told["ignored_parameters"]) == (7, ["seed"])
    file = client.get(told["audio_url"])
    assert (len(file.content), file.headers["content-type"]) == (told["size"], "audio/wav")
    (tmp_path / "a.wav").write_bytes(file.content)
    found = soundfile.info(tmp_path / "a.wav")
    assert found.samplerate == told["sample_rate"]
    assert found.duration == pytest.approx(told["duration_s"], abs=0.001)
    part = client.get(told["audio_url"], headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, file.content[4:8])
    assert client.get(told["audio_url"], headers={"range": "bytes=99999999-"}).status_code == 416


@pytest.mark.parametrize("name", ["..%2flibrary.db", "library.db", "a.wav", "0" * 32 + ".exe", "%00", "." * 36])
def test_odd_file_names_lead_nowhere(client: httpx2.Client, name: str) -> None:
    """Only names that were given out are files."""
    assert client.get(f"/outputs/{name}").status_code == 404


def test_old_files_make_room_for_new_ones(client: httpx2.Client) -> None:
    """Together they stay within their share; the newest is there."""
    urls = [client.post("/generate", json={"text": "word " * 60}).json()["audio_url"] for _ in range(5)]
    assert client.get(urls[0]).status_code == 404
    assert client.get(urls[-1]).status_code == 200
    assert client.post("/generate", json={"text": "..."}).status_code == 422


def test_changes_are_told_as_they_happen(client: httpx2.Client) -> None:
    """From any point on, without a gap."""
    events: list[dict[str, Any]] = []
    with client.stream("GET", "/voices/events") as stream:
        lines = stream.iter_lines()
        since = int(next(lines).rpartition(" ")[2])
        voice = made(client, "Told")
        for line in lines:
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: ")))
            if events and events[-1]["kind"] == "voice.ready":
                break
    assert [(event["kind"], event["id"]) for event in events] == [
        ("voice.created", voice["id"]),
        ("voice.ready", voice["id"]),
    ]
    assert [event["revision"] for event in events] == [since + 1, since + 2]
    with client.stream("GET", "/voices/events", headers={"last-event-id": str(since)}) as again:
        told = [line for line, _ in zip(again.iter_lines(), range(6), strict=False)]
    assert f"id: {since + 1}" in told
    assert error_of(client.get("/voices/events", headers={"last-event-id": "x"}))[0] == 422
