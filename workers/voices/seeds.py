"""The emotion profiles that a new library begins with; they are the operator's to change and to remove."""

from __future__ import annotations

from fleet.library_contract import EmotionProfile

# The expressive pair is the one upstream's documentation gives for dramatic speech: exaggeration 0.7 or more and a
# cfg_weight of about 0.3, which slows the quicker pace that exaggeration brings.
SEEDS = (
    EmotionProfile(
        name="neutral", description="As the voice speaks by itself", exaggeration=0.5, cfg_weight=0.5, temperature=0.8
    ),
    EmotionProfile(
        name="expressive", description="Livelier and quicker", exaggeration=0.8, cfg_weight=0.3, temperature=0.8
    ),
    EmotionProfile(name="calm", description="Even and unhurried", exaggeration=0.25, cfg_weight=0.5, temperature=0.6),
)
