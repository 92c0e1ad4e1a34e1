#!/usr/bin/env python3
"""Write webui/openapi.json, from which the page's types are made; `--check` only says whether it is up to date."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

import fleet
from fleet.contract import BalancerHealth, FleetStats, WorkerState
from fleet.speech_contract import SpeechAudioDelta, SpeechAudioDone, SpeechSegmentDone, SpeechSegments
from workers.api import emotions, encode, events, generation, listings, speech, system, voices

DOCUMENT = Path(__file__).resolve().parent.parent / "webui" / "openapi.json"

_BESIDE = (
    FleetStats,
    WorkerState,
    BalancerHealth,
    SpeechAudioDelta,
    SpeechAudioDone,
    SpeechSegments,
    SpeechSegmentDone,
)
"""What the balancer answers, and what events hold: no route of a worker names these."""

_PLACE = "#/components/schemas/{model}"
_WORKER = {"name": "worker", "in": "path", "required": True, "schema": {"type": "string"}}


def document() -> dict[str, Any]:
    """The workers' routes that a page asks, and the balancer's own."""
    api = FastAPI(title="Chatterbox Fleet", version=fleet.__version__)
    for module in (speech, generation, encode, events, voices, emotions, listings, system):
        api.include_router(module.router)
    found = api.openapi()
    _, models = models_json_schema([(model, "serialization") for model in _BESIDE], ref_template=_PLACE)
    found["components"]["schemas"].update(models["$defs"])
    found["paths"]["/health"]["get"] = _operation("BalancerHealth")
    found["paths"]["/stats"] = found["paths"]["/stats/events"] = {"get": _operation("FleetStats")}
    for action in ("drain", "resume"):
        found["paths"][f"/workers/{{worker}}/{action}"] = {
            "post": {**_operation("WorkerState"), "parameters": [_WORKER]}
        }
    return found


def _operation(model: str) -> dict[str, Any]:
    def answer(name: str, description: str) -> dict[str, Any]:
        schema = {"$ref": _PLACE.format(model=name)}
        return {"description": description, "content": {"application/json": {"schema": schema}}}

    return {"responses": {"200": answer(model, "As it is now."), "default": answer("ErrorBody", "Refused.")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    written = json.dumps(document(), indent=1, sort_keys=True) + "\n"
    if not parser.parse_args().check:
        DOCUMENT.write_text(written)
    elif DOCUMENT.read_text() != written:
        sys.exit(f"{DOCUMENT} is not up to date: run scripts/make_openapi.py, then npm run types in webui/")


if __name__ == "__main__":
    main()
