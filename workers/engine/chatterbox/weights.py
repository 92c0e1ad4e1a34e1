"""A checkpoint in upstream's file layout: found in a directory or a hub revision, checked, read tensor by tensor."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fleet.startup_errors import ModelInvalid, ModelMissing
from workers.engine.chatterbox.checkpoint import ENGLISH, CheckpointFiles, check_directory

_LARGEST_HEADER = 100 * 2**20
"""Bytes; the format's own limit."""

_FLOATS = {"F64", "F32", "F16", "BF16"}

_PLAIN = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32}

HUB_REFERENCE = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
"""How a hub revision is written: `hub:OWNER/NAME@COMMIT`, the commit in full, so that it can never change under us."""


def find_checkpoint(where: str | Path, files: CheckpointFiles = ENGLISH) -> Path:
    """The directory that holds a model's files.

    `where` is a directory, or `hub:OWNER/NAME@COMMIT`: then what is not in the hub's cache is downloaded into it, and
    once all is there the network is not asked. Raises `ModelMissing`, naming what is not there.
    """
    if str(where).startswith("hub:"):
        return _from_hub(str(where), files)
    check_directory(Path(where), files)
    return Path(where)


def newest(repository: str, revision: str) -> str:
    """`hub:OWNER/NAME@COMMIT` of a branch or tag: as the hub says now or, when it is away, as it said last.

    Raises `ModelMissing` when neither is to be had.
    """
    name = ENGLISH.tokenizer
    try:
        get_hf_file_metadata(hf_hub_url(repository, name, revision=revision))
        path = hf_hub_download(repository, name, revision=revision)
    except _HUB_ERRORS as error:
        known = try_to_load_from_cache(repository, name, revision=revision)
        if not isinstance(known, str):
            raise _not_to_be_had(name, repository, revision, error) from error
        path = known
    return f"hub:{repository}@{Path(path).parent.name}"


def _from_hub(reference: str, files: CheckpointFiles) -> Path:
    match = HUB_REFERENCE.fullmatch(reference)
    if match is None:
        raise ModelMissing(f"{reference!r} is not of the form hub:OWNER/NAME@COMMIT, with all 40 digits of the commit")
    repository, revision = match["repository"], match["revision"]
    path = ""
    for name in files.all:
        try:
            if not isinstance(try_to_load_from_cache(repository, name, revision=revision), str):
                # Asked once, for HF_HUB_ETAG_TIMEOUT; hf_hub_download would try a hub that is away again for minutes.
                get_hf_file_metadata(hf_hub_url(repository, name, revision=revision))
            path = hf_hub_download(repository, name, revision=revision)
        except _HUB_ERRORS as error:
            raise _not_to_be_had(name, repository, revision[:12], error) from error
    return find_checkpoint(Path(path).parent, files)


_HUB_ERRORS = (httpx2.HTTPError, OSError, HFValidationError)


def _not_to_be_had(name: str, repository: str, revision: str, error: Exception) -> ModelMissing:
    reason = " ".join(str(error).split())
    return ModelMissing(f"{name} of {repository} at {revision} cannot be had: {reason}")


class TensorFile:
    """One safetensors file, its header checked against its size before any tensor is read.

    Raises `ModelInvalid`, naming the file and the tensor at fault; so do all its methods.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = _read_header(path)
        try:
            self._file: Any = safe_open(path, framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            raise ModelInvalid(f"{path} is not a readable safetensors file: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._entries:
            raise ModelInvalid(f"{self.path} lacks the tensor {name}")
        return tuple(self._entries[name]["shape"])

    def count(self, prefix: str) -> int:
        """How many different parts have names that begin with `prefix` and end at the next full stop."""
        return len({name[len(prefix) :].partition(".")[0] for name in self._entries if name.startswith(prefix)})

    def floats(self, name: str, *shape: int) -> Tensor:
        """The tensor as float32 on the CPU, checked to be finite and of this shape."""
        found = self.shape(name)
        if found != shape:
            raise ModelInvalid(f"{self.path}: {name} has the shape {list(found)}, not {list(shape)}")
        kind = self._entries[name]["dtype"]
        if kind not in _FLOATS:
            raise ModelInvalid(f"{self.path}: {name} holds {kind}, not floating-point numbers")
        try:
            tensor: Tensor = self._file.get_tensor(name).float()
        except (SafetensorError, OSError) as error:
            raise ModelInvalid(f"{self.path}: {name} cannot be read: {error}") from error
        if not torch.isfinite(tensor).all():
            raise ModelInvalid(f"{self.path}: {name} holds values that are not finite")
        return tensor


def _read_header(path: Path) -> Mapping[str, Any]:
    """Name to dtype, shape and byte offsets, as the safetensors format lays them down."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or size < 8 + length:
                raise ModelInvalid(f"{path} ends before its list of tensors does; it is {size} bytes long")
            if length > _LARGEST_HEADER:
                raise ModelInvalid(f"{path} is not a safetensors file: its list of tensors is {length} bytes long")
            header = json.loads(file.read(length))
    except OSError as error:
        raise ModelMissing(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelInvalid(f"{path} is not a safetensors file: its list of tensors is not JSON") from error
    if not isinstance(header, dict):
        raise ModelInvalid(f"{path} is not a safetensors file: its list of tensors is not an object")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    try:
        by_place = sorted(entries.items(), key=lambda item: item[1]["data_offsets"][1])
        for name, entry in by_place:
            if 8 + length + entry["data_offsets"][1] > size:
                raise ModelInvalid(f"{path} is truncated: the tensor {name} is not whole; it is {size} bytes long")
    except (KeyError, TypeError, IndexError) as error:
        raise ModelInvalid(f"{path} is not a safetensors file: its list of tensors is malformed") from error
    return entries


def read_conditionals(path: Path) -> Mapping[str, Any]:
    """Upstream's `conds.pt`: a dictionary of plain tensors, read without running any code it may hold.

    Raises `ModelInvalid` for anything else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage reaches torch's reader in many ways: KeyError, TypeError, struct.error, ...
        raise ModelInvalid(f"{path} is damaged, or holds more than plain tensors") from error
    if not isinstance(found, dict) or not all(isinstance(found.get(part), dict) for part in ("t3", "gen")):
        raise ModelInvalid(f"{path} does not hold the conditionals of T3 and S3Gen")
    for part in ("t3", "gen"):
        for name, value in found[part].items():
            if isinstance(value, Tensor) and not _is_plain(value):
                raise ModelInvalid(f"{path}: {name} of {part} is not a tensor of plain numbers")
    return found


def _is_plain(tensor: Tensor) -> bool:
    """Whether it has elements in memory that arithmetic can be done with."""
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.dtype in _PLAIN
