"""What the chatterbox engine says of itself."""

from __future__ import annotations

from dataclasses import fields

from fleet.contract import SAMPLE_RATE
from workers.engine.base import Capabilities, EngineVoice, SamplingParameters
from workers.engine.chatterbox.model import Model

VOICE = EngineVoice(
    id="default",
    name="Default",
    description="The voice that comes with the model",
    language="en",
    aliases=(
        *("alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse"),
        *("marin", "cedar"),
    ),
)
"""The model has one voice of its own, which answers to all of OpenAI's names."""

LANGUAGE = "en"


def capabilities_of(model: Model, first_sound_s: float) -> Capabilities:
    """`first_sound_s` is measured, in seconds."""
    return Capabilities(
        engine="chatterbox",
        model=f"chatterbox-{model.revision}",
        device=model.device_name,
        sample_rate=SAMPLE_RATE,
        demo_voice=False,
        clones_voices=True,
        voices=(VOICE,),
        languages=(LANGUAGE,),
        parameters=frozenset(field.name for field in fields(SamplingParameters)),
        first_sound_s=first_sound_s,
    )
