"""What the token engine refuses, and how it says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fleet.errors import InvalidValue, NothingToSpeak, TextTooLong
from fleet.startup_errors import InvalidSettings
from tests.workers.engine.chatterbox.checkpoints import open_tokens
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.options import EngineOptions
from workers.engine.chatterbox.prompt import SpeakerPrompt
from workers.engine.chatterbox.token_engine import TokenEngine


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "...", "?!", "\u2026\u2014"])
def test_a_text_without_content_is_refused(tiny_engine: TokenEngine, text: str) -> None:
    """Before anything is queued."""
    with pytest.raises(NothingToSpeak):
        tiny_engine.add("empty", text)
    assert tiny_engine.scheduler.idle


@pytest.mark.parametrize("text", ["word " * 2100, "\U0001f600" * 3000 + "a"])
def test_a_text_beyond_the_models_positions_is_refused(wide: Path, text: str) -> None:
    """Longer than 2,048 tokens, also where a slot has room for more."""
    engine = open_tokens(wide, positions=4096, max_rows=2, memory_share=0.9)
    with pytest.raises(TextTooLong) as refused:
        engine.add("long", text, max_tokens=20)
    assert "2048" in refused.value.message
    assert engine.scheduler.idle


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exaggeration", float("nan")),
        ("exaggeration", -0.1),
        ("cfg_weight", float("inf")),
        ("cfg_weight", -1.0),
        ("temperature", -1.0),
        ("min_p", 1.5),
        ("top_p", float("nan")),
        ("top_k", -1),
        ("top_k", 2**63),
        ("top_k", 1.5),
        ("temperature", "hot"),
        ("temperature", None),
        ("exaggeration", True),
        ("seed", 1.5),
        ("seed", True),
        ("repetition_penalty", 0.0),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_a_parameter_out_of_range_is_named(tiny_engine: TokenEngine, name: str, value: object) -> None:
    """One of another type is, too."""
    with pytest.raises(InvalidValue) as refused:
        tiny_engine.add("odd", "Hello.", parameters=SamplingParameters(**{name: value}))  # type: ignore[arg-type]  # wrong on purpose
    assert refused.value.param == name


@pytest.mark.parametrize("limit", [0, -5, 4100, 10**9, 1.5, True, "5"])
def test_max_tokens_out_of_range_is_named(tiny_engine: TokenEngine, limit: int) -> None:
    """A fraction would never be reached."""
    with pytest.raises(InvalidValue) as refused:
        tiny_engine.add("odd", "Hello.", max_tokens=limit)
    assert refused.value.param == "max_tokens"


@pytest.mark.parametrize(
    ("speaker", "tokens", "param"),
    [
        (torch.zeros(255), torch.zeros(1, 150, dtype=torch.int64), "speaker"),
        (torch.full((1, 256), torch.nan), torch.zeros(1, 150, dtype=torch.int64), "speaker"),
        (torch.full((1, 256), 1e300, dtype=torch.float64), torch.zeros(1, 150, dtype=torch.int64), "speaker"),
        (torch.zeros(256, dtype=torch.int64), torch.zeros(1, 150, dtype=torch.int64), "speaker"),
        ("speaker", torch.zeros(1, 150, dtype=torch.int64), "speaker"),
        (torch.zeros(1, 256), torch.zeros(1, 151, dtype=torch.int64), "prompt_tokens"),
        (torch.zeros(1, 256), torch.zeros(2, 75, dtype=torch.int64), "prompt_tokens"),
        (torch.zeros(1, 256), torch.zeros(1, 0, dtype=torch.int64), "prompt_tokens"),
        (torch.zeros(1, 256), torch.zeros(1, 150), "prompt_tokens"),
        (torch.zeros(1, 256), torch.zeros(1, 150, dtype=torch.complex64), "prompt_tokens"),
        (torch.zeros(1, 256), torch.full((1, 150), 8194), "prompt_tokens"),
        (torch.zeros(1, 256), torch.full((1, 150), -1), "prompt_tokens"),
        (torch.zeros(1, 256), torch.tensor(5), "prompt_tokens"),
        (torch.zeros(1, 256), None, "prompt_tokens"),
    ],
)
def test_a_prompt_of_the_wrong_shape_is_refused(
    tiny_engine: TokenEngine, speaker: object, tokens: object, param: str
) -> None:
    """Before it reaches the device, where an id without an embedding would take everything down."""
    with pytest.raises(InvalidValue) as refused:
        SpeakerPrompt.checked(speaker, tokens, tiny_engine.config)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("positions", 1),
        ("positions", 10**9),
        ("max_rows", 0),
        ("max_rows", 2.0),
        ("memory_share", 0),
        ("memory_share", float("nan")),
        ("memory_share", 2),
        ("max_waiting", 0),
        ("precision", "fp16"),
        ("device", "cuda:1"),
        ("attention", "flash"),
    ],
)
def test_an_option_out_of_range_is_named(name: str, value: object) -> None:
    """Nothing is loaded first."""
    with pytest.raises(InvalidSettings) as refused:
        EngineOptions(**{name: value})  # type: ignore[arg-type]  # wrong on purpose
    assert refused.value.param == name


def test_a_lone_surrogate_is_refused(tiny_engine: TokenEngine) -> None:
    """It is no character, and the tokenizer would fail at it."""
    with pytest.raises(InvalidValue) as refused:
        tiny_engine.add("half", "a\ud800b")
    assert refused.value.param == "input"
