"""What Schemathesis must be told of this API: how bare sound is sent."""

from __future__ import annotations

import schemathesis


@schemathesis.serializer("audio/pcm")
def as_it_is(_: object, value: object) -> bytes:
    """The samples; what the generator makes that are no bytes is sent as its text."""
    return value if isinstance(value, bytes) else str(value).encode()
