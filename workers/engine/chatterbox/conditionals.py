"""What the model keeps of a voice: T3's part, S3Gen's part, and the voices used last on the device."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from fleet.errors import InvalidValue
from workers.engine.base import Conditionals
from workers.engine.chatterbox.config import T3Config
from workers.engine.chatterbox.prompt import SpeakerPrompt
from workers.engine.chatterbox.transfer import upload

VOCABULARY = 6561
"""Speech tokens that S3Gen knows; T3's special tokens are above them."""

LONGEST_REFERENCE = 250
"""Tokens, 25 a second: upstream cuts the recording at 10 s."""

_MELS = 80
_X_VECTOR = 192
_WHOLE = {torch.int64, torch.int32}


@dataclass(frozen=True, slots=True, eq=False)
class ReferencePrompt:
    """S3Gen's part of a voice, on the CPU.

    `tokens` int64 [P], 25 a second; `mel` float32 [2P, 80], the natural logarithm of its magnitudes, 50 frames a
    second; `embedding` float32 [192], CAMPPlus's x-vector as it leaves the network, its length not yet made 1.
    """

    tokens: Tensor
    mel: Tensor
    embedding: Tensor

    @classmethod
    def checked(cls, tokens: object, mel: object, embedding: object) -> ReferencePrompt:
        """A copy of tensors of any shape that holds one row of them, as `gen` of upstream's conditionals does.

        Raises `InvalidValue`, naming what is wrong, before anything reaches the device.
        """
        if (
            not isinstance(tokens, Tensor)
            or tokens.dtype not in _WHOLE
            or tokens.ndim == 0
            or not 1 <= tokens.numel() <= LONGEST_REFERENCE
            or tokens.numel() != tokens.shape[-1]
        ):
            expected = f"the reference must be one row of 1 to {LONGEST_REFERENCE} tokens"
            raise InvalidValue(f"{expected}, not {_described(tokens)}", param="reference_tokens")
        if tokens.min() < 0 or tokens.max() >= VOCABULARY:
            raise InvalidValue(f"reference tokens must be 0 to {VOCABULARY - 1}", param="reference_tokens")
        return cls(
            tokens.detach().reshape(-1).to("cpu", torch.int64, copy=True),
            _floats(mel, "reference_mel", 2 * tokens.numel(), _MELS),
            _floats(embedding, "reference_embedding", _X_VECTOR),
        )

    def shortened(self, tokens: int) -> ReferencePrompt:
        """Its newest `tokens` tokens and their frames, or all when it has no more."""
        return replace(self, tokens=self.tokens[-tokens:], mel=self.mel[-2 * tokens :])

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes + self.mel.nbytes + self.embedding.nbytes


def _floats(value: object, param: str, *shape: int) -> Tensor:
    """A copy as float32 of one tensor of this shape, whatever dimensions of 1 stand before it."""
    named = param.replace("_", " ")
    if (
        not isinstance(value, Tensor)
        or not value.is_floating_point()
        or value.shape[-len(shape) :] != shape
        or value.numel() != torch.Size(shape).numel()
    ):
        raise InvalidValue(f"the {named} must be numbers {list(shape)}, not {_described(value)}", param=param)
    copy = value.detach().reshape(shape).to("cpu", torch.float32, copy=True).contiguous()
    if not torch.isfinite(copy).all():
        raise InvalidValue(f"the {named} holds values that are not finite", param=param)
    return copy


def _described(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


@dataclass(frozen=True, slots=True, eq=False)
class VoiceConditionals(Conditionals):
    """All that a recording leaves behind. `digest` identifies the contents."""

    t3: SpeakerPrompt
    gen: ReferencePrompt
    digest: str

    @classmethod
    def of(cls, t3: SpeakerPrompt, gen: ReferencePrompt) -> VoiceConditionals:
        digest = hashlib.sha256(t3.digest.encode())
        for tensor in (gen.tokens, gen.mel, gen.embedding):
            digest.update(f"{list(tensor.shape)}".encode())
            digest.update(tensor.numpy().data)
        return cls(t3, gen, digest.hexdigest())

    @classmethod
    def from_upstream(cls, found: Mapping[str, Any], config: T3Config) -> VoiceConditionals:
        """From what `read_conditionals` returns. Raises `InvalidValue`, naming what does not fit the model."""
        t3, gen = found["t3"], found["gen"]
        tokens, mel = gen.get("prompt_token"), gen.get("prompt_feat")
        known = isinstance(tokens, Tensor) and isinstance(mel, Tensor) and mel.ndim > 1
        if known and mel.shape[-2] == 2 * tokens.numel() + 1:  # upstream keeps half a token's frames at the end
            mel = mel[..., :-1, :]
        return cls.of(
            SpeakerPrompt.checked(t3.get("speaker_emb"), t3.get("cond_prompt_speech_tokens"), config),
            ReferencePrompt.checked(tokens, mel, gen.get("embedding")),
        )

    @property
    def nbytes(self) -> int:
        """Of the numbers; a token of T3's counts as the 8 bytes of its place in the tuple."""
        return self.t3.speaker.nbytes + 8 * len(self.t3.tokens) + self.gen.nbytes


class _Measured(Protocol):
    @property
    def nbytes(self) -> int: ...


Held = TypeVar("Held", bound=_Measured)


class RecentlyUsed(Generic[Held]):
    """The things used last, as many as fit into `limit_bytes`. Not safe to share between threads."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def get(self, key: str) -> Held | None:
        if (held := self._held.get(key)) is not None:
            self._held.move_to_end(key)
        return held

    def put(self, key: str, held: Held) -> None:
        """What is larger than the limit is not kept, and takes nothing else's place."""
        if (earlier := self._held.pop(key, None)) is not None:
            self._nbytes -= earlier.nbytes
        if held.nbytes > self._limit_bytes:
            return
        self._held[key] = held
        self._nbytes += held.nbytes
        while self._nbytes > self._limit_bytes:
            self._nbytes -= self._held.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        self._held.clear()
        self._nbytes = 0


@dataclass(frozen=True, slots=True, eq=False)
class DevicePrompt:
    """A `ReferencePrompt` on the device, in the same shapes and types."""

    tokens: Tensor
    mel: Tensor
    embedding: Tensor

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes + self.mel.nbytes + self.embedding.nbytes


class DeviceVoices:
    """S3Gen's part of the voices used last, on the device. For the one engine thread."""

    def __init__(self, device: torch.device, limit_bytes: int) -> None:
        self._device = device
        self._voices: RecentlyUsed[DevicePrompt] = RecentlyUsed(limit_bytes)

    @property
    def nbytes(self) -> int:
        return self._voices.nbytes

    def get(self, prompt: ReferencePrompt, digest: str) -> DevicePrompt:
        """`digest` is that of the voice that the prompt belongs to."""
        if (known := self._voices.get(digest)) is not None:
            return known
        parts = (upload(part, self._device) for part in (prompt.tokens, prompt.mel, prompt.embedding))
        uploaded = DevicePrompt(*parts)
        self._voices.put(digest, uploaded)
        return uploaded

    def clear(self) -> None:
        self._voices.clear()
