"""How a voice, an emotion and a measured speaker become libespeak-ng's own parameters."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleet.errors import InvalidValue
from fleet.startup_errors import EngineUnavailable
from workers.engine.base import Conditionals, EngineVoice, Recording

try:
    import parselmouth
except ImportError:  # No wheel for Linux on aarch64: the engine then says that it does not clone.
    parselmouth = None

_NEUTRAL_RATE = 175
"""Words per minute: espeak's own default."""

_PITCH_FLOOR_HZ, _PITCH_CEILING_HZ = 60.0, 500.0
_MIN_VOICED_S = 0.2

# Median F0 in Hz that each register was measured to speak at, against espeak's pitch parameter (0 to 99; range 50,
# 175 words per minute, espeak-ng 1.52, en-us). tests/workers/engine/test_espeak_voices.py holds them against the sound.
_PITCH = (0, 10, 25, 50, 75, 90, 99)
_LOW_F0 = (67, 70, 78, 98, 128, 151, 167)
_HIGH_F0 = (138, 148, 165, 202, 256, 299, 328)
_HIGH_VARIANT = "f3"
_REGISTER_BOUNDARY_HZ = 150


KIND = "espeak-pitch-1"
"""Of conditionals: what is measured and how; another way of measuring takes another number."""


@dataclass(frozen=True, slots=True)
class EspeakConditionals(Conditionals):
    """`base_pitch_hz`: the speaker's median fundamental frequency."""

    base_pitch_hz: float


@dataclass(frozen=True, slots=True)
class Speaker:
    """A way of speaking in espeak's terms: a voice variant ("" for none), pitch 0 to 99, and a factor on the rate."""

    variant: str
    pitch: int
    rate_factor: float = 1.0

    @staticmethod
    def at(base_pitch_hz: float) -> Speaker:
        """The speaker whose median F0 is nearest to `base_pitch_hz`; the reachable span is 67 to 328 Hz."""
        if base_pitch_hz < _REGISTER_BOUNDARY_HZ:
            return Speaker("", round(float(np.interp(base_pitch_hz, _LOW_F0, _PITCH))))
        return Speaker(_HIGH_VARIANT, round(float(np.interp(base_pitch_hz, _HIGH_F0, _PITCH))))


VOICES = (
    EngineVoice("alto", "Alto", "Medium high, even", "en-us", ("default", "alloy", "sage", "marin")),
    EngineVoice("soprano", "Soprano", "High and bright", "en-us", ("coral", "nova", "shimmer")),
    EngineVoice("tenor", "Tenor", "Medium low, even", "en-us", ("ash", "echo", "verse")),
    EngineVoice("baritone", "Baritone", "Low", "en-us", ("onyx", "cedar")),
    EngineVoice("narrator", "Narrator", "Low and unhurried, British", "en-gb", ("ballad", "fable")),
    EngineVoice("whisper", "Whisper", "Without a tone", "en-us"),
)
"""The first is the default. The aliases are OpenAI's stock voice names."""

_SPEAKERS = {
    "alto": Speaker.at(185),
    "soprano": Speaker.at(240),
    "tenor": Speaker.at(125),
    "baritone": Speaker.at(85),
    "narrator": Speaker("", Speaker.at(100).pitch, rate_factor=0.88),
    "whisper": Speaker("whisper", 50),
}


def speaker_for(voice: str, conditionals: Conditionals | None) -> Speaker:
    """The measured speaker where there is one, else that of one of the engine's own voices.

    Raises `InvalidValue` for another engine's conditionals.
    """
    if conditionals is None:
        return _SPEAKERS[voice]
    if not isinstance(conditionals, EspeakConditionals):
        raise InvalidValue("the conditionals are another engine's", param="conditionals")
    return Speaker.at(conditionals.base_pitch_hz)


def pitch_range(exaggeration: float) -> int:
    """espeak's pitch range, 0 (monotone) to 100, for an exaggeration of 0 to 2; 0.5 gives espeak's default of 50."""
    return round(100 * exaggeration / (exaggeration + 0.5))


def words_per_minute(exaggeration: float, rate_factor: float) -> int:
    """Excited speech is faster: 149 words per minute at 0, espeak's default of 175 at 0.5, 254 at 2."""
    return round(_NEUTRAL_RATE * rate_factor * (0.85 + 0.3 * exaggeration))


def can_measure() -> bool:
    return parselmouth is not None


def measure(recordings: Sequence[Recording]) -> EspeakConditionals:
    """The median F0 over the voiced frames of all recordings, by Praat's autocorrelation method (Boersma 1993).

    Raises `InvalidValue` when less than 0.2 s of them is voiced.
    """
    if parselmouth is None:
        raise EngineUnavailable("this machine has no pitch analysis (praat-parselmouth), so voices cannot be measured")
    step_s = 0.01
    tracks = []
    for recording in recordings:
        if len(recording.samples) < recording.sample_rate * _MIN_VOICED_S:
            continue
        sound = parselmouth.Sound(recording.samples.astype(np.float64), recording.sample_rate)
        pitch = sound.to_pitch_ac(step_s, pitch_floor=_PITCH_FLOOR_HZ, pitch_ceiling=_PITCH_CEILING_HZ)
        tracks.append(pitch.selected_array["frequency"])
    voiced = np.concatenate(tracks) if tracks else np.zeros(0)
    voiced = voiced[voiced > 0]
    if len(voiced) * step_s < _MIN_VOICED_S:
        raise InvalidValue("the recording holds no voiced speech to measure", param="file")
    return EspeakConditionals(base_pitch_hz=float(np.median(voiced)))


def pack(conditionals: Conditionals) -> bytes:
    """A JSON object. Raises `InvalidValue` for another engine's."""
    if not isinstance(conditionals, EspeakConditionals):
        raise InvalidValue("these conditionals are another engine's")
    return json.dumps({"kind": KIND, "base_pitch_hz": conditionals.base_pitch_hz}).encode()


def unpack(packed: bytes) -> EspeakConditionals:
    """Raises `InvalidValue` for what `pack` has not made."""
    try:
        found = json.loads(packed)
        kind, pitch_hz = found["kind"], float(found["base_pitch_hz"])
    except (ValueError, TypeError, LookupError) as error:
        raise InvalidValue(f"the conditionals are damaged: {error}") from error
    if kind != KIND or not math.isfinite(pitch_hz):
        raise InvalidValue(f"the conditionals are of kind {kind!r}, not {KIND!r}")
    return EspeakConditionals(base_pitch_hz=pitch_hz)
