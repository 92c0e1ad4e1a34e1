"""PerTh, Resemble AI's watermark, put into 24 kHz sound chunk by chunk: the real network, no resampling.

PerTh (resemble-perth, network "implicit") resamples to 32 kHz, takes spectra of 2048 samples every 320, changes those
below 2 kHz and resamples back. At 24 kHz the same frames and bins are 1536 samples every 240: 10 ms a frame, 15.625 Hz
a bin. So the network reads our spectra as it reads its own, and only what it adds is put into the sound.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fleet.startup_errors import EngineUnavailable

HOP = 240
"""Samples between frames. A chunk cut out of longer sound starts at a multiple of this, or its frames are others."""

CONTEXT = 4_800
"""Samples, a multiple of `HOP`, that a chunk needs on each side for its inside to be as in the whole sound.

A sample is in frames up to 768 samples away, which follow from frames 15 hops away (five convolutions of width 7),
which hold samples 768 away: 5,136 in all, but the window's ends and the outermost taps weigh too little to matter.
Measured on speech with a peak near 1, the largest difference is 9e-8 with 4,800, 1.5e-6 with 4,320 and 2e-5 with 3,840.
"""

_WINDOW = 1_536
_PARTS = -(-_WINDOW // HOP)
_BANDS = 128
"""Bins that PerTh changes, the lowest: `compute_subband_freq` of its hyperparameters."""

_SCALE = 2_048 / _WINDOW
"""A spectrum of 2048 samples at 32 kHz is so much larger than ours of the same sound."""

_FLOOR = 1e-9
_FLOOR_DB, _TOP_DB = -180.0, 15.0
"""PerTh's levels: `_FLOOR_DB`, 20 log10 of `_FLOOR`, is 0 to the network and `_TOP_DB` is 1 (`utils.normalize`)."""

_LARGEST_DB = 200.0
"""The level that `utils.magphase_to_cx` clips to; no sound reaches it."""

_QUIET = 0.05
"""Frames below this part of the loudest frame stay as they are (`model.magmask`)."""

_HYPERPARAMETERS = {
    "sample_rate": 32_000,
    "n_fft": 2_048,
    "window_size": 2_048,
    "hop_size": 320,
    "window_fn": "hann",
    "stft_magnitude_min": _FLOOR,
    "max_wmark_freq": 2_000,
}
"""What this module takes for granted of the network that is installed."""


class Watermarker:
    """PerTh's encoder on one device, in float32. Holds no state between calls; one instance serves every stream."""

    def __init__(self, device: torch.device) -> None:
        """Loads the weights from the installed perth package: 2.4 M parameters.

        Raises `EngineUnavailable` when the package does not import, or holds a network of another kind.
        """
        self._layers = _load_layers().to(device=device, dtype=torch.float32).eval().requires_grad_(False)
        self._window = torch.hann_window(_WINDOW, device=device)

    @torch.inference_mode()
    def apply(self, x: Tensor) -> Tensor:
        """Sound with the watermark in it: float32 [R, N] at 24 kHz, any N above 0, to the same shape.

        Rows do not affect each other. It does what PerTh's `apply_watermark` does, except that
        - the change is added to the sound, which itself passes through no resampling and keeps its length; PerTh's
          loses what is above 11 kHz or so and is cut to whole hops;
        - sound shorter than half a window is extended with zeros before it is mirrored at its ends; PerTh refuses it;
        - the frames too quiet to mark are told from our 769 bins. PerTh counts 256 more, above 12 kHz, where its
          resampling leaves rounding noise; they count as 0 here. The two differ in frames at the edge of digital
          silence only;
        - what is quiet is measured against the loudest frame of this call, which for a chunk is not that of the whole
          sound. Sound at -100 dB is far from quiet by this measure; only digital silence and its edges are.

        Nothing is read back to the host and nothing depends on values, so a call can be captured in a CUDA graph; the
        FFT's plan for a shape is made by the first call with it, which must come before the capture.
        """
        length = x.shape[1]
        padded = F.pad(x, (0, max(0, _WINDOW // 2 + 1 - length)))
        spectrum = torch.stft(padded, _WINDOW, HOP, window=self._window, return_complex=True)
        level = 20 * torch.log10((spectrum.abs() * _SCALE).clamp(min=_FLOOR))
        normal = (level - _FLOOR_DB) / (_TOP_DB - _FLOOR_DB)

        loudness = normal.sum(dim=1, keepdim=True)
        audible = loudness > _QUIET * loudness.amax(dim=2, keepdim=True)
        change = self._layers(normal[:, :_BANDS]) * audible * (_TOP_DB - _FLOOR_DB)

        # A bin's gain is the same for its clipped and its true magnitude, so that of silence needs no phase.
        level = level[:, :_BANDS]
        gain = torch.pow(10.0, ((level + change).clamp(max=_LARGEST_DB) - level) / 20)
        return x + self._sound_of(spectrum[:, :_BANDS] * (gain - 1))[:, :length]

    def apply_chunk(self, x: Tensor, left: int, right: int) -> Tensor:
        """The middle of a chunk with the watermark in it: [R, left + N + right] to [R, N].

        `left` and `right` are samples of context, `CONTEXT` each to get what marking the whole sound gives; fewer at
        the sound's ends, where there are no more. The chunk, context included, must start at a multiple of `HOP` of
        the whole sound.
        """
        return self.apply(x)[:, left : x.shape[1] - right]

    def _sound_of(self, low: Tensor) -> Tensor:
        """The inverse of the short-time Fourier transform for spectra [R, 128, T] with nothing above: [R, HOP T].

        Griffin and Lim, "Signal estimation from modified short-time Fourier transform" (1984), which is what
        `torch.istft` computes; that one waits for the device to look for zeros in the windows' sum. There are none:
        each of these samples is less than a hop from the middle of a window.
        """
        frames = torch.fft.irfft(low.transpose(1, 2), n=_WINDOW) * self._window
        weights = self._window.square().expand(1, frames.shape[1], _WINDOW)
        return _overlap_add(frames) / _overlap_add(weights)


def _overlap_add(frames: Tensor) -> Tensor:
    """Frames [R, T, 1536] laid a hop apart and added, from the middle of the first to a hop past that of the last."""
    rows, count, _ = frames.shape
    parts = F.pad(frames, (0, _PARTS * HOP - _WINDOW)).view(rows, count, _PARTS, HOP)
    total = frames.new_zeros(rows, count + _PARTS - 1, HOP)
    for part in range(_PARTS):
        total[:, part : part + count] += parts[:, :, part]
    start = _WINDOW // 2
    return total.view(rows, -1)[:, start : start + count * HOP]


def _load_layers() -> nn.Sequential:
    """The encoder's layers with their weights, on the CPU: normalised levels [R, 128, T] to their change."""
    try:
        # By name and only now: it brings librosa and SciPy, which take seconds, and perth itself hides why it failed.
        perth = import_module("perth.perth_net")
    except ImportError as error:
        raise EngineUnavailable(
            f"the watermark does not load ({error}): it needs resemble-perth, which needs the pkg_resources of "
            "setuptools<81"
        ) from error
    network = perth.perth_net_implicit
    # What `PerthNet.load` does, without its line on standard output and without the detector.
    checkpoints = network.checkpoint_manager.CheckpointManager(perth.PREPACKAGED_MODELS_DIR, "implicit")
    found = {name: getattr(checkpoints.hp, name) for name in _HYPERPARAMETERS}
    if found != _HYPERPARAMETERS:
        raise EngineUnavailable(f"the installed perth has another watermark network: {found}")
    encoder = network.model.encoder.Encoder(checkpoints.hp.hidden_size, _BANDS)
    weights = checkpoints.load_latest()["model"]
    prefix = "encoder."
    encoder.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return cast(nn.Sequential, encoder.layers)
