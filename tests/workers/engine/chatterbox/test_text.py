"""Text to tokens: what upstream makes of it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chatterbox.models.tokenizers import EnTokenizer
from chatterbox.tts import punc_norm
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet.errors import NothingToSpeak, TextTooLong
from fleet.startup_errors import ModelInvalid
from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.text import TextTokenizer, normalise

RARE = ["...", "…", ":", " - ", ";", "—", "–", " ,", "“", "”", "‘", "’", ".", "!", "?", "-", ",", '"', "'"]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\x1c"]
WORDS = ["hello", "World", "it's", "ünder", "ßtraße", "ǆ", "ﬁne", "42", "你好", "สวัสดี", "🙂", "[SPACE]", "[STOP]"]
texts = st.lists(
    st.one_of(
        st.sampled_from(RARE),
        st.sampled_from(SPACES),
        st.sampled_from(WORDS),
        st.text(st.characters(codec="utf-8"), max_size=3),
    ),
    max_size=25,
).map("".join)


@pytest.fixture(scope="module")
def path(tiny: Path) -> Path:
    return tiny / ENGLISH.tokenizer


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> TextTokenizer:
    return open_tokenizer(path)


@pytest.fixture(scope="module")
def upstream_tokenizer(path: Path) -> Any:
    return EnTokenizer(str(path))


def open_tokenizer(path: Path, *, vocabulary: int = 704, start: int = 255, stop: int = 0) -> TextTokenizer:
    return TextTokenizer(path, vocabulary=vocabulary, start=start, stop=stop)


@given(text=texts)
@example(text=" hello")
@example(text="… ...")
@example(text="a : - ; — , ")
@settings(max_examples=600, deadline=None)
def test_text_is_normalised_as_upstream_does(text: str) -> None:
    """Any text with content becomes what upstream's `punc_norm` makes of it; white space alone becomes nothing."""
    assert normalise(text) == (punc_norm(text) if text.split() else "")


@given(text=texts)
@settings(max_examples=400, deadline=None)
def test_tokens_are_upstreams(tokenizer: TextTokenizer, upstream_tokenizer: Any, text: str) -> None:
    """The token ids are those of upstream's English tokenizer, or there is nothing to speak."""
    expected = upstream_tokenizer.encode(punc_norm(text)) if any(map(str.isalnum, text)) else []
    if expected:
        assert tokenizer.encode(text, longest=10_000) == expected
    else:
        with pytest.raises(NothingToSpeak):
            tokenizer.encode(text, longest=10_000)


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000", ".", "...", "—!?", '“”,;:"', "🙂", "\u200b", "\x00"])
def test_nothing_to_speak(tokenizer: TextTokenizer, text: str) -> None:
    """Text without a letter or a digit is refused, naming the field."""
    with pytest.raises(NothingToSpeak) as caught:
        tokenizer.encode(text, longest=100)
    assert caught.value.param == "input"


def test_too_long(tokenizer: TextTokenizer) -> None:
    """A text of exactly as many tokens as fit is taken; with one fewer allowed, the refusal names both numbers."""
    text = "The quick brown fox jumps over the lazy dog."
    count = len(tokenizer.encode(text, longest=1000))
    assert len(tokenizer.encode(text, longest=count)) == count
    with pytest.raises(TextTooLong) as caught:
        tokenizer.encode(text, longest=count - 1)
    assert caught.value.param == "input"
    assert f"{count} tokens" in caught.value.message
    assert str(count - 1) in caught.value.message


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"hello",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b"7",
        b'{"version": "1.0", "model": null}',
        b'{"version": "1.0", "model": {"type": "Unheard", "vocab": {}}}',
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}',
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}',
        b"[" * 100_000,
    ],
)
def test_garbage(tmp_path: Path, contents: bytes) -> None:
    """What is no tokenizer is refused by name."""
    path = tmp_path / ENGLISH.tokenizer
    path.write_bytes(contents)
    with pytest.raises(ModelInvalid, match=str(path)):
        open_tokenizer(path)


def test_truncated(path: Path, tmp_path: Path) -> None:
    """A tokenizer cut anywhere is refused by name."""
    whole, cut = path.read_bytes(), tmp_path / ENGLISH.tokenizer
    for length in range(0, len(whole.rstrip()), 97):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelInvalid, match=str(cut)):
            open_tokenizer(cut)


def renamed(path: Path, directory: Path, **names: str) -> Path:
    """A copy of the tokenizer with other names for some of its special tokens."""
    found = json.loads(path.read_text())
    vocabulary = found["model"]["vocab"]
    for old, new in names.items():
        vocabulary[f"[{new}]"] = vocabulary.pop(f"[{old}]")
        for token in found["added_tokens"]:
            token["content"] = f"[{new}]" if token["content"] == f"[{old}]" else token["content"]
    changed = directory / ENGLISH.tokenizer
    changed.write_text(json.dumps(found))
    return changed


@pytest.mark.parametrize("token", ["START", "STOP"])
def test_without_a_special_token(path: Path, tmp_path: Path, token: str) -> None:
    """A tokenizer without the start or the stop token is refused, naming the token."""
    changed = renamed(path, tmp_path, **{token: "OTHER"})
    with pytest.raises(ModelInvalid, match=rf"{changed}: the token \[{token}\] is None"):
        open_tokenizer(changed)


@pytest.mark.parametrize(("ids", "token"), [({"start": 254}, "START"), ({"stop": 1}, "STOP")])
def test_special_tokens_elsewhere(path: Path, ids: dict[str, int], token: str) -> None:
    """A tokenizer whose start or stop token has another id than the model's is refused, naming the token."""
    with pytest.raises(ModelInvalid, match=rf"{path}: the token \[{token}\] is \d+, not \d+"):
        open_tokenizer(path, **ids)


def test_more_tokens_than_the_model_knows(path: Path) -> None:
    """A tokenizer with one token more than the model has embeddings is refused, naming the token."""
    with pytest.raises(ModelInvalid, match=f"{path}: token 703 has no embedding; the model knows 703"):
        open_tokenizer(path, vocabulary=703)


def test_an_added_token_beyond_the_vocabulary(path: Path, tmp_path: Path) -> None:
    """Tokens that stand beside the model's own vocabulary are counted too."""
    found = json.loads(path.read_text())
    found["added_tokens"].append(found["added_tokens"][0] | {"id": 704, "content": "[LAUGH]"})
    changed = tmp_path / ENGLISH.tokenizer
    changed.write_text(json.dumps(found))
    with pytest.raises(ModelInvalid, match="token 704 has no embedding"):
        open_tokenizer(changed)
