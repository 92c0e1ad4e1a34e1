"""What a checkpoint's files may do to the loader: be missing, cut, garbled, of other sizes, or hold code."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from fleet.startup_errors import ModelInvalid, ModelMissing
from tests.workers.engine.chatterbox.checkpoints import open_tokens
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.t3 import read_config
from workers.engine.chatterbox.weights import TensorFile, find_checkpoint

ROOT = Path(__file__).parents[4]
UNUSED = {"tfmr.embed_tokens.weight", "text_head.weight"}
LAYER = (
    "input_layernorm.weight",
    *(f"self_attn.{part}_proj.weight" for part in "qkvo"),
    "post_attention_layernorm.weight",
    *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
)
PERCEIVER = (
    "pre_attention_query",
    *(f"attn.{part}.{leaf}" for part in ("norm", "to_q", "to_k", "to_v", "proj_out") for leaf in ("weight", "bias")),
)
TENSORS = (
    "text_emb.weight",
    "text_pos_emb.emb.weight",
    "speech_emb.weight",
    "speech_pos_emb.emb.weight",
    "speech_head.weight",
    "tfmr.norm.weight",
    "cond_enc.spkr_enc.weight",
    "cond_enc.spkr_enc.bias",
    "cond_enc.emotion_adv_fc.weight",
    *(f"cond_enc.perceiver.{name}" for name in PERCEIVER),
    *(f"tfmr.layers.{number}.{name}" for number in (0, 1) for name in LAYER),
)
"""All that the engine reads of a tiny T3."""

MEASURED = {
    "text_emb.weight",
    "text_pos_emb.emb.weight",
    "speech_pos_emb.emb.weight",
    "speech_head.weight",
    "tfmr.layers.0.mlp.gate_proj.weight",
}
"""Tensors whose number of rows is one of the model's sizes, so that another number is another model."""

in_shared_directories = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="session")
def weights(tiny: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(tiny / ENGLISH.t3)
    return found


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint's other files beside a T3 still to be written."""
    for name in (ENGLISH.tokenizer, ENGLISH.conditionals):
        shutil.copy(tiny / name, tmp_path)
    return tmp_path


def refusal(directory: Path) -> str:
    with pytest.raises(ModelInvalid) as caught:
        open_tokens(directory, max_rows=2, positions=64)
    assert str(directory / ENGLISH.t3) in caught.value.message
    return caught.value.message


def test_no_directory(tmp_path: Path) -> None:
    """A path without a directory is named."""
    with pytest.raises(ModelMissing, match=f"{tmp_path}/nowhere is not a directory"):
        find_checkpoint(tmp_path / "nowhere")


def test_missing_files(tmp_path: Path) -> None:
    """All files that a directory lacks are named, and no others."""
    (tmp_path / ENGLISH.t3).touch()
    (tmp_path / ENGLISH.tokenizer).mkdir()
    with pytest.raises(ModelMissing) as caught:
        find_checkpoint(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert caught.value.message.endswith("lacks s3gen.safetensors, ve.safetensors, tokenizer.json, conds.pt")


@pytest.mark.parametrize("kind", [str, Path])
def test_whole_directory(tiny: Path, tmp_path: Path, kind: Callable[[Path], str | Path]) -> None:
    """A directory with upstream's five files is the checkpoint."""
    directory = shutil.copytree(tiny, tmp_path / "whole")
    for name in (ENGLISH.s3gen, ENGLISH.voice_encoder):
        (directory / name).touch()
    assert find_checkpoint(kind(directory)) == directory


def test_missing_t3_file(tmp_path: Path) -> None:
    """A tensor file that has gone since is missing, not invalid."""
    with pytest.raises(ModelMissing, match=str(tmp_path / ENGLISH.t3)):
        TensorFile(tmp_path / ENGLISH.t3)


@pytest.mark.parametrize("region", ["prefix", "header", "data", "last byte"])
def test_truncated(tiny: Path, tmp_path: Path, region: str) -> None:
    """A T3 file cut anywhere is refused, naming the first tensor that is not whole once the list of them is."""
    whole = (tiny / ENGLISH.t3).read_bytes()
    data = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:data])
    regions = {
        "prefix": range(8),
        "header": range(8, data),
        "data": range(data, len(whole)),
        "last byte": range(len(whole) - 1, len(whole)),
    }
    path = tmp_path / ENGLISH.t3

    @in_shared_directories
    @given(st.sampled_from(regions[region]))
    def cut(at: int) -> None:
        path.write_bytes(whole[:at])
        with pytest.raises(ModelInvalid) as caught:
            TensorFile(path)
        assert str(path) in caught.value.message
        if at >= data:
            ends = {entry["data_offsets"][1]: name for name, entry in header.items() if name != "__metadata__"}
            broken = ends[min(end for end in ends if end > at - data)]
            assert f"the tensor {broken} is not whole" in caught.value.message
        else:
            assert "ends before its list of tensors does" in caught.value.message

    cut()


def laid_out(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file of this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: Any = 0, end: Any = 8, dtype: Any = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


GARBAGE = {
    "no header": laid_out(b""),
    "not JSON": laid_out(b"hello there"),
    "not UTF-8": laid_out(b"\xff\xfe{}"),
    "too deep": laid_out(b"[" * 200_000),
    "too large a number": laid_out(b'{"a": ' + b"9" * 5000 + b"}"),
    "a list": laid_out([1, 2]),
    "a number": laid_out(7),
    "an entry that is a number": laid_out({"a": 7}),
    "an entry that is a list": laid_out({"a": [1]}),
    "an entry that is null": laid_out({"a": None}),
    "an empty entry": laid_out({"a": {}}),
    "no shape": laid_out({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)),
    "no dtype": laid_out({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "one offset": laid_out({"a": entry() | {"data_offsets": [8]}}, bytes(8)),
    "three offsets": laid_out({"a": entry() | {"data_offsets": [0, 8, 9]}}, bytes(8)),
    "offsets by name": laid_out({"a": entry() | {"data_offsets": {"start": 0, "end": 8}}}, bytes(8)),
    "an offset in words": laid_out({"a": entry(end="8")}, bytes(8)),
    "a broken offset": laid_out({"a": entry(end=8.5)}, bytes(9)),
    "an infinite offset": laid_out({"a": entry(end=float("inf"))}, bytes(8)),
    "an offset without a value": laid_out({"a": entry(end=None)}, bytes(8)),
    "a negative offset": laid_out({"a": entry(start=-8, end=0)}),
    "offsets in the wrong order": laid_out({"a": entry(start=8, end=0)}, bytes(8)),
    "offsets that overlap": laid_out({"a": entry(), "b": entry(4, 12)}, bytes(12)),
    "a hole between tensors": laid_out({"a": entry(), "b": entry(12, 20)}, bytes(20)),
    "offsets beyond 64 bits": laid_out({"a": entry(end=2**80)}, bytes(8)),
    "bytes that no tensor owns": laid_out({"a": entry()}, bytes(9)),
    "a shape of another size": laid_out({"a": entry(shape=[3])}, bytes(8)),
    "a negative shape": laid_out({"a": entry(shape=[-2])}, bytes(8)),
    "a shape beyond 64 bits": laid_out({"a": entry(shape=[2**62, 2**62])}, bytes(8)),
    "a shape in words": laid_out({"a": entry(shape="2")}, bytes(8)),
    "an unknown dtype": laid_out({"a": entry(dtype="F33")}, bytes(8)),
    "a dtype that is a number": laid_out({"a": entry(dtype=32)}, bytes(8)),
    "metadata of numbers": laid_out({"__metadata__": {"a": 1}, "a": entry()}, bytes(8)),
    "an absurd length": laid_out({"a": entry()}, bytes(8), length=2**63),
    "the longest length": laid_out({"a": entry()}, bytes(8), length=2**64 - 1),
    "a pickle": b"\x80\x02}q\x00.",
    "a web page": b"<!DOCTYPE html><html><head><title>404</title></head></html>",
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1064875464\n",
}


@pytest.mark.parametrize("contents", GARBAGE.values(), ids=GARBAGE)
def test_garbage(tmp_path: Path, contents: bytes) -> None:
    """What is no safetensors file is refused by name."""
    path = tmp_path / ENGLISH.t3
    path.write_bytes(contents)
    with pytest.raises(ModelInvalid) as caught:
        TensorFile(path)
    assert str(path) in caught.value.message


def test_a_header_above_the_limit(tmp_path: Path) -> None:
    """A list of tensors longer than the format allows is not read, though the file is long enough."""
    path = tmp_path / ENGLISH.t3
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**30))
        file.truncate(2**31)  # sparse
    with pytest.raises(ModelInvalid, match=f"{path} is not a safetensors file"):
        TensorFile(path)


@given(changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=6))
@settings(in_shared_directories, max_examples=200)
def test_changed_bytes(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """Whatever bytes of a file are changed, it is read or refused as invalid."""
    path = tmp_path / ENGLISH.t3
    names = {f"tfmr.layers.{number}.norm": torch.ones(2, number + 1) for number in range(6)}
    save_file(names, path)
    contents = bytearray(path.read_bytes())
    for place, value in changes:
        contents[place % len(contents)] = value
    path.write_bytes(contents)
    try:
        file = TensorFile(path)
        for name in names:
            file.floats(name, *file.shape(name))
        read_config(file)
    except ModelInvalid as error:
        assert str(path) in error.message  # noqa: PT017 - that none is raised is right too


def test_all_tensors_are_tested(weights: dict[str, Tensor]) -> None:
    """The tests below damage every tensor of a tiny T3 but the two that synthesis does not use."""
    assert {*TENSORS, *UNUSED} == set(weights)


def flattened(tensor: Tensor) -> Tensor:
    return tensor.reshape(2, -1) if tensor.ndim == 1 else tensor.flatten()


def first_is(value: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: torch.cat([torch.tensor([value]), tensor.flatten()[1:]]).reshape(tensor.shape)


DAMAGE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "with another dimension": (lambda tensor: tensor[..., None], "has the shape"),
    "with fewer or more dimensions": (flattened, "has the shape"),
    "of integers": (lambda tensor: tensor.to(torch.int32), "holds I32"),
    "with a NaN": (first_is(float("nan")), "not finite"),
    "with an infinity": (first_is(float("-inf")), "not finite"),
    "beyond float32": (lambda tensor: tensor.double() * 1e300, "not finite"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_missing_tensor(copy: Path, weights: dict[str, Tensor], name: str) -> None:
    """A checkpoint without any one of the tensors is refused by the name of both."""
    save_file({other: tensor for other, tensor in weights.items() if other != name}, copy / ENGLISH.t3)
    assert f"lacks the tensor {name}" in refusal(copy)


@pytest.mark.parametrize("name", TENSORS)
def test_a_damaged_tensor(copy: Path, weights: dict[str, Tensor], name: str) -> None:
    """A tensor of another rank, of integers or with values that are not finite is refused by its name."""
    for damage, reason in DAMAGE.values():
        save_file(weights | {name: damage(weights[name]).contiguous()}, copy / ENGLISH.t3)
        message = refusal(copy)
        assert name in message
        assert reason in message


@pytest.mark.parametrize("name", [name for name in TENSORS if name not in MEASURED])
def test_a_short_tensor(copy: Path, weights: dict[str, Tensor], name: str) -> None:
    """A tensor that lacks a row is refused by its name and both shapes."""
    save_file(weights | {name: weights[name][:-1].contiguous()}, copy / ENGLISH.t3)
    message = refusal(copy)
    assert name in message
    assert f"has the shape {list(weights[name][:-1].shape)}" in message


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_sizes_that_disagree(copy: Path, weights: dict[str, Tensor], name: str) -> None:
    """A model that is one narrower in one tensor alone is refused; fewer positions are another model."""
    short = weights[name][:, :-1] if "pos_emb" in name else weights[name][:-1]
    save_file(weights | {name: short.contiguous()}, copy / ENGLISH.t3)
    with pytest.raises(ModelInvalid):
        open_tokens(copy, max_rows=2, positions=64)


def test_unused_tensors_may_be_missing(copy: Path, weights: dict[str, Tensor]) -> None:
    """Synthesis needs neither the text head nor the backbone's own embeddings."""
    save_file({name: tensor for name, tensor in weights.items() if name not in UNUSED}, copy / ENGLISH.t3)
    assert open_tokens(copy, max_rows=2, positions=64).config.layers == 2


@pytest.mark.parametrize(
    ("kept", "lacking"), [((0, 2), "tfmr.layers.1."), ((1,), "tfmr.layers.0."), ((0, 1, 3), "tfmr.layers.2.")]
)
def test_a_gap_in_the_layers(copy: Path, weights: dict[str, Tensor], kept: tuple[int, ...], lacking: str) -> None:
    """Layers with a number left out are refused, not taken for a shallower model."""
    layers = {
        f"tfmr.layers.{number}.{name}": weights[f"tfmr.layers.{number % 2}.{name}"] for number in kept for name in LAYER
    }
    rest = {name: tensor for name, tensor in weights.items() if not name.startswith("tfmr.layers.")}
    save_file({name: tensor.clone() for name, tensor in (rest | layers).items()}, copy / ENGLISH.t3)
    assert f"lacks the tensor {lacking}" in refusal(copy)


@pytest.mark.parametrize("extra", ["tfmr.layers.2.self_attn.q_proj.weight", "tfmr.layers.one.input_layernorm.weight"])
def test_part_of_a_layer_more(copy: Path, weights: dict[str, Tensor], extra: str) -> None:
    """A tensor of a layer that is otherwise not there is a damaged model, not a shallower one."""
    save_file(weights | {extra: torch.zeros(128, 128)}, copy / ENGLISH.t3)
    assert "lacks the tensor tfmr.layers.2." in refusal(copy)


def test_another_family(copy: Path, weights: dict[str, Tensor]) -> None:
    """A backbone without layers of the Llama family is refused for that."""
    save_file({name.replace(".layers.", ".h."): tensor for name, tensor in weights.items()}, copy / ENGLISH.t3)
    assert "no layer of the Llama family" in refusal(copy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_in_half_precision(copy: Path, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
    """A checkpoint stored in half precision is read as the numbers it holds, and speaks."""
    halves = {name: tensor.to(dtype) for name, tensor in weights.items()}
    save_file(halves, copy / ENGLISH.t3)
    file = TensorFile(copy / ENGLISH.t3)
    for name in TENSORS:
        assert torch.equal(file.floats(name, *weights[name].shape), halves[name].float())
    engine = open_tokens(copy, max_rows=2, positions=128)
    sequence = engine.add("half", "Hello.", max_tokens=3, parameters=SamplingParameters(seed=1))
    engine.run()
    assert len(sequence.tokens) == 3


@pytest.mark.parametrize(("name", "token"), [("speech_head.weight", "6562"), ("text_emb.weight", "255")])
def test_a_vocabulary_without_its_special_tokens_is_refused(tiny: Path, tmp_path: Path, name: str, token: str) -> None:
    """At the start, not by an index out of range in the first request."""
    tensors = load_file(tiny / ENGLISH.t3)
    tensors[name] = tensors[name][:100].clone()
    save_file(tensors, tmp_path / ENGLISH.t3)
    with pytest.raises(ModelInvalid, match=token):
        read_config(TensorFile(tmp_path / ENGLISH.t3))
