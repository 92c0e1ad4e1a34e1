"""The voices a worker offers, found by id, name or alias."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.errors import VoiceNotFound
from workers.engine.base import EngineVoice


class VoiceCatalogue:
    """Named voices; the first is the default. Names and aliases are matched without regard to case."""

    def __init__(self, voices: Iterable[EngineVoice]) -> None:
        self._voices = tuple(voices)
        self._by_name: dict[str, EngineVoice] = {}
        for voice in self._voices:
            for name in (voice.id, voice.name, *voice.aliases):
                self._by_name.setdefault(name.casefold(), voice)

    def __iter__(self) -> Iterator[EngineVoice]:
        return iter(self._voices)

    def __len__(self) -> int:
        return len(self._voices)

    def find(self, name: str | None) -> EngineVoice:
        """The voice of that name, or the default one for None. Raises `VoiceNotFound`, listing what there is."""
        if name is None:
            return self._voices[0]
        voice = self._by_name.get(name.casefold())
        if voice is None:
            known = ", ".join(voice.id for voice in self._voices)
            raise VoiceNotFound(f"there is no voice {name!r}; there are: {known}", param="voice")
        return voice
