"""The models of a fleet whose workers speak with several: each asked of one of its workers, and told as one list."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import TypeVar

import aiohttp
import structlog
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from balancer.pool import WorkerPool
from balancer.worker import Worker
from fleet.contract import AudioModel, AudioModelList, ModelList, ModelSummary
from fleet.errors import ModelNotFound

log = structlog.get_logger()

_MODELS, _AUDIO_MODELS = "/v1/models", "/v1/audio/models"
_TIMEOUT_S = 3.0

L = TypeVar("L", ModelList, AudioModelList)
M = TypeVar("M", ModelSummary, AudioModel)


class Models:
    """Answers the routes that list models."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def answers(self, path: str) -> bool:
        return path in (_MODELS, _AUDIO_MODELS) or path.startswith(f"{_MODELS}/")

    async def __call__(self, path: str, authorization: str | None) -> Response:
        """Raises `NotReady` while no worker serves, and `ModelNotFound`."""
        if path == _AUDIO_MODELS:  # which is asked without a key, as its workers must be
            audio = await self._of_each(_AUDIO_MODELS, AudioModelList, authorization)
            return _json(AudioModelList(models=_merged([listed.models for listed in audio])))
        lists = await self._of_each(_MODELS, ModelList, authorization)
        models = _merged([listed.data for listed in lists])
        if path == _MODELS:
            return _json(ModelList(data=models))
        wanted = path.removeprefix(f"{_MODELS}/")
        for model in models:
            if model.id == wanted:
                return _json(model)
        known = ", ".join(model.id for model in models)
        raise ModelNotFound(f"there is no model {wanted!r}; there are: {known}", param="model")

    async def _of_each(self, path: str, kind: type[L], authorization: str | None) -> list[L]:
        """What one worker of each model answers, in the pool's order; one that does not answer is left out."""
        workers = self._pool.models()
        if not workers:
            raise self._pool.not_ready()
        headers = {} if authorization is None else {"authorization": authorization}
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as client:
            answers = await asyncio.gather(*(_listed(client, worker, path, kind) for worker in workers))
        return [answer for answer in answers if answer is not None]


async def _listed(client: aiohttp.ClientSession, worker: Worker, path: str, kind: type[L]) -> L | None:
    try:
        async with client.get(worker.url + path) as answer:
            return kind.model_validate_json(await answer.read())
    except (aiohttp.ClientError, TimeoutError, ConnectionError, ValidationError) as error:
        log.warning("models_not_listed", worker=worker.name, error=str(error) or type(error).__name__)
        return None


def _merged(lists: list[list[M]]) -> list[M]:
    """By id, the first of each."""
    by_id: dict[str, M] = {}
    for model in chain.from_iterable(lists):
        by_id.setdefault(model.id, model)
    return list(by_id.values())


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")
