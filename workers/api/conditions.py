"""Optimistic concurrency: the version of a thing as its ETag, and the one a caller means to change as If-Match."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header

from fleet.errors import InvalidValue

_ENTITY_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
"""RFC 9110, 8.8.3. A proxy that compresses an answer makes its tag a weak one."""

_OURS = re.compile(r"[0-9]{1,9}")
_NO_VERSION = -1


def entity_tag(version: int) -> str:
    return f'"{version}"'


async def _wanted_version(
    if_match: Annotated[
        str | None,
        Header(description="The ETag that was read: the change is refused with 412 if it is another by now."),
    ] = None,
) -> int | None:
    """None where the caller takes any version. Raises `InvalidValue` for what is not one tag."""
    if if_match is None or if_match.strip() == "*":
        return None
    tag = _ENTITY_TAG.fullmatch(if_match.strip())
    if tag is None:
        raise InvalidValue('If-Match must be one ETag as it was answered, such as "3", or *', param="If-Match")
    return int(tag[1]) if _OURS.fullmatch(tag[1]) else _NO_VERSION


WantedVersion = Annotated[int | None, Depends(_wanted_version)]
