"""S3Gen's last stage: mel frames, 50 for each second, to a waveform at 24 kHz.

Upstream's HiFTGenerator (HiFTNet, https://arxiv.org/abs/2309.09493): a harmonic source that follows F0, filtered by a
network that ends in an inverse short-time Fourier transform. In float32. Phases and noise are given by absolute frame,
so that a part of a stream comes out as it would within the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.chatterbox.layers import Loader
from workers.engine.chatterbox.noise import normal, uniform
from workers.engine.chatterbox.weights import TensorFile

SAMPLE_RATE = 24_000
SAMPLES_PER_FRAME = 480
CONTEXT = 15
"""Frames on each side that decide how a frame sounds: the network sees 14.3 of them."""

_MEL = 80
_HARMONICS = 9
_SINE_AMPLITUDE, _NOISE_AMPLITUDE, _VOICED_HZ = 0.1, 0.003, 10.0
_FFT, _HOP = 16, 4
_BINS = _FFT // 2 + 1
_RATES = (8, 5, 3)
_LIMIT = 0.99
_PHASE_STREAM, _SOURCE_STREAM = 2, 3
"""Of noise.py; 0 draws tokens, 1 starts mel spectrograms."""


@dataclass(frozen=True, slots=True)
class _Convolution:
    weight: Tensor
    bias: Tensor
    dilation: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        padding = (self.weight.shape[-1] - 1) // 2 * self.dilation
        return F.conv1d(x, self.weight, self.bias, padding=padding, dilation=self.dilation)


def _folded(load: Loader, name: str) -> Tensor:
    """A weight stored as magnitude and direction (weight norm, https://arxiv.org/abs/1602.07868), multiplied out."""
    magnitude, direction = f"{name}.parametrizations.weight.original0", f"{name}.parametrizations.weight.original1"
    v = load.raw(direction, *load.file.shape(load.prefix + direction))
    g = load.raw(magnitude, len(v), 1, 1)
    norm: Tensor = torch.linalg.vector_norm(v, dim=(1, 2), keepdim=True)
    return (g * v / norm).to(load.device)


def _convolution(load: Loader, name: str, dilation: int = 1) -> _Convolution:
    weight = _folded(load, name)
    return _Convolution(weight, load.tensor(f"{name}.bias", len(weight)), dilation)


class _Resblock:
    """Pairs of convolutions, the first of each dilated by 1, 3, 5, with Snake activations before them."""

    def __init__(self, load: Loader) -> None:
        self._pairs = []
        for n in range(load.count("convs1")):
            first, second = _convolution(load, f"convs1.{n}", 2 * n + 1), _convolution(load, f"convs2.{n}")
            snakes = [load.tensor(f"activations{k}.{n}.alpha", len(first.weight))[:, None] for k in (1, 2)]
            self._pairs.append((snakes[0], first, snakes[1], second))

    def __call__(self, x: Tensor) -> Tensor:
        for before_first, first, before_second, second in self._pairs:
            x = x + second(_snake(first(_snake(x, before_first)), before_second))
        return x


def _snake(x: Tensor, alpha: Tensor) -> Tensor:
    """x + sin(alpha x)^2 / alpha, https://arxiv.org/abs/2006.08195."""
    return torch.addcmul(x, torch.sin(x * alpha).square_(), 1.0 / (alpha + 1e-9))


class F0Predictor:
    """Hertz for every mel frame. In float32 to the last bit: its sum over time becomes a phase."""

    def __init__(self, load: Loader) -> None:
        self._convolutions = [_convolution(load, f"condnet.{2 * n}") for n in range(5)]
        width = len(self._convolutions[-1].weight)
        self._weight, self._bias = load.tensor("classifier.weight", 1, width), load.tensor("classifier.bias", 1)

    def __call__(self, mel: Tensor) -> Tensor:
        """[N, F, 80] to [N, F]."""
        x = mel.transpose(1, 2)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for convolution in self._convolutions:
                x = F.elu(convolution(x))
        return (x * self._weight[0][:, None]).sum(dim=1).add_(self._bias).abs_()


class Hift:
    """Mel frames to sound. Raises `ModelInvalid` when a part is missing."""

    def __init__(self, file: TensorFile, device: torch.device) -> None:
        load = Loader(file, "mel2wav.", device, torch.float32)
        self.device = device
        self.channels = _MEL
        self.f0 = F0Predictor(load.below("f0_predictor"))
        self._merge = load.tensor("m_source.l_linear.weight", 1, _HARMONICS)
        self._merge_bias = load.tensor("m_source.l_linear.bias", 1)
        self._enter = _convolution(load, "conv_pre")
        self._ups = [(_folded(load, f"ups.{n}"), load.tensor(f"ups.{n}.bias", 256 >> n)) for n in range(3)]
        self._source_downs = [
            (load.tensor(f"source_downs.{n}.weight", 256 >> n, 2 * _BINS, size), load.tensor(f"{name}.bias", 256 >> n))
            for n, size in enumerate((30, 6, 1))
            for name in (f"source_downs.{n}",)
        ]
        self._source_blocks = [_Resblock(load.below(f"source_resblocks.{n}")) for n in range(3)]
        self._blocks = [_Resblock(load.below(f"resblocks.{n}")) for n in range(9)]
        self._leave = _convolution(load, "conv_post")
        window = torch.hann_window(_FFT)
        self._analysis = _fourier_basis(window).to(device)
        self._synthesis = _inverse_basis(window).to(device)
        self._window_square = window.square()[None, None].to(device)

    def phases(self, seeds: Tensor) -> Tensor:
        """[N, 9] of each stream's harmonics, in turns; the fundamental begins at 0."""
        drawn = uniform(seeds, torch.zeros_like(seeds), _HARMONICS - 1, stream=_PHASE_STREAM) - 0.5
        return F.pad(drawn, (1, 0))

    def source(self, f0: Tensor, turns: Tensor, seeds: Tensor, first_frames: Tensor) -> Tensor:
        """Hertz [N, F] to the source signal [N, 480 F].

        `turns` float64 [N] is the fundamental's phase where the rows begin, `first_frames` int64 [N] their place in
        their streams, which the noise depends on.
        """
        rows, frames = f0.shape
        per_frame = f0.double() * (SAMPLES_PER_FRAME / SAMPLE_RATE)
        begins = (turns[:, None] + F.pad(per_frame, (1, 0)).cumsum(dim=1)[:, :-1]).remainder(1).float()
        within = torch.arange(1, SAMPLES_PER_FRAME + 1, device=f0.device) / SAMPLE_RATE
        fundamental = begins[..., None] + f0[..., None] * within
        numbers = torch.arange(1, _HARMONICS + 1, device=f0.device)
        phase = (fundamental[..., None] * numbers + self.phases(seeds)[:, None, None]).remainder(1)
        voiced = (f0 > _VOICED_HZ).float()[..., None, None]
        places = first_frames[:, None] + torch.arange(frames, device=f0.device)
        noise = normal(seeds, places, SAMPLES_PER_FRAME * _HARMONICS, stream=_SOURCE_STREAM)
        noise = noise.view(rows, frames, SAMPLES_PER_FRAME, _HARMONICS)
        loudness = voiced * _NOISE_AMPLITUDE + (1 - voiced) * (_SINE_AMPLITUDE / 3)
        waves = _SINE_AMPLITUDE * voiced * torch.sin(2 * math.pi * phase) + loudness * noise
        return torch.tanh(F.linear(waves, self._merge, self._merge_bias)).view(rows, frames * SAMPLES_PER_FRAME)

    def __call__(self, mel: Tensor, source: Tensor) -> Tensor:
        """Mel [N, F, 80] and source [N, 480 F] to sound [N, 480 F]."""
        padded = F.pad(source[:, None], (_FFT // 2, _FFT // 2), mode="reflect")
        spectrum = F.conv1d(padded, self._analysis, stride=_HOP)
        x = self._enter(mel.transpose(1, 2))
        for n, rate in enumerate(_RATES):
            weight, bias = self._ups[n]
            x = F.leaky_relu(x, 0.1)
            x = F.conv_transpose1d(x, weight, bias, stride=rate, padding=(weight.shape[-1] - rate) // 2)
            if n == len(_RATES) - 1:
                x = F.pad(x, (1, 0), mode="reflect")
            weight, bias = self._source_downs[n]
            stride = math.prod(_RATES[n + 1 :])
            x = x + self._source_blocks[n](F.conv1d(spectrum, weight, bias, stride=stride, padding=stride // 2))
            x = torch.stack([block(x) for block in self._blocks[3 * n : 3 * n + 3]]).mean(dim=0)
        x = self._leave(F.leaky_relu(x))
        magnitude = torch.exp(x[:, :_BINS]).clamp_(max=100.0)
        angle = torch.sin(x[:, _BINS:])
        parts = torch.cat([magnitude * torch.cos(angle), magnitude * torch.sin(angle)], dim=1)
        return self._inverse(parts).clamp_(-_LIMIT, _LIMIT)

    def _inverse(self, parts: Tensor) -> Tensor:
        """torch.istft without its look at the host: overlapping windows added up and divided by their squares' sum."""
        sound = F.conv_transpose1d(parts, self._synthesis, stride=_HOP)[:, 0]
        ones = parts.new_ones(1, 1, parts.shape[-1])
        weight = F.conv_transpose1d(ones, self._window_square, stride=_HOP)[:, 0]
        half = _FFT // 2
        return sound[:, half:-half] / weight[:, half:-half]


def _fourier_basis(window: Tensor) -> Tensor:
    """[18, 1, 16]: real parts, then imaginary ones, of the windowed discrete Fourier transform."""
    angles = 2 * math.pi * torch.arange(_BINS)[:, None] * torch.arange(_FFT) / _FFT
    return (torch.cat([angles.cos(), -angles.sin()]) * window)[:, None]


def _inverse_basis(window: Tensor) -> Tensor:
    """[18, 1, 16]: what each real and imaginary part adds to a windowed frame of the inverse transform."""
    angles = 2 * math.pi * torch.arange(_BINS)[:, None] * torch.arange(_FFT) / _FFT
    shares = torch.full((_BINS, 1), 2.0 / _FFT)
    shares[0] = shares[-1] = 1.0 / _FFT
    return (torch.cat([shares * angles.cos(), -shares * angles.sin()]) * window)[:, None]
