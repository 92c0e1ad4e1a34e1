"""The client's methods for voices and emotion profiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from fleet.client import FleetClient, require_success
from fleet.library_contract import (
    LARGEST_PAGE,
    Emotion,
    EmotionPage,
    EmotionProfile,
    SpeakingDefaults,
    Voice,
    VoicePage,
)

File = tuple[str, BinaryIO]
"""What a recording is called, and its contents."""


class LibraryClient(FleetClient):
    """Every method raises `Unreachable`, or the typed error that an error answer stands for."""

    def voices(self) -> Iterator[Voice]:
        """All voices by name, page by page."""
        cursor: str | None = None
        while True:
            page = self._get("/voices", VoicePage, limit=LARGEST_PAGE, **({"cursor": cursor} if cursor else {}))
            yield from page.voices
            if (cursor := page.next) is None:
                return

    def emotions(self) -> Iterator[Emotion]:
        """All profiles by name, page by page."""
        cursor: str | None = None
        while True:
            page = self._get("/emotions", EmotionPage, limit=LARGEST_PAGE, **({"cursor": cursor} if cursor else {}))
            yield from page.emotions
            if (cursor := page.next) is None:
                return

    def create_voice(
        self,
        files: Sequence[File],
        *,
        name: str | None = None,
        description: str = "",
        language: str | None = None,
        aliases: Sequence[str] = (),
        defaults: SpeakingDefaults | None = None,
        default: bool = False,
    ) -> Voice:
        fields: dict[str, str | list[str]] = {"description": description, "default": str(default).lower()}
        if name is not None:
            fields["name"] = name
        if language is not None:
            fields["language"] = language
        given = {} if defaults is None else defaults.model_dump(exclude_none=True)
        fields |= {parameter: str(value) for parameter, value in given.items()}
        # An alias may hold a comma, which a form takes as the end of one: they are set in a second step.
        plain = not any("," in alias for alias in aliases)
        if plain and aliases:
            fields["aliases"] = list(aliases)
        parts = [("file", file) for file in files]
        voice = self._send("POST", "/voices", Voice, files=parts, data=fields)
        if plain:
            return voice
        return self._send("PATCH", f"/voices/{voice.id}", Voice, json={"aliases": list(aliases)})

    def delete_voice(self, voice_id: str, *, force: bool = False) -> None:
        with self._reaching():
            answer = self._client.delete(f"{self.url}/voices/{voice_id}", params={"force": str(force).lower()})
            require_success(answer)

    @contextmanager
    def recording(self, voice_id: str, index: int) -> Iterator[Iterator[bytes]]:
        """A recording as it was given, while it arrives."""
        path = f"{self.url}/voices/{voice_id}/sample"
        with self._reaching(), self._client.stream("GET", path, params={"index": index}) as answer:
            require_success(answer)
            yield answer.iter_raw()

    def create_emotion(self, profile: EmotionProfile) -> Emotion:
        return self._send("POST", "/emotions", Emotion, json=profile.model_dump(mode="json", exclude_none=True))

    def replace_emotion(self, emotion_id: str, profile: EmotionProfile) -> Emotion:
        body = profile.model_dump(mode="json", exclude_none=True)
        return self._send("PUT", f"/emotions/{emotion_id}", Emotion, json=body)
