"""Recordings made into conditionals, held against upstream's own; how they are kept."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import librosa
import numpy as np
import pytest
import soundfile
import torch
from chatterbox.models.voice_encoder import VoiceEncoder
from chatterbox.tts import ChatterboxTTS
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs
from torch import Tensor

from fleet.errors import InvalidValue
from fleet.startup_errors import ModelInvalid, ModelMissing
from tests.running import ROOT
from workers.engine.base import Recording, Samples
from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.conditionals import (
    DeviceVoices,
    RecentlyUsed,
    ReferencePrompt,
    VoiceConditionals,
)
from workers.engine.chatterbox.conditionals_store import ConditionalsFiles, ConditionalsStore
from workers.engine.chatterbox.config import T3Config
from workers.engine.chatterbox.prompt import SpeakerPrompt
from workers.engine.chatterbox.reference import ReferenceEncoder, model_revision
from workers.engine.chatterbox.t3 import read_config
from workers.engine.chatterbox.weights import TensorFile, read_conditionals

pytestmark = pytest.mark.usefixtures("one_thread")


def speech(seconds: float, rate: int, *, hz: float = 120.0, seed: int = 0) -> Recording:
    """A gliding harmonic tone that swells three times a second, with noise; never twice the same in 40 ms."""
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(hz * (1 + 0.3 * np.sin(2 * np.pi * 0.7 * t))) / rate
    wave = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return Recording((0.15 * (wave + 0.1 * noise)).astype(np.float32), rate)


def louder_from(seconds: float, recording: Recording) -> Recording:
    """Quieter by 40 dB before: the tokenizer's spectrum reaches 80 dB below the loudest that it is given."""
    samples = recording.samples.copy()
    samples[: round(seconds * recording.sample_rate)] *= 0.01
    return Recording(samples, recording.sample_rate)


class Reference(NamedTuple):
    """What upstream makes of one recording."""

    speaker: Tensor
    t3_tokens: Tensor
    gen: dict[str, Any]


class Oracle:
    """`ChatterboxTTS` on the tiny checkpoint's weights, fed with files."""

    def __init__(self, script: ModuleType, checkpoint: Path, directory: Path) -> None:
        s3gen, self.voice_encoder = script.upstream_s3gen("tiny"), VoiceEncoder()
        s3gen.load_state_dict(load_file(checkpoint / ENGLISH.s3gen))
        self.voice_encoder.load_state_dict(load_file(checkpoint / ENGLISH.voice_encoder))
        t3 = script.upstream_t3("tiny").eval()
        self._tts = ChatterboxTTS(t3, s3gen.eval(), self.voice_encoder.eval(), tokenizer=None, device="cpu")
        self._wav = directory / "recording.wav"

    def prepare(self, recording: Recording) -> Reference:
        soundfile.write(self._wav, recording.samples, recording.sample_rate, "FLOAT")
        self._tts.prepare_conditionals(self._wav)
        t3 = self._tts.conds.t3
        return Reference(t3.speaker_emb, t3.cond_prompt_speech_tokens, self._tts.conds.gen)


@pytest.fixture(scope="module")
def oracle(make_checkpoint: ModuleType, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(make_checkpoint, tiny_checkpoint, tmp_path_factory.mktemp("oracle"))


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path) -> T3Config:
    return read_config(TensorFile(tiny_checkpoint / ENGLISH.t3))


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path, config: T3Config) -> ReferenceEncoder:
    return ReferenceEncoder(tiny_checkpoint, config)


def tensors(voice: VoiceConditionals) -> tuple[Tensor, ...]:
    return voice.t3.speaker, torch.tensor(voice.t3.tokens), voice.gen.tokens, voice.gen.mel, voice.gen.embedding


def equal(one: VoiceConditionals, other: VoiceConditionals) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


CONFIG = T3Config(2, 128, 2, 256, 704, 8194, 2050, 4100, prompt_queries=32, speaker_dim=256)


def random_voice(tokens: int = 250, seed: int = 0) -> VoiceConditionals:
    numbers = torch.Generator().manual_seed(seed)
    return VoiceConditionals.of(
        SpeakerPrompt.checked(
            torch.randn(256, generator=numbers), torch.randint(6561, (min(tokens, 150),), generator=numbers), CONFIG
        ),
        ReferencePrompt.checked(
            torch.randint(6561, (tokens,), generator=numbers),
            torch.randn(2 * tokens, 80, generator=numbers),
            torch.randn(192, generator=numbers),
        ),
    )


@pytest.mark.parametrize(
    ("recording", "frames"),
    [
        (speech(2.56, 16_000), 128),
        (speech(3.0, 24_000), 150),
        (speech(2.51, 44_100), 125),  # upstream's mel has an odd number of frames
        (speech(2.987, 48_000), 149),
        (speech(1.0, 8_000), 50),
        (louder_from(6.0, speech(11.0, 22_050)), 500),  # cut at 10 s, and at 6 s for T3
    ],
    ids=lambda value: f"{value.sample_rate} Hz" if isinstance(value, Recording) else None,
)
def test_one_recording_gives_what_upstream_computes(
    encoder: ReferenceEncoder, oracle: Oracle, recording: Recording, frames: int
) -> None:
    """Bit for bit, at any sample rate; only the last of an odd number of mel frames, which no token is for, is left."""
    voice, expected = encoder.encode([recording]), oracle.prepare(recording)
    assert torch.equal(voice.t3.speaker, expected.speaker[0])
    assert voice.t3.tokens == tuple(expected.t3_tokens[0].tolist())
    assert torch.equal(voice.gen.tokens, expected.gen["prompt_token"][0])
    assert expected.gen["prompt_feat"].shape == (1, frames, 80)
    assert torch.equal(voice.gen.mel, expected.gen["prompt_feat"][0, : frames // 2 * 2])
    assert torch.equal(voice.gen.embedding, expected.gen["embedding"][0])
    assert len(set(voice.gen.tokens.tolist())) > 10  # so that equal tokens say something


def test_conditionals_are_plain_tensors(encoder: ReferenceEncoder) -> None:
    """Shapes and types are as promised, and nothing of inference mode is left on them."""
    voice = encoder.encode([speech(2.51, 24_000)])
    assert voice.t3.speaker.shape == (256,)
    assert len(voice.t3.tokens) == 63  # each begun 40 ms
    found = [(tensor.dtype, tuple(tensor.shape)) for tensor in (voice.gen.tokens, voice.gen.mel, voice.gen.embedding)]
    assert found == [(torch.int64, (62,)), (torch.float32, (124, 80)), (torch.float32, (192,))]
    assert not any(tensor.is_inference() for tensor in tensors(voice))
    assert voice.nbytes == 256 * 4 + 63 * 8 + 62 * 8 + 124 * 80 * 4 + 192 * 4


def test_upstreams_warnings_are_not_ours(
    encoder: ReferenceEncoder, oracle: Oracle, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A recording that is no multiple of 40 ms long, as nearly none is, does not fill the log."""
    recording = speech(12.01, 24_000), speech(2.51, 24_000)
    with caplog.at_level(logging.WARNING):
        for one in recording:
            encoder.encode([one])
        assert not caplog.records
        oracle.prepare(recording[1])
        assert "Reference mel length" in caplog.text
    assert "WARNING" not in capfd.readouterr().out


def test_several_recordings(encoder: ReferenceEncoder, oracle: Oracle) -> None:
    """The speaker embedding is the mean over all, and everything else is of the longest in seconds."""
    recordings = [speech(1.2, 48_000, hz=200, seed=1), speech(2.5, 16_000), speech(0.9, 96_000, hz=90, seed=2)]
    voice, alone = encoder.encode(recordings), [oracle.prepare(recording) for recording in recordings]
    assert voice.t3.tokens == tuple(alone[1].t3_tokens[0].tolist())
    assert torch.equal(voice.gen.tokens, alone[1].gen["prompt_token"][0])
    assert torch.equal(voice.gen.mel, alone[1].gen["prompt_feat"][0, : 2 * len(voice.gen.tokens)])
    assert torch.equal(voice.gen.embedding, alone[1].gen["embedding"][0])

    at_24k = [librosa.resample(one.samples, orig_sr=one.sample_rate, target_sr=24_000) for one in recordings]
    at_16k = [librosa.resample(samples, orig_sr=24_000, target_sr=16_000) for samples in at_24k]
    together = torch.from_numpy(oracle.voice_encoder.embeds_from_wavs(at_16k, sample_rate=16_000))
    assert torch.equal(voice.t3.speaker, together.mean(dim=0))
    assert torch.allclose(voice.t3.speaker, torch.cat([one.speaker for one in alone]).mean(0), atol=1e-6)
    assert not torch.allclose(voice.t3.speaker, alone[1].speaker[0], atol=1e-4)


BAD_RECORDINGS: dict[str, tuple[list[Recording], str]] = {
    "none": ([], "at least one recording"),
    "stereo": ([Recording(np.zeros((2, 24_000), np.float32), 24_000)], r"one row .* not float32 \[2, 24000\]"),
    "integers": ([Recording(np.ones(24_000, np.int16), 24_000)], "not int16"),
    "NaN": ([Recording(np.full(48_000, np.nan, np.float32), 24_000)], "not finite"),
    "infinity": ([speech(2, 24_000), Recording(np.full(48_000, np.inf, np.float32), 24_000)], "recording 2 .* finite"),
    "low rate": ([Recording(np.ones(24_000, np.float32), 7_999)], "7999 samples a second"),
    "high rate": ([Recording(np.ones(400_000, np.float32), 192_001)], "192001 samples a second"),
    "no rate": ([Recording(np.ones(24_000, np.float32), 0)], "0 samples a second"),
    "too long": ([speech(10, 8_000)] * 31, "310.0 s long together; they may be 300 s"),
    "too short": ([speech(0.99, 24_000), speech(0.5, 24_000)], "0.99 s long; it must be at least 1.0 s"),
    "empty": ([speech(2, 24_000), Recording(np.zeros(0, np.float32), 24_000)], "recording 2 has 0 samples"),
    "a part too short": ([speech(2, 24_000), speech(0.09, 24_000)], "recording 2 has 2160 samples"),
    "silence": ([Recording(np.zeros(48_000, np.float32), 24_000)], "the recording is silent"),
    "nearly silence": ([Recording(np.full(48_000, 9e-4, np.float32), 24_000)], "the recording is silent"),
    "one of two silent": (
        [speech(2, 24_000), Recording(np.zeros(48_000, np.float32), 24_000)],
        "recording 2 is silent",
    ),
    "not scaled": ([Recording(speech(2, 24_000).samples * 32_768, 24_000)], "full scale is 1"),
}


@pytest.mark.parametrize("name", BAD_RECORDINGS)
def test_bad_recordings(encoder: ReferenceEncoder, name: str) -> None:
    """What is no recording of a voice is refused with its reason, by the encoder and by the store."""
    recordings, reason = BAD_RECORDINGS[name]
    for refuse in (encoder.encode, ConditionalsStore(encoder).get):
        with pytest.raises(InvalidValue, match=reason) as caught:
            refuse(recordings)
        assert caught.value.param == "file"


def test_the_least_and_the_most_that_is_taken(encoder: ReferenceEncoder) -> None:
    """One second; 300 s in all, of which the parts may be of 0.1 s; the lowest and the highest rate."""
    assert len(encoder.encode([speech(1.0, 192_000), speech(0.1, 8_000)]).gen.tokens) == 25
    assert len(encoder.encode([speech(100.0, 8_000)] * 3).gen.tokens) == 250


@pytest.fixture(scope="module")
def measuring(tiny_checkpoint: Path) -> dict[str, Tensor]:
    """The part of S3Gen's weights that measures a recording."""
    whole: dict[str, Tensor] = load_file(tiny_checkpoint / ENGLISH.s3gen)
    return {name: tensor for name, tensor in whole.items() if name.startswith(("tokenizer.", "speaker_encoder."))}


def altered(checkpoint: Path, directory: Path, weights: dict[str, Tensor]) -> Path:
    """The tiny checkpoint's voice encoder beside another S3Gen."""
    (directory / ENGLISH.voice_encoder).symlink_to(checkpoint / ENGLISH.voice_encoder)
    save_file(weights, directory / ENGLISH.s3gen)
    return directory


def test_buffers_that_are_computed_may_be_missing(
    encoder: ReferenceEncoder, config: T3Config, tiny_checkpoint: Path, tmp_path: Path, measuring: dict[str, Tensor]
) -> None:
    """Without the tokenizer's filters and window, and without S3Gen's other parts, the result is the same."""
    computed = ("tokenizer._mel_filters", "tokenizer.window")
    weights = {name: tensor for name, tensor in measuring.items() if name not in computed}
    assert len(weights) == len(measuring) - 2
    recording = speech(2.0, 24_000)
    other = ReferenceEncoder(altered(tiny_checkpoint, tmp_path, weights), config)
    assert equal(other.encode([recording]), encoder.encode([recording]))


Alteration = Callable[[dict[str, Tensor]], dict[str, Tensor]]

_BLOCK, _DENSE = "tokenizer.encoder.blocks.", "speaker_encoder.xvector.dense.linear.weight"


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda weights: {n: t for n, t in weights.items() if n != _DENSE}, f"lacks the tensor {_DENSE}"),
        (lambda weights: weights | {_DENSE: weights[_DENSE][1:].clone()}, f"{_DENSE} has the shape"),
        (lambda weights: {n.replace(f"{_BLOCK}0.", f"{_BLOCK}1."): t for n, t in weights.items()}, f"{_BLOCK}0."),
        (lambda weights: {n: t for n, t in weights.items() if _BLOCK not in n}, "has 0 blocks"),
        (lambda weights: weights | {f"{_BLOCK}{n}.x": torch.zeros(1) for n in range(1, 7)}, "has 7 blocks"),
    ],
    ids=["missing", "shape", "gap", "no blocks", "too many blocks"],
)
def test_a_damaged_model(
    tiny_checkpoint: Path, tmp_path: Path, measuring: dict[str, Tensor], alter: Alteration, reason: str
) -> None:
    """A checkpoint that cannot measure a voice is refused by the name of the file and of the tensor."""
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in measuring.items()}
    broken = ReferenceEncoder(altered(tiny_checkpoint, tmp_path, alter(halves)), CONFIG)
    with pytest.raises(ModelInvalid, match=reason) as caught:
        broken.load()
    assert str(tmp_path / ENGLISH.s3gen) in caught.value.message


def test_revision(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """It is the same for equal files, another for one other value, and a missing file is named."""
    weights = load_file(tiny_checkpoint / ENGLISH.voice_encoder)
    for name, content in {"one": weights, "same": weights, "tuned": {n: t * 1.001 for n, t in weights.items()}}.items():
        (tmp_path / name).mkdir()
        save_file(content, tmp_path / name / ENGLISH.voice_encoder)
        (tmp_path / name / ENGLISH.s3gen).symlink_to(tiny_checkpoint / ENGLISH.s3gen)
    one, same, tuned = (model_revision(tmp_path / name) for name in ("one", "same", "tuned"))
    assert one == same != tuned
    assert len(one) == 16
    (tmp_path / "one" / ENGLISH.s3gen).unlink()
    with pytest.raises(ModelMissing, match=ENGLISH.s3gen):
        model_revision(tmp_path / "one")


def stored(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_asked_twice_computed_once(encoder: ReferenceEncoder, tmp_path: Path) -> None:
    """A second call gets what the first computed, from memory, and from disk in another store on the directory."""
    store, recordings = ConditionalsStore(encoder, tmp_path), [speech(1.5, 24_000)]
    first = store.get(recordings)
    assert (store.computed, store.hits) == (1, 0)
    assert store.get([Recording(recordings[0].samples.copy(), 24_000)]) is first
    assert (store.computed, store.hits) == (1, 1)

    other = ConditionalsStore(encoder, tmp_path)
    found = other.get(recordings)
    assert (other.computed, other.hits) == (0, 1)
    assert equal(found, first)
    assert (found.digest, found.t3.digest) == (first.digest, first.t3.digest)
    assert other.get(recordings) is found
    assert [path.suffix for path in stored(tmp_path)] == [".safetensors"]


def test_other_recordings_are_another_voice(encoder: ReferenceEncoder, tmp_path: Path) -> None:
    """One sample, the rate, the order, or where one ends and the next begins: each makes another key."""
    one, two = speech(1.5, 24_000), speech(1.0, 24_000, seed=1)
    changed = one.samples.copy()
    changed[100] += 1e-4
    joined = np.concatenate([one.samples, two.samples])
    asked = [
        [one],
        [Recording(changed, 24_000)],
        [Recording(one.samples, 22_050)],
        [one, two],
        [two, one],
        [Recording(joined, 24_000)],
        [Recording(joined[:30_000], 24_000), Recording(joined[30_000:], 24_000)],
    ]
    store = ConditionalsStore(encoder, tmp_path)
    assert len({store.get(recordings).digest for recordings in asked}) >= len(asked) - 1  # a mean knows no order
    assert (store.computed, store.hits) == (len(asked), 0)
    assert len(stored(tmp_path)) == len(asked)


def test_memory_alone(encoder: ReferenceEncoder) -> None:
    """Without a directory what is remembered is found, and what had to make room is computed again."""
    one, two = [speech(1.5, 24_000)], [speech(1.5, 24_000, seed=1)]
    room = encoder.encode(one).nbytes
    store = ConditionalsStore(encoder, memory_bytes=room)
    kept = store.get(one)
    assert store.get(one) is kept
    store.get(two)
    assert store.nbytes <= room
    assert store.get(one) is not kept
    assert (store.computed, store.hits) == (3, 1)


def ask_together(store: ConditionalsStore, recordings: list[Recording], count: int) -> list[Future[VoiceConditionals]]:
    """Call from many threads, with the encoder held back until all wait for it."""
    started = threading.Barrier(count + 1)

    def ask() -> VoiceConditionals:
        started.wait()
        return store.get(recordings)

    with ThreadPoolExecutor(count) as pool, store._encoder._lock:
        asked = [pool.submit(ask) for _ in range(count)]
        started.wait()
        time.sleep(0.5)
    return asked  # all are done


def test_asked_by_many_computed_once(encoder: ReferenceEncoder, tmp_path: Path) -> None:
    """Threads that ask for the same at the same time all get the one result."""
    store = ConditionalsStore(encoder, tmp_path)
    results = [one.result() for one in ask_together(store, [speech(1.3, 24_000)], 6)]
    assert all(result is results[0] for result in results)
    assert (store.computed, store.hits) == (1, 5)


def test_an_error_reaches_all_who_wait(tiny_checkpoint: Path, config: T3Config, tmp_path: Path) -> None:
    """They get the one that computed's error, and the next call tries again."""
    for name in (ENGLISH.voice_encoder, ENGLISH.s3gen):
        (tmp_path / name).symlink_to(tiny_checkpoint / name)
    store = ConditionalsStore(ReferenceEncoder(tmp_path, config))
    assert store._encoder.revision
    (tmp_path / ENGLISH.voice_encoder).unlink()
    recordings = [speech(1.3, 24_000)]
    errors = [one.exception() for one in ask_together(store, recordings, 4)]
    assert isinstance(errors[0], ModelMissing)
    assert all(error is errors[0] for error in errors)
    assert (store.computed, store.hits) == (0, 0)
    (tmp_path / ENGLISH.voice_encoder).symlink_to(tiny_checkpoint / ENGLISH.voice_encoder)
    assert store.get(recordings).nbytes
    assert (store.computed, store.hits) == (1, 0)


def flipped(path: Path, place: int) -> None:
    contents = bytearray(path.read_bytes())
    contents[place] ^= 0x10
    path.write_bytes(contents)


def test_a_flipped_bit_is_found(encoder: ReferenceEncoder, tmp_path: Path) -> None:
    """The damaged file is set aside with a warning, and its place taken by what is computed again."""
    recordings = [speech(1.5, 24_000)]
    first = ConditionalsStore(encoder, tmp_path).get(recordings)
    (path,) = stored(tmp_path)
    whole = path.read_bytes()
    flipped(path, len(whole) - 10_000)
    damaged = path.read_bytes()

    store = ConditionalsStore(encoder, tmp_path)
    with capture_logs() as logs:
        assert equal(store.get(recordings), first)
    assert (store.computed, store.hits) == (1, 0)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("conditionals_quarantined", "warning")]
    aside = path.with_name(f"{path.name}.quarantined")
    assert stored(tmp_path) == [path, aside]
    assert aside.read_bytes() == damaged
    assert ConditionalsStore(encoder, tmp_path).get(recordings).digest == first.digest


def test_damage_anywhere(tmp_path: Path) -> None:
    """Whichever byte of a file is changed or is the last, what is read is what was written, or nothing."""
    files, voice, key = ConditionalsFiles(tmp_path, CONFIG), random_voice(tokens=10), "ab" * 32
    files.write(key, voice)
    path = files.path(key)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    with capture_logs():
        for place in [*range(header), *range(header, len(whole), 97)]:
            path.write_bytes(whole)
            flipped(path, place)
            found = files.read(key)
            refused += found is None
            assert found is None or found.digest == voice.digest, place
        assert refused > 0.95 * (header + (len(whole) - header) // 97)  # the rest is white space
        for size in range(0, len(whole), 97):
            path.write_bytes(whole[:size])
            assert files.read(key) is None, size


def test_a_file_under_another_name(tmp_path: Path) -> None:
    """A file that was moved is not taken for another voice, nor is one of another model's shapes."""
    files, key, other = ConditionalsFiles(tmp_path, CONFIG), "ab" * 32, "ab" + "cd" * 31
    files.write(key, random_voice())
    files.path(key).rename(files.path(other))
    with capture_logs() as logs:
        assert files.read(key) is None
        assert not logs
        assert files.read(other) is None
        assert "another key" in logs[0]["reason"]
        save_file({"speaker": torch.zeros(256)}, files.path(key), {"key": key, "content": "", "version": "1"})
        assert files.read(key) is None
    assert [path.suffix for path in stored(tmp_path)] == [".quarantined"] * 2


def test_a_directory_that_cannot_be_written(encoder: ReferenceEncoder, tmp_path: Path) -> None:
    """The result is given all the same, with a warning."""
    (tmp_path / "file").write_text("in the directory's place")
    store = ConditionalsStore(encoder, tmp_path / "file")
    recordings = [speech(1.5, 24_000)]
    with capture_logs() as logs:
        found = store.get(recordings)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("conditionals_not_stored", "warning")]
    assert store.get(recordings) is found
    assert (store.computed, store.hits) == (1, 1)
    assert stored(tmp_path) == [tmp_path / "file"]


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from structlog.testing import capture_logs
from workers.engine.chatterbox.conditionals_store import ConditionalsFiles
from workers.engine.chatterbox.config import RopeScaling, T3Config
source, target = (ConditionalsFiles(Path(path), CONFIG) for path in sys.argv[1:])
voices = {key: source.read(key) for key in ("ab" * 32, "cd" * 32)}
resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 2**10, 64 * 2**10))
with capture_logs() as logs:
    for key, voice in voices.items():
        target.write(key, voice)
print(json.dumps(logs))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """A file that cannot be written to its end leaves nothing behind, and a warning."""
    source, target = tmp_path / "source", tmp_path / "target"
    large, small = "ab" * 32, "cd" * 32
    ConditionalsFiles(source, CONFIG).write(large, random_voice(tokens=250))
    ConditionalsFiles(source, CONFIG).write(small, random_voice(tokens=20))
    program = FULL_DISK.replace("CONFIG", repr(CONFIG))
    command = [sys.executable, "-c", program, str(source), str(target)]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    (warning,) = json.loads(said)
    assert (warning["event"], warning["reason"]) == ("conditionals_not_stored", "File too large")
    assert [path.stem for path in stored(target)] == [small]


def test_from_upstreams_file(tiny_checkpoint: Path, config: T3Config) -> None:
    """The built-in voice's file holds what is read from it."""
    path = tiny_checkpoint / ENGLISH.conditionals
    voice, whole = VoiceConditionals.from_upstream(read_conditionals(path), config), torch.load(path, weights_only=True)
    assert torch.equal(voice.t3.speaker[None], whole["t3"]["speaker_emb"])
    assert torch.equal(torch.tensor([voice.t3.tokens]), whole["t3"]["cond_prompt_speech_tokens"])
    assert torch.equal(voice.gen.tokens[None], whole["gen"]["prompt_token"])
    assert torch.equal(voice.gen.mel[None], whole["gen"]["prompt_feat"])
    assert torch.equal(voice.gen.embedding[None], whole["gen"]["embedding"])
    assert len(voice.digest) == 64
    for name in ("prompt_token", "prompt_feat", "embedding"):
        changed = whole["gen"] | {name: whole["gen"][name].flip(1)}
        assert VoiceConditionals.from_upstream({"t3": whole["t3"], "gen": changed}, config).digest != voice.digest
    with pytest.raises(InvalidValue, match="not NoneType"):
        VoiceConditionals.from_upstream({"t3": whole["t3"], "gen": {}}, config)


TOKENS, MEL, EMBEDDING = torch.arange(5)[None], torch.zeros(1, 10, 80), torch.ones(1, 192)


def test_a_reference_is_copied() -> None:
    """Rows of any shape and precision become the promised ones, and no longer change with where they came from."""
    tokens, mel = TOKENS.int(), MEL.double()
    found = ReferencePrompt.checked(tokens, mel, EMBEDDING.half())
    tokens += 1
    mel += 1
    assert torch.equal(found.tokens, TOKENS[0])
    assert torch.equal(found.mel, MEL[0])
    assert torch.equal(found.embedding, EMBEDDING[0])
    assert torch.equal(ReferencePrompt.checked(TOKENS[0], MEL[0], EMBEDDING[0]).mel, MEL[0])


@pytest.mark.parametrize(
    ("tokens", "mel", "embedding", "param"),
    [
        (None, MEL, EMBEDDING, "reference_tokens"),
        (TOKENS.float(), MEL, EMBEDDING, "reference_tokens"),
        (TOKENS > 2, MEL, EMBEDDING, "reference_tokens"),
        (TOKENS[:, :0], MEL[:, :0], EMBEDDING, "reference_tokens"),
        (torch.tensor(3), MEL[:, :2], EMBEDDING, "reference_tokens"),
        (TOKENS.reshape(5, 1), MEL, EMBEDDING, "reference_tokens"),
        (torch.zeros(1, 251, dtype=torch.int64), torch.zeros(1, 502, 80), EMBEDDING, "reference_tokens"),
        (TOKENS - 1, MEL, EMBEDDING, "reference_tokens"),
        (TOKENS + 6557, MEL, EMBEDDING, "reference_tokens"),
        (TOKENS, [0.0], EMBEDDING, "reference_mel"),
        (TOKENS, MEL.long(), EMBEDDING, "reference_mel"),
        (TOKENS, MEL[:, :9], EMBEDDING, "reference_mel"),
        (TOKENS, torch.zeros(1, 11, 80), EMBEDDING, "reference_mel"),
        (TOKENS, MEL.mT, EMBEDDING, "reference_mel"),
        (TOKENS, torch.zeros(2, 10, 80), EMBEDDING, "reference_mel"),
        (TOKENS, MEL / 0, EMBEDDING, "reference_mel"),
        (TOKENS, MEL, EMBEDDING[:, 1:], "reference_embedding"),
        (TOKENS, MEL, EMBEDDING.mT, "reference_embedding"),
        (TOKENS, MEL, EMBEDDING.double() * 1e300, "reference_embedding"),
    ],
)
def test_bad_references(tokens: object, mel: object, embedding: object, param: str) -> None:
    """What S3Gen cannot take is refused by its part."""
    with pytest.raises(InvalidValue) as caught:
        ReferencePrompt.checked(tokens, mel, embedding)
    assert caught.value.param == param


def test_the_voices_used_last_stay_on_the_device() -> None:
    """Within the bytes allowed, the one unused for longest makes room; what is too large for it is not kept."""
    voices = {name: random_voice(tokens=10, seed=number) for number, name in enumerate("abc")}
    size = voices["a"].gen.nbytes
    device = DeviceVoices(torch.device("cpu"), limit_bytes=2 * size)

    def get(name: str) -> object:
        return device.get(voices[name].gen, voices[name].digest)

    first, second = get("a"), get("b")
    assert get("a") is first
    assert device.nbytes == 2 * size
    get("c")
    assert device.nbytes == 2 * size
    assert get("a") is first
    assert get("b") is not second
    large = random_voice(tokens=250)
    found = device.get(large.gen, large.digest)
    assert torch.equal(found.mel, large.gen.mel)
    assert device.nbytes == 2 * size
    assert get("a") is first
    device.clear()
    assert device.nbytes == 0
    assert get("a") is not first


def test_the_recently_used_are_counted_right() -> None:
    """Putting the same again replaces it."""
    held: RecentlyUsed[Samples] = RecentlyUsed(100)
    for size in (10, 20, 5):
        held.put("a", np.zeros(size, np.float32))
        held.put("b", np.zeros(5, np.float32))
        assert held.nbytes == 4 * size + 20
