"""Optimistic concurrency: the version of a thing as its ETag, and the one a caller means to change as If-Match."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header

from fleet.errors import InvalidValue

_ENTITY_TAG = re.compile(r'(?:W/)?"([0-9]{1,9})"')


def entity_tag(version: int) -> str:
    return f'"{version}"'


async def _wanted_version(
    if_match: Annotated[
        str | None,
        Header(description="The ETag that was read: the change is refused with 412 if it is another by now."),
    ] = None,
) -> int | None:
    """None where the caller takes any version. Raises `InvalidValue` for what no answer of ours can have told."""
    if if_match is None or if_match.strip() == "*":
        return None
    tag = _ENTITY_TAG.fullmatch(if_match.strip())
    if tag is None:
        raise InvalidValue('If-Match must be an ETag as it was answered, such as "3", or *', param="If-Match")
    return int(tag[1])


WantedVersion = Annotated[int | None, Depends(_wanted_version)]
