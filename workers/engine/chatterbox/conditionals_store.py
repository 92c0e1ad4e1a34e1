"""Conditionals computed once: in memory, and on disk in files that are named for the recordings they come from."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import structlog
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fleet.errors import InvalidValue
from fleet.files import whole_file
from workers.engine.base import Conditionals, Recording
from workers.engine.chatterbox.conditionals import RecentlyUsed, ReferencePrompt, VoiceConditionals
from workers.engine.chatterbox.config import T3Config
from workers.engine.chatterbox.prompt import SpeakerPrompt
from workers.engine.chatterbox.reference import ReferenceEncoder, checked_recordings

log = structlog.get_logger()

_VERSION = "1"
"""Of what is computed and of how it is stored; another one makes all files unknown."""


class ConditionalsStore:
    """Recordings in, conditionals out, from any thread; what is asked for twice is computed once.

    `directory` may be shared with other processes; None keeps nothing on disk. `memory_bytes` bounds what is held in
    memory, 162 KiB a voice at most.
    """

    def __init__(
        self, encoder: ReferenceEncoder, directory: Path | None = None, *, memory_bytes: int = 256 * 2**20
    ) -> None:
        self._encoder = encoder
        self._files = None if directory is None else ConditionalsFiles(directory, encoder.config)
        self._lock = threading.Lock()
        self._memory: RecentlyUsed[VoiceConditionals] = RecentlyUsed(memory_bytes)
        self._pending: dict[str, Future[VoiceConditionals]] = {}
        self._computed = 0
        self._hits = 0

    @property
    def computed(self) -> int:
        return self._computed

    @property
    def hits(self) -> int:
        """Calls that got what was in memory, on disk, or being computed for another call."""
        return self._hits

    @property
    def nbytes(self) -> int:
        """What is held in memory."""
        return self._memory.nbytes

    def get(self, recordings: Sequence[Recording]) -> VoiceConditionals:
        """Blocks while they are computed, by this call or another.

        Raises what `ReferenceEncoder.encode` raises, to all who wait for it; the next call tries again.
        """
        recordings = checked_recordings(recordings)
        key = self._key(recordings)
        with self._lock:
            if (known := self._memory.get(key)) is not None:
                self._hits += 1
                return known
            if (pending := self._pending.get(key)) is None:
                mine = self._pending[key] = Future()
        if pending is not None:
            result = pending.result()
            with self._lock:
                self._hits += 1
            return result
        try:
            result = self._find(key, recordings)
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            mine.set_exception(error)
            raise
        with self._lock:
            self._memory.put(key, result)
            del self._pending[key]
        mine.set_result(result)
        return result

    @property
    def kind(self) -> str:
        """The same for all that measure a voice alike and keep it alike."""
        return f"chatterbox-{self._encoder.revision}-{self._encoder.config.longest_prompt}-{_VERSION}"

    def pack(self, conditionals: Conditionals) -> bytes:
        """As safetensors. Raises `InvalidValue` for another engine's."""
        if not isinstance(conditionals, VoiceConditionals):
            raise InvalidValue("these conditionals are another engine's")
        return _packed(conditionals, self.kind)

    def unpack(self, packed: bytes) -> VoiceConditionals:
        """What `pack` was given. Raises `InvalidValue` for anything else."""
        try:
            return _unpacked(packed, self._encoder.config, self.kind)
        except (ValueError, LookupError, TypeError, SafetensorError, InvalidValue) as error:
            raise InvalidValue(f"the conditionals are damaged: {error}") from error

    def _find(self, key: str, recordings: Sequence[Recording]) -> VoiceConditionals:
        if self._files is not None and (stored := self._files.read(key)) is not None:
            with self._lock:
                self._hits += 1
            return stored
        result = self._encoder.encode(recordings)
        with self._lock:
            self._computed += 1
        if self._files is not None:
            self._files.write(key, result)
        return result

    def _key(self, recordings: Sequence[Recording]) -> str:
        """Of all that the result depends on; the numbers of samples keep joins of recordings apart."""
        digest = hashlib.sha256(f"{_VERSION} {self._encoder.revision} {self._encoder.config.longest_prompt}".encode())
        for recording in recordings:
            digest.update(f"\n{recording.sample_rate} {len(recording.samples)}\n".encode())
            digest.update(recording.samples.data)
        return digest.hexdigest()


class ConditionalsFiles:
    """One safetensors file per key, `<directory>/<first two digits>/<key>.safetensors`, whole or not there.

    A file that is damaged is set aside as `*.quarantined`. Nothing here raises: without the disk all is computed.
    """

    def __init__(self, directory: Path, config: T3Config) -> None:
        self._directory = directory
        self._config = config

    def path(self, key: str) -> Path:
        return self._directory / key[:2] / f"{key}.safetensors"

    def read(self, key: str) -> VoiceConditionals | None:
        path = self.path(key)
        try:
            path.lstat()
        except OSError:
            return None
        try:
            return self._read(path, key)
        except (SafetensorError, OSError, InvalidValue, LookupError, ValueError) as error:
            reason = " ".join(str(error).split())
            log.warning("conditionals_quarantined", file=str(path), reason=reason)
        try:
            path.replace(path.with_name(f"{path.name}.quarantined"))
        except OSError as error:
            log.warning("quarantine_failed", file=str(path), reason=error.strerror)
        return None

    def _read(self, path: Path, key: str) -> VoiceConditionals:
        return _unpacked(path.read_bytes(), self._config, key)

    def write(self, key: str, found: VoiceConditionals) -> None:
        path = self.path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path, durable=True) as file:
                file.write(_packed(found, key))
        except OSError as error:
            log.warning("conditionals_not_stored", file=str(path), reason=error.strerror)


def _packed(found: VoiceConditionals, key: str) -> bytes:
    """One safetensors file, whose metadata names the key and the digest of what it holds."""
    tensors = {
        "speaker": found.t3.speaker,
        "prompt_tokens": torch.tensor(found.t3.tokens),
        "reference_tokens": found.gen.tokens,
        "reference_mel": found.gen.mel,
        "reference_embedding": found.gen.embedding,
    }
    return save(tensors, {"key": key, "content": found.digest, "version": _VERSION})


def _unpacked(packed: bytes, config: T3Config, key: str) -> VoiceConditionals:
    """Raises ValueError, LookupError, TypeError, SafetensorError or `InvalidValue` for what was not packed so."""
    tensors = load(packed)  # which checks the header's length and shape before anything else reads it
    metadata = json.loads(packed[8 : 8 + int.from_bytes(packed[:8], "little")])["__metadata__"]
    if (metadata["key"], metadata["version"]) != (key, _VERSION):
        raise ValueError("it is of another key")
    found = VoiceConditionals.of(
        SpeakerPrompt.checked(tensors["speaker"], tensors["prompt_tokens"], config),
        ReferencePrompt.checked(tensors["reference_tokens"], tensors["reference_mel"], tensors["reference_embedding"]),
    )
    if found.digest != metadata["content"]:
        raise ValueError("its contents are not what was written")
    return found
