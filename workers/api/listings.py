"""What there is to choose from: models and voices, in the shapes OpenAI's clients and Open WebUI read."""

from __future__ import annotations

from fastapi import APIRouter

from fleet.contract import AudioModel, AudioModelList, ModelList, ModelSummary, VoiceList, VoiceSummary
from fleet.errors import ModelNotFound
from workers.api.state import Worker, WorkerState
from workers.resolution import MODEL_ALIASES

router = APIRouter(tags=["listings"])


def _models(worker: Worker) -> list[ModelSummary]:
    names = (worker.engine.capabilities.model, *MODEL_ALIASES)
    return [ModelSummary(id=name, created=int(worker.metrics.started_at)) for name in names]


@router.get("/v1/models")
async def list_models(worker: WorkerState) -> ModelList:
    """The model that runs here, and the names it answers to."""
    return ModelList(data=_models(worker))


@router.get("/v1/models/{model_id}")
async def get_model(model_id: str, worker: WorkerState) -> ModelSummary:
    """One model by name."""
    models = {model.id: model for model in _models(worker)}
    if model_id not in models:
        raise ModelNotFound(f"there is no model {model_id!r}; there are: {', '.join(models)}", param="model")
    return models[model_id]


@router.get("/v1/audio/models")
async def list_audio_models(worker: WorkerState) -> AudioModelList:
    """The same models, as Open WebUI asks for them."""
    return AudioModelList(models=[AudioModel(id=model.id) for model in _models(worker)])


@router.get("/v1/audio/voices")
async def list_voices(worker: WorkerState) -> VoiceList:
    """The voices, the default one first."""
    library = await worker.library.current()
    return VoiceList(
        voices=[
            VoiceSummary(
                id=voice.id,
                name=voice.name,
                description=voice.description,
                language=voice.language,
                aliases=list(voice.aliases),
            )
            for voice in library.voices
        ]
    )
