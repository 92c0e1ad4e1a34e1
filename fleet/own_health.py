"""What the servers that `scripts/up` has started tell of themselves."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fleet.up_plan import HOST

M = TypeVar("M", bound=BaseModel)

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Past whatever proxy the environment names: our own children are asked directly."""


def health(port: int, model: type[M]) -> M | None:
    """What a server tells of itself, keys or no keys."""
    try:
        with _DIRECT.open(f"http://{HOST}:{port}/health", timeout=2) as answer:
            return model.model_validate(json.load(answer))
    except (OSError, urllib.error.URLError, ValidationError, ValueError):
        return None
