"""The class for notebooks and scripts: upstream's signatures, its voices, and what it refuses."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from chatterbox.tts import ChatterboxTTS as Upstream

from fleet.errors import InvalidValue, NothingToSpeak
from fleet.startup_errors import InvalidSettings, ModelMissing
from tests.workers.engine.chatterbox.listening import wait_idle
from workers.engine.chatterbox.options import EngineOptions, SpeechOptions
from workers.engine.chatterbox.tts import ChatterboxTTS, Parameters

TOKENS = EngineOptions(precision="fp32", max_rows=8, positions=512)
SPEECH = SpeechOptions(max_tokens=20, n_steps=2, max_jobs=3, prompt_s=0.4, watermark=False)


@pytest.fixture(scope="module")
def shared_tts(tiny_checkpoint: Path) -> Iterator[ChatterboxTTS]:
    with ChatterboxTTS.from_local(tiny_checkpoint, "cpu", tokens=TOKENS, speech=SPEECH) as opened:
        yield opened


@pytest.fixture
def tts(shared_tts: ChatterboxTTS) -> Iterator[ChatterboxTTS]:
    """In the model's own voice, and idle before and after."""
    fresh = ChatterboxTTS(shared_tts.engine)
    yield fresh
    wait_idle(fresh.engine)


def write(path: Path, pitch: float) -> Path:
    times = np.arange(48_000) / 24_000
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.2 * np.sin(2 * np.pi * times))) / 24_000
    soundfile.write(path, 0.1 * sum(np.sin(n * phase) / n for n in range(1, 12)), 24_000)
    return path


@pytest.fixture(scope="module")
def low(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("voices") / "low.wav", 110)


@pytest.fixture(scope="module")
def high(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("voices") / "high.wav", 230)


@pytest.mark.parametrize("name", ["from_local", "from_pretrained", "prepare_conditionals", "generate"])
def test_takes_what_upstream_takes(name: str) -> None:
    """Parameters of the same names in the same order with the same defaults; what is added is optional.

    Only the exaggeration of `generate` is by default the prepared voice's, which upstream sets back to 0.5.
    """
    ours, theirs = (
        list(inspect.signature(getattr(who, name)).parameters.values()) for who in (ChatterboxTTS, Upstream)
    )
    for mine, upstreams in zip(ours, theirs, strict=False):
        assert (mine.name, mine.kind) == (upstreams.name, upstreams.kind)
        if mine.name not in {"device", "exaggeration"}:
            assert mine.default == upstreams.default
    assert len(ours) >= len(theirs)
    for added in ours[len(theirs) :]:
        assert added.kind is inspect.Parameter.VAR_KEYWORD or added.default is not inspect.Parameter.empty


def test_every_way_to_generate_takes_the_same() -> None:
    assert set(inspect.signature(ChatterboxTTS.generate).parameters) == {"self", "text", *Parameters.__annotations__}
    assert ChatterboxTTS.sr == 24_000


def test_sound_is_a_tensor_as_upstreams(tts: ChatterboxTTS) -> None:
    sound = tts.generate("Hello there.", 1.3, 0.1, 0.9, None, 0.6, 0.4, 0.7, seed=3)
    assert sound.dtype == torch.float32
    assert sound.shape == (1, sound.shape[1])
    assert sound.shape[1] % 960 == 0
    asked: Any = {"repetition_penalty": 1.3, "min_p": 0.1, "top_p": 0.9, "exaggeration": 0.6}
    asked |= {"cfg_weight": 0.4, "temperature": 0.7, "seed": 3}
    assert torch.equal(tts.generate("Hello there.", **asked), sound)
    assert torch.equal(tts.generate_many([{"text": "Hello there."} | asked])[0], sound)
    streamed = torch.cat(list(tts.generate_stream("Hello there.", **asked)), dim=1)
    assert streamed.shape == sound.shape
    assert not torch.equal(tts.generate("Hello there.", **(asked | {"seed": 4})), sound)


def test_temperature_zero_is_greedy(tts: ChatterboxTTS) -> None:
    """The seed moves only the vocoder's noise, so the length is the same."""
    lengths = {tts.generate("Hello there.", temperature=0, seed=seed).shape[1] for seed in range(4)}
    assert len(lengths) == 1


def test_several_texts_are_one_batch(tts: ChatterboxTTS) -> None:
    """More of them than the engine holds at once; in their order, each as alone."""
    requests: list[dict[str, Any]] = [{"text": f"This is number {n}.", "seed": n} for n in range(5)]
    assert len(requests) > tts.engine.max_jobs
    steps = tts.engine.figures().steps
    together = tts.generate_many(requests)
    shared = tts.engine.figures().steps - steps
    alone = [tts.generate(**request) for request in requests]
    assert shared < tts.engine.figures().steps - steps - shared
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)
    assert tts.generate_many([]) == []


def test_error_in_one_of_several_leaves_nothing_behind(tts: ChatterboxTTS) -> None:
    with pytest.raises(InvalidValue, match="cfg_weight"):
        tts.generate_many(["One.", {"text": "Two.", "cfg_weight": -1}])
    with pytest.raises(NothingToSpeak):
        tts.generate_many(["One.", "Two.", "..."])
    wait_idle(tts.engine)


def test_leaving_a_stream_cancels_it(tts: ChatterboxTTS) -> None:
    pieces = tts.generate_stream("One sentence. Another one. And one more, so that there is something to leave.")
    assert next(pieces).shape[0] == 1
    pieces.close()
    wait_idle(tts.engine)


def test_prepared_voice_speaks_from_then_on(tts: ChatterboxTTS, low: Path, high: Path) -> None:
    """Computed once for the same recording, whatever the exaggeration, which it sets for what follows."""
    own = tts.generate("Hello there.", seed=1)
    tts.prepare_conditionals(str(low), exaggeration=0.9)
    computed = tts.engine.figures().conditionals_computed
    loud = tts.generate("Hello there.", seed=1)
    assert not torch.equal(loud, own)
    assert torch.equal(tts.generate("Hello there.", seed=1, exaggeration=0.9), loud)
    assert not torch.equal(tts.generate("Hello there.", seed=1, exaggeration=0.2), loud)
    assert torch.equal(tts.generate("Hello there.", seed=1, audio_prompt_path=low, exaggeration=0.9), loud)
    assert tts.engine.figures().conditionals_computed == computed
    other = tts.generate("Hello there.", seed=1, audio_prompt_path=high)
    assert tts.engine.figures().conditionals_computed == computed + 1
    assert torch.equal(tts.generate("Hello there.", seed=1), other)
    once = tts.generate("Hello there.", seed=1, conditionals=tts.clone_voice([low]), exaggeration=0.9)
    assert torch.equal(once, loud)
    assert torch.equal(tts.generate("Hello there.", seed=1), other)
    both = tts.clone_voice([low, high])
    assert both.digest not in {tts.clone_voice(low).digest, tts.clone_voice(high).digest}


def test_threads_with_voices_of_their_own(tts: ChatterboxTTS, low: Path, high: Path) -> None:
    """Each hears the recording it gave, though they share the class and its prepared voice."""
    recordings = {"low": low, "high": high}
    expected = {name: tts.generate("Hello there.", seed=1, audio_prompt_path=path) for name, path in recordings.items()}
    assert not torch.equal(*expected.values())
    heard: dict[str, list[torch.Tensor]] = {name: [] for name in recordings}

    def speak(name: str) -> None:
        for _ in range(4):
            heard[name].append(tts.generate("Hello there.", seed=1, audio_prompt_path=recordings[name]))

    threads = [threading.Thread(target=speak, args=(name,)) for name in recordings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, sounds in heard.items():
        assert len(sounds) == 4
        for sound in sounds:
            torch.testing.assert_close(sound, expected[name], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"exaggeration": 2.1}, "exaggeration"),
        ({"cfg_weight": "much"}, "cfg_weight"),
        ({"temperature": float("nan")}, "temperature"),
        ({"min_p": -0.1}, "min_p"),
        ({"top_p": True}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"quality": "best"}, "quality"),
        ({"conditionals": "low"}, "conditionals"),
        ({"audio_prompt_path": "/nowhere/voice.wav"}, "audio_prompt_path"),
        ({"loudness": 3}, "loudness"),
        ({"text": "half of \ud83d a pair"}, "text"),
        ({"text": 7}, "text"),
        ({"text": None}, "text"),
    ],
)
def test_bad_values_are_named(tts: ChatterboxTTS, parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        list(tts.generate_stream(**({"text": "Hello there."} | parameters)))
    assert raised.value.param == named
    with pytest.raises(InvalidValue) as raised:
        tts.generate_many(["Hello.", {"text": "Hello there."} | parameters])
    assert raised.value.param == named


def test_a_refused_request_changes_no_voice(tts: ChatterboxTTS, low: Path) -> None:
    """Neither an unfit parameter beside a fit recording, nor the other way round."""
    own = tts.generate("Hello there.", seed=1)
    with pytest.raises(InvalidValue):
        tts.generate("Hello there.", audio_prompt_path=low, temperature=9)
    with pytest.raises(InvalidValue):
        tts.generate("Hello there.", audio_prompt_path=low, conditionals=tts.conds)
    with pytest.raises(InvalidValue):
        tts.prepare_conditionals(low, exaggeration=3)
    with pytest.raises(InvalidValue, match="nowhere"):
        tts.generate("Hello there.", audio_prompt_path="/nowhere", exaggeration=1.5)
    assert torch.equal(tts.generate("Hello there.", seed=1), own)


@pytest.mark.parametrize("content", [b"", b"These are words, no sound.", b"RIFF\x24\x00\x00\x00WAVEfmt "])
@pytest.mark.filterwarnings("ignore:PySoundFile failed", "ignore:librosa.core.audio.__audioread_load")
def test_file_that_is_no_recording(tts: ChatterboxTTS, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "words.wav"
    path.write_bytes(content)
    with pytest.raises(InvalidValue, match=r"words\.wav cannot be read as sound: .") as raised:
        tts.clone_voice(path)
    assert raised.value.param == "audio_prompt_path"


@pytest.mark.parametrize("device", ["cuda:1", "mps", "gpu", "cpu:3", 7.5, None, torch.device("meta")])
def test_devices_that_there_are_not(tiny_checkpoint: Path, device: Any) -> None:
    with pytest.raises(InvalidValue) as raised:
        ChatterboxTTS.from_local(tiny_checkpoint, device)
    assert raised.value.param == "device"


def test_device_may_be_torchs(tiny_checkpoint: Path) -> None:
    tokens = EngineOptions(device="cuda", precision="fp32", max_rows=8, positions=512)
    with ChatterboxTTS.from_local(str(tiny_checkpoint), torch.device("cpu"), tokens=tokens, speech=SPEECH) as tts:
        assert tts.engine._tokens.device.type == "cpu"
        assert tts.device == tts.engine.capabilities.device


def test_speech_that_no_slot_can_hold(tiny_checkpoint: Path) -> None:
    """A text must fit in beside the longest speech: told when the engine is opened, with how much there can be."""
    with pytest.raises(InvalidSettings, match=r"max_tokens can be \d+ at most") as raised:
        ChatterboxTTS.from_local(tiny_checkpoint, "cpu", tokens=TOKENS, speech=SpeechOptions(max_tokens=500))
    assert raised.value.param == "max_tokens"


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="nothing"):
        ChatterboxTTS.from_local(tmp_path / "nothing", "cpu")


def test_numbers_may_be_numpys(tts: ChatterboxTTS) -> None:
    """A seed from `np.random` is a seed, in every segment of a text, and the engine outlives it."""
    text = "One sentence that is there. " * 15
    numbers: Any = {"seed": np.int64(2**62), "top_k": np.int32(50), "temperature": np.float32(0.5)}
    heard = tts.generate(text, **numbers)
    assert torch.equal(tts.generate(text, seed=2**62, top_k=50, temperature=0.5), heard)
    assert tts.engine.status().ready


@pytest.mark.parametrize("requests", ["Hello.", {"text": "Hello."}])
def test_one_request_is_no_list(tts: ChatterboxTTS, requests: Any) -> None:
    with pytest.raises(InvalidValue) as raised:
        tts.generate_many(requests)
    assert raised.value.param == "requests"


def test_what_is_no_voice_does_not_speak_as_another(tts: ChatterboxTTS) -> None:
    tts.conds = "low"  # type: ignore[assignment]  # as upstream's users may
    with pytest.raises(InvalidValue) as raised:
        tts.generate("Hello there.")
    assert raised.value.param == "conditionals"
