"""Named ways of speaking."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.errors import EmotionNotFound


@dataclass(frozen=True, slots=True)
class EmotionProfile:
    """A way of speaking: the parameters it sets, each None where it leaves the server's default."""

    name: str
    description: str
    exaggeration: float | None = None
    cfg_weight: float | None = None
    temperature: float | None = None


# The expressive pair is the one upstream's documentation gives for dramatic speech: exaggeration 0.7 or more and a
# cfg_weight of about 0.3, which slows the quicker pace that exaggeration brings.
PROFILES = (
    EmotionProfile("neutral", "As the voice speaks by itself", exaggeration=0.5, cfg_weight=0.5, temperature=0.8),
    EmotionProfile("expressive", "Livelier and quicker", exaggeration=0.8, cfg_weight=0.3, temperature=0.8),
    EmotionProfile("calm", "Even and unhurried", exaggeration=0.25, cfg_weight=0.5, temperature=0.6),
)


def find_emotion(name: str) -> EmotionProfile:
    """Raises `EmotionNotFound`, listing what there is."""
    for profile in PROFILES:
        if profile.name == name.casefold():
            return profile
    known = ", ".join(profile.name for profile in PROFILES)
    raise EmotionNotFound(f"there is no emotion {name!r}; there are: {known}", param="emotion")
