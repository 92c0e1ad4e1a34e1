"""Upstream's own modules that measure a recording, on the CPU. Importing them takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import librosa
import torch
from chatterbox.models.s3gen.const import S3GEN_SR
from chatterbox.models.s3gen.s3gen import S3Token2Mel
from chatterbox.models.s3gen.utils.mel import mel_spectrogram
from chatterbox.models.s3gen.xvector import CAMPPlus
from chatterbox.models.s3tokenizer import S3_SR, S3_TOKEN_HOP, S3_TOKEN_RATE, S3Tokenizer
from chatterbox.models.voice_encoder import VoiceEncoder
from torch import Tensor
from torch.nn import Module

from fleet.startup_errors import ModelInvalid
from workers.engine.base import Recording, Samples
from workers.engine.chatterbox.checkpoint import CheckpointFiles
from workers.engine.chatterbox.conditionals import LONGEST_REFERENCE
from workers.engine.chatterbox.weights import TensorFile

_TOKEN_SAMPLES = S3GEN_SR // S3_TOKEN_RATE
"""Samples at 24 kHz that one token stands for: two mel frames."""


class Measurements(NamedTuple):
    """In upstream's shapes: [1, 256], [1, T], [1, P], [1, 2P, 80], [1, 192]."""

    speaker: Tensor
    t3_tokens: Tensor
    gen_tokens: Tensor
    mel: Tensor
    x_vector: Tensor


class ReferenceModels:
    """Voice encoder, speech tokenizer and CAMPPlus, in float32.

    Raises `ModelMissing` or `ModelInvalid`, naming the file and the tensor at fault.
    """

    def __init__(self, directory: Path, files: CheckpointFiles) -> None:
        self._voice_encoder = VoiceEncoder()
        _fill(self._voice_encoder, TensorFile(directory / files.voice_encoder), "")
        s3gen = TensorFile(directory / files.s3gen)
        self._tokenizer = _tokenizer_of(s3gen)
        self._x_vectors = CAMPPlus(memory_efficient=False)
        _fill(self._x_vectors, s3gen, "speaker_encoder.")

    @torch.inference_mode()
    def measure(self, recordings: Sequence[Recording], t3_tokens: int) -> Measurements:
        """As `ChatterboxTTS.prepare_conditionals` does, but of several recordings.

        The speaker embedding is the mean over all; the rest is of the longest recording's beginning, `t3_tokens` tokens
        of it for T3.
        """
        at_24k = [
            librosa.resample(recording.samples, orig_sr=recording.sample_rate, target_sr=S3GEN_SR)
            for recording in recordings
        ]
        at_16k = [librosa.resample(samples, orig_sr=S3GEN_SR, target_sr=S3_SR) for samples in at_24k]
        durations = [len(recording.samples) / recording.sample_rate for recording in recordings]
        longest = durations.index(max(durations))
        embeddings = torch.from_numpy(self._voice_encoder.embeds_from_wavs(at_16k, sample_rate=S3_SR))
        beginning = at_16k[longest][: t3_tokens * S3_TOKEN_HOP]
        prompt, _ = self._tokenizer.forward([beginning], max_len=t3_tokens)
        return Measurements(embeddings.mean(dim=0, keepdim=True), prompt, *self._reference(at_24k[longest]))

    def _reference(self, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, mel and x-vector of the first 10 s.

        Where a recording is no multiple of 40 ms, upstream cuts the tokens to half the mel's frames, with a warning to
        the root logger, and leaves the mel its last frame when their number is odd; here both are cut beforehand.
        """
        samples = samples[: LONGEST_REFERENCE * _TOKEN_SAMPLES]
        count = len(samples) // _TOKEN_SAMPLES

        def mel_extractor(samples: Tensor) -> Tensor:
            mel: Tensor = mel_spectrogram(samples)  # [1, 80, frames]
            return mel[..., : 2 * count]

        def tokenizer(samples: Tensor) -> tuple[Tensor, Tensor]:
            tokens, lengths = self._tokenizer(samples)
            return tokens[:, :count], lengths.clamp(max=count)

        embedded_by = SimpleNamespace(
            device=torch.device("cpu"),
            dtype=torch.float32,
            mel_extractor=mel_extractor,
            speaker_encoder=self._x_vectors,
            tokenizer=tokenizer,
        )
        found = S3Token2Mel.embed_ref(embedded_by, samples, S3GEN_SR, device=embedded_by.device)
        return found["prompt_token"], found["prompt_feat"], found["embedding"]


def _tokenizer_of(file: TensorFile) -> S3Tokenizer:
    """Upstream's tokenizer with as many blocks as the file has; its constructor takes no number of them."""
    tokenizer = S3Tokenizer("speech_tokenizer_v2_25hz")
    blocks = tokenizer.encoder.blocks
    count = file.count("tokenizer.encoder.blocks.")
    if not 1 <= count <= len(blocks):
        raise ModelInvalid(f"{file.path} has {count} blocks tokenizer.encoder.blocks, not 1 to {len(blocks)}")
    tokenizer.encoder.blocks = blocks[:count]
    _fill(tokenizer, file, "tokenizer.", computed=S3Tokenizer.ignore_state_dict_missing)
    return tokenizer


def _fill(module: Module, file: TensorFile, prefix: str, computed: tuple[str, ...] = ()) -> None:
    """Put the file's numbers into a module; `computed` are buffers that may keep what the module made them of itself.

    So do counts of batches seen, which only training reads.
    """
    state = {
        name: file.floats(prefix + name, *tensor.shape)
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and (name not in computed or prefix + name in file)
    }
    module.load_state_dict(module.state_dict() | state)
    module.eval()
