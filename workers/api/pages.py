"""Long lists, page by page: what is changed in between neither repeats nor hides what is not."""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from fleet.errors import InvalidValue
from fleet.library_contract import LARGEST_PAGE

Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Most entries on one page.")]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next` of the page before.")]
Search = Annotated[str | None, Query(max_length=128, description="Part of a name, an alias or a description.")]

Entry = TypeVar("Entry")


def page_of(
    entries: Sequence[Entry], key: Callable[[Entry], str], *, limit: int, cursor: str | None
) -> tuple[Sequence[Entry], str | None]:
    """The entries after the cursor, which names the last one seen, and the cursor of the next page.

    `entries` are sorted by `key`. Raises `InvalidValue` for a cursor that no page had.
    """
    first = 0
    if cursor is not None:
        first = bisect_right(entries, _read(cursor), key=key)
    page = entries[first : first + limit]
    more = first + limit < len(entries)
    return page, _write(key(page[-1])) if more else None


def _write(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _read(cursor: str) -> str:
    try:
        return base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise InvalidValue("the cursor is not one that a page has given", param="cursor") from None
