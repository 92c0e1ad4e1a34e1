"""The models of a fleet whose workers speak with several: each asked of one of its workers, and told as one list."""

from __future__ import annotations

import asyncio

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


class Models:
    """Answers the routes that list models."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def answers(self, path: str) -> bool:
        return path in (_MODELS, _AUDIO_MODELS) or path.startswith(f"{_MODELS}/")

    async def __call__(self, path: str, authorization: str | None) -> Response:
        """Raises `NotReady` while no worker serves, and `ModelNotFound`."""
        models = await self._models(authorization)
        if path == _MODELS:
            return _json(ModelList(data=models))
        if path == _AUDIO_MODELS:
            return _json(AudioModelList(models=[AudioModel(id=model.id) for model in models]))
        wanted = path.removeprefix(f"{_MODELS}/")
        for model in models:
            if model.id == wanted:
                return _json(model)
        known = ", ".join(model.id for model in models)
        raise ModelNotFound(f"there is no model {wanted!r}; there are: {known}", param="model")

    async def _models(self, authorization: str | None) -> list[ModelSummary]:
        """By id, in the pool's order; a worker that does not answer is left out."""
        workers = self._pool.models()
        if not workers:
            raise self._pool.not_ready()
        headers = {} if authorization is None else {"authorization": authorization}
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as client:
            lists = await asyncio.gather(*(_listed(client, worker) for worker in workers))
        return list({model.id: model for listed in reversed(lists) for model in reversed(listed)}.values())[::-1]


async def _listed(client: aiohttp.ClientSession, worker: Worker) -> list[ModelSummary]:
    try:
        async with client.get(worker.url + _MODELS) as answer:
            return ModelList.model_validate_json(await answer.read()).data
    except (aiohttp.ClientError, TimeoutError, ConnectionError, ValidationError) as error:
        log.warning("models_not_listed", worker=worker.name, error=str(error) or type(error).__name__)
        return []


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")
