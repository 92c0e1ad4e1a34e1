"""The embedded CPU voice: libespeak-ng as a full implementation of the Engine protocol."""

from workers.engine.espeak.engine import EspeakEngine

__all__ = ["EspeakEngine"]
