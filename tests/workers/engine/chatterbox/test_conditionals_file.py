"""What a file of conditionals may do to the loader: be cut, garbled, of another structure, or hold code."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.errors import InvalidValue
from fleet.startup_errors import ModelInvalid
from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.prompt import SpeakerPrompt
from workers.engine.chatterbox.t3 import read_config
from workers.engine.chatterbox.token_engine import TokenEngine
from workers.engine.chatterbox.weights import TensorFile, read_conditionals

in_shared_directories = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass
class Canary:
    """Unpickled as code would have it, it leaves a file."""

    path: Path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_conditionals_run_no_code(tmp_path: Path, zipped: bool) -> None:
    """A pickle with code in it is refused and its code not run, in both of torch's formats."""
    path, canary = tmp_path / ENGLISH.conditionals, tmp_path / "canary"
    contents = {"t3": {"speaker_emb": Canary(canary)}, "gen": {}}
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelInvalid, match=str(path)):
        read_conditionals(path)
    assert not canary.exists()
    torch.load(path, weights_only=False)  # what an unguarded reader would do
    assert canary.exists()


def test_a_bare_pickle_runs_no_code(tmp_path: Path) -> None:
    """The same of a pickle that torch did not write."""
    path, canary = tmp_path / ENGLISH.conditionals, tmp_path / "canary"
    path.write_bytes(pickle.dumps({"t3": Canary(canary), "gen": {}}))
    with pytest.raises(ModelInvalid, match=str(path)):
        read_conditionals(path)
    assert not canary.exists()


def test_truncated_conditionals(tiny: Path, tmp_path: Path) -> None:
    """Conditionals cut anywhere are refused by name."""
    whole, path = (tiny / ENGLISH.conditionals).read_bytes(), tmp_path / ENGLISH.conditionals

    @in_shared_directories
    @given(st.integers(0, len(whole) - 1))
    def cut(at: int) -> None:
        path.write_bytes(whole[:at])
        with pytest.raises(ModelInvalid, match=str(path)):
            read_conditionals(path)

    cut()


@given(changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=6), zipped=...)
@settings(in_shared_directories, max_examples=200)
def test_changed_conditionals(tmp_path: Path, changes: list[tuple[int, int]], zipped: bool) -> None:
    """Whatever bytes of the conditionals are changed, they are read or refused as invalid."""
    path = tmp_path / ENGLISH.conditionals
    torch.save({"t3": {"a": torch.ones(3)}, "gen": {}}, path, _use_new_zipfile_serialization=zipped)
    contents = bytearray(path.read_bytes())
    for place, value in changes:
        contents[place % len(contents)] = value
    path.write_bytes(contents)
    try:
        found = read_conditionals(path)
    except ModelInvalid as error:
        assert str(path) in error.message  # noqa: PT017 - that none is raised is right too
    else:
        assert isinstance(found["t3"], dict)


@pytest.mark.parametrize(
    "contents",
    [
        [],
        torch.zeros(3),
        {},
        {"t3": {}},
        {"gen": {}},
        {"t3": torch.zeros(3), "gen": {}},
        {"t3": {}, "gen": None},
        {"t3": {"speaker_emb": torch.zeros(1, 256).to_sparse()}, "gen": {}},
        {"t3": {"speaker_emb": torch.zeros(1, 256, device="meta")}, "gen": {}},
        {"t3": {}, "gen": {"prompt_token": torch.zeros(1, 5, dtype=torch.complex64)}},
        {"t3": {}, "gen": {"embedding": torch.zeros(1, 192).to(torch.float8_e4m3fn)}},
    ],
    ids=str,
)
def test_conditionals_of_another_structure(tmp_path: Path, contents: object) -> None:
    """What does not hold plain tensors for both halves of the model is refused by name."""
    path = tmp_path / ENGLISH.conditionals
    torch.save(contents, path)
    with pytest.raises(ModelInvalid, match=str(path)):
        read_conditionals(path)


SPEAKER, TOKENS = torch.zeros(1, 256), torch.zeros(1, 150, dtype=torch.int64)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"speaker_emb": None}, "speaker"),
        ({"speaker_emb": 0.5}, "speaker"),
        ({"speaker_emb": SPEAKER[:, 1:]}, "speaker"),
        ({"speaker_emb": SPEAKER.long()}, "speaker"),
        ({"speaker_emb": SPEAKER * float("nan")}, "speaker"),
        ({"cond_prompt_speech_tokens": None}, "prompt_tokens"),
        ({"cond_prompt_speech_tokens": [1, 2]}, "prompt_tokens"),
        ({"cond_prompt_speech_tokens": TOKENS.float()}, "prompt_tokens"),
        ({"cond_prompt_speech_tokens": TOKENS[:, :0]}, "prompt_tokens"),
        ({"cond_prompt_speech_tokens": torch.cat([TOKENS, TOKENS], 1)}, "prompt_tokens"),
        ({"cond_prompt_speech_tokens": TOKENS.reshape(2, 75)}, "prompt_tokens"),
        ({"cond_prompt_speech_tokens": torch.tensor(3)}, "prompt_tokens"),
        ({"cond_prompt_speech_tokens": TOKENS - 1}, "prompt_tokens"),
        ({"cond_prompt_speech_tokens": TOKENS + 8194}, "prompt_tokens"),
    ],
    ids=str,
)
def test_conditionals_of_another_model(tiny: Path, tmp_path: Path, part: dict[str, object], param: str) -> None:
    """T3's conditionals are checked against the model before they are used."""
    path = tmp_path / ENGLISH.conditionals
    torch.save({"t3": {"speaker_emb": SPEAKER, "cond_prompt_speech_tokens": TOKENS, **part}, "gen": {}}, path)
    found = read_conditionals(path)["t3"]
    with pytest.raises(InvalidValue) as caught:
        SpeakerPrompt.checked(
            found["speaker_emb"], found["cond_prompt_speech_tokens"], read_config(TensorFile(tiny / ENGLISH.t3))
        )
    assert caught.value.param == param


def test_a_built_in_voice_that_does_not_fit_is_refused(tiny: Path, tmp_path: Path) -> None:
    """The message names the file."""
    for name in ENGLISH.all:
        (tmp_path / name).touch()
    for name in (ENGLISH.t3, ENGLISH.tokenizer):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    found = torch.load(tiny / ENGLISH.conditionals, weights_only=True)
    found["t3"]["speaker_emb"] = torch.zeros(1, 100)
    torch.save(found, tmp_path / ENGLISH.conditionals)
    with pytest.raises(ModelInvalid, match=ENGLISH.conditionals):
        TokenEngine.open(tmp_path)
