"""Mel frames to the sound of a stream: parts that come out as the whole would, joined without a click, watermarked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.chatterbox.hift import CONTEXT, SAMPLE_RATE, SAMPLES_PER_FRAME, Hift
from workers.engine.chatterbox.watermark import CONTEXT as WATERMARK_CONTEXT
from workers.engine.chatterbox.watermark import Watermarker

_CROSSFADE = SAMPLES_PER_FRAME
"""Samples, 20 ms, in which a part takes over from what the one before it had foreseen."""

_TRIM = SAMPLE_RATE // 50
"""Upstream silences the first 20 ms of its output and fades the next 20 ms in: the prompt's last sound spills over."""


class SoundState:
    """What a stream's next part needs of those before it; tensors on the device, a few kilobytes.

    `mel` [h, 80] and `f0` [h] of the newest final frames, `turns` the fundamental's phase where they begin, `sound` the
    newest final samples before the watermark, `foreseen` the samples behind them as the last part had them.
    """

    def __init__(self, hift: Hift) -> None:
        device = hift.device
        self.mel = torch.zeros(0, hift.channels, device=device)
        self.f0 = torch.zeros(0, device=device)
        self.turns = torch.zeros((), dtype=torch.float64, device=device)
        self.sound = torch.zeros(0, device=device)
        self.foreseen: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """New mel frames [n, 80] of a stream from its frame `first` on, of which `final` will not be computed again."""

    state: SoundState
    mel: Tensor
    first: int
    final: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Parts of one shape are rendered together."""
        begins = self.first == 0
        return len(self.state.mel), len(self.mel), self.final, len(self.state.sound), begins


class Renderer:
    """The vocoder and the watermark over parts of many streams."""

    def __init__(self, hift: Hift, watermarker: Watermarker | None) -> None:
        self._hift = hift
        self._watermarker = watermarker
        self._rise = ((torch.arange(_CROSSFADE) + 0.5) / _CROSSFADE).to(hift.device)
        fade = (torch.cos(torch.linspace(torch.pi, 0, _TRIM)) + 1) / 2
        self._trim = torch.cat([torch.zeros(_TRIM), fade]).to(hift.device)

    def render(self, parts: Sequence[Part]) -> list[Tensor]:
        """The final sound of each part, [480 final]; their states move on."""
        found: list[Tensor] = [torch.empty(0)] * len(parts)
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, part in enumerate(parts):
            groups[part.shape].append(place)
        for places in groups.values():
            for place, sound in zip(places, self._render_alike([parts[p] for p in places]), strict=True):
                found[place] = sound
        return found

    def _render_alike(self, parts: Sequence[Part]) -> Tensor:
        known, final = len(parts[0].state.mel), parts[0].final
        mel = torch.stack([torch.cat([part.state.mel, part.mel]) for part in parts])
        f0 = self._hift.f0(mel)
        # Near its left edge the prediction lacks what it once had; the phase must go on from what was heard.
        f0[:, :known] = torch.stack([part.state.f0 for part in parts])
        turns = torch.stack([part.state.turns for part in parts])
        seeds, firsts = (
            torch.tensor(values, device=mel.device)
            for values in ([part.seed for part in parts], [part.first - known for part in parts])
        )
        sound = self._hift(mel, self._hift.source(f0, turns, seeds, firsts))[:, known * SAMPLES_PER_FRAME :]
        for row, part in enumerate(parts):
            if part.state.foreseen is not None:
                begin = sound[row, :_CROSSFADE]
                sound[row, :_CROSSFADE] = torch.lerp(part.state.foreseen, begin, self._rise)
        if parts[0].first == 0:
            length = min(sound.shape[1], len(self._trim))
            sound[:, :length] *= self._trim[:length]
        marked = self._marked(parts, sound, final * SAMPLES_PER_FRAME)
        for row, part in enumerate(parts):
            _move_on(part.state, mel[row], f0[row], sound[row], known + final)
        return marked

    def _marked(self, parts: Sequence[Part], sound: Tensor, final: int) -> Tensor:
        """The first `final` samples with the watermark, which takes what lies around them into account."""
        if self._watermarker is None:
            return sound[:, :final].clone()
        before = torch.stack([part.state.sound for part in parts])
        around = torch.cat([before, sound[:, : final + WATERMARK_CONTEXT]], dim=1)
        left, right = before.shape[1], around.shape[1] - before.shape[1] - final
        return self._watermarker.apply_chunk(around, left, right)


def _move_on(state: SoundState, mel: Tensor, f0: Tensor, sound: Tensor, frames: int) -> None:
    """Remember the last of the first `frames` frames, known ones included, and of the sound that ends with them."""
    start = max(0, frames - CONTEXT)
    state.turns = (state.turns + f0[:start].double().sum() * (SAMPLES_PER_FRAME / SAMPLE_RATE)).remainder(1)
    final = (frames - len(state.mel)) * SAMPLES_PER_FRAME
    state.mel, state.f0 = mel[start:frames].clone(), f0[start:frames].clone()
    state.sound = torch.cat([state.sound, sound[:final]])[-WATERMARK_CONTEXT:].clone()
    foreseen = sound[final : final + _CROSSFADE]
    state.foreseen = foreseen.clone() if len(foreseen) else None
