"""Text as the model was trained to read it: punctuation normalised, then BPE tokens."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from fleet.errors import InvalidValue, NothingToSpeak, TextTooLong
from fleet.startup_errors import ModelInvalid

_SPACE = "[SPACE]"
_START, _STOP = "[START]", "[STOP]"

_REPLACEMENTS = (
    ("...", ", "),
    ("\u2026", ", "),
    (":", ","),
    (" - ", ", "),
    (";", ", "),
    ("\u2014", "-"),
    ("\u2013", "-"),
    (" ,", ","),
    ("\u201c", '"'),
    ("\u201d", '"'),
    ("\u2018", "'"),
    ("\u2019", "'"),
)
"""Rare punctuation and what stands for it, applied in this order, since the results of one feed the next. The order
and the pairs are `punc_norm` of chatterbox-tts 0.1.7."""

_LONGEST_TOKEN = 64
"""Characters; more than any token of the vocabulary stands for, so that what can never fit is not tokenized."""

_ENDINGS = (".", "!", "?", "-", ",")


def normalise(text: str) -> str:
    """Text with single spaces, a capital at its start, plain punctuation and an ending.

    The same as upstream's `punc_norm` but for text without content, which stays empty here instead of becoming a
    request for text.
    """
    text = text[:1].upper() + text[1:] if text[:1].islower() else text
    text = " ".join(text.split())
    if not text:
        return ""
    for rare, plain in _REPLACEMENTS:
        text = text.replace(rare, plain)
    text = text.rstrip(" ")
    return text if text.endswith(_ENDINGS) else text + "."


class TextTokenizer:
    """Upstream's `tokenizer.json`.

    Raises `ModelInvalid` when the file is no tokenizer, lacks the special tokens the model needs, or has more tokens
    than the model has embeddings.
    """

    def __init__(self, path: Path, *, vocabulary: int, start: int, stop: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for whatever is wrong with the file
            raise ModelInvalid(f"{path} is not a readable tokenizer: {error}") from error
        for token, expected in ((_START, start), (_STOP, stop)):
            found = self._tokenizer.token_to_id(token)
            if found != expected:
                raise ModelInvalid(f"{path}: the token {token} is {found}, not {expected}")
        largest = max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        if largest >= vocabulary:
            raise ModelInvalid(f"{path}: token {largest} has no embedding; the model knows {vocabulary}")

    def encode(self, text: str, *, longest: int) -> list[int]:
        """Token ids of normalised text, without the start and stop tokens.

        Raises `NothingToSpeak` when there is nothing to say, `TextTooLong` for more than `longest` tokens and
        `InvalidValue` for a lone surrogate. Special tokens written in a text act as such, as they do upstream.
        """
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidValue("the text holds half a surrogate pair, which is no character", param="input")
        if len(text) > longest * _LONGEST_TOKEN:
            raise TextTooLong(
                f"the text is {len(text)} characters long; {longest} tokens fit into one segment", param="input"
            )
        text = normalise(text)
        if not any(character.isalnum() for character in text):
            raise NothingToSpeak("the text holds nothing that can be spoken", param="input")
        ids: list[int] = self._tokenizer.encode(text.replace(" ", _SPACE)).ids
        if not ids:
            raise NothingToSpeak("the text holds nothing that this model can speak", param="input")
        if len(ids) > longest:
            raise TextTooLong(f"the text is {len(ids)} tokens long; {longest} fit into one segment", param="input")
        return ids
