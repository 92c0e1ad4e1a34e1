"""What the chatterbox engine says of itself: what it can do, and what it has counted."""

from __future__ import annotations

from dataclasses import fields

from fleet.contract import SAMPLE_RATE
from workers.engine.base import Capabilities, EngineFigures, EngineVoice, SamplingParameters
from workers.engine.chatterbox.model import Model
from workers.engine.chatterbox.pace import Pace

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
        conditionals=model.conditionals.kind,
    )


def figures_of(model: Model, pace: Pace, *, late: int) -> EngineFigures:
    """A snapshot; any thread may take one. `late` counts the hops that came late."""
    tokens, counts = model.tokens, model.vocoder.counts
    return EngineFigures(
        steps_per_s=pace.steps_per_s,
        steps=pace.steps,
        step_rows=pace.rows,
        tokens=pace.tokens,
        graph_replays=tokens.steps.replays + counts.replays,
        eager_steps=tokens.steps.eager_steps + counts.euler_steps - counts.replays,
        euler_steps=counts.euler_steps,
        euler_rows=counts.euler_rows,
        hops=counts.hops,
        hops_late=late,
        slots=tokens.slots.count,
        slots_used=tokens.slots.count - tokens.scheduler.free_slots,
        sequences_waiting=tokens.scheduler.waiting,
        conditionals_computed=model.conditionals.computed,
        conditionals_hits=model.conditionals.hits,
        device_bytes=model.device_bytes(),
    )
