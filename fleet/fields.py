"""The kinds of fields that the wire contract is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr
from pydantic_core import PydanticUseDefault


def _encodable(text: str) -> str:
    """Refuse half of a surrogate pair, which JSON can escape and UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, without lone surrogates") from None
    return text


def _holds_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must hold text to speak, not only white space")
    return text


def _default_if_null(value: Any) -> Any:
    if value is None:
        raise PydanticUseDefault
    return value


Unicode = Annotated[StrictStr, AfterValidator(_encodable)]
Text = Annotated[Unicode, AfterValidator(_holds_text)]
Name = Annotated[Unicode, Field(min_length=1, max_length=128)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NullIsDefault = BeforeValidator(_default_if_null)
"""Of a field that has a default: null is as good as left out."""


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
