"""Model files fetched from a Hugging Face hub ahead of use, resumable, and held against their digests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
from pydantic import BaseModel, ValidationError

from fleet.errors import InvalidValue, StorageFull, Unreachable
from fleet.files import UNFINISHED, whole_file
from fleet.startup_errors import ModelInvalid, ModelMissing

CHATTERBOX = "ResembleAI/chatterbox"
CHATTERBOX_FILES = ("t3_cfg.safetensors", "s3gen.safetensors", "ve.safetensors", "tokenizer.json", "conds.pt")

MANIFEST = "manifest.json"
"""Written last: a directory that has it had every file whole."""

REFERENCE = re.compile(r"(?:hub:)?(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[\w.-]+)")

_BLOCK = 2**20
_NOT_FOUND = (401, 403, 404)
"""What hubs answer for a repository or revision that is not there, or not there for this caller."""

Told = Callable[[str, int, int], None]
"""A file's name, how many of its bytes are here, and how many there are."""


class FileDigest(BaseModel):
    name: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """Where the files of a directory came from, and what they are."""

    repository: str
    revision: str
    files: tuple[FileDigest, ...]


class HubFile(BaseModel):
    """A file as the hub lists it; `sha256` where it is kept by LFS, else git's own digest of it."""

    name: str
    size: int
    git_sha1: str
    sha256: str | None

    @property
    def digest(self) -> str:
        return self.sha256 or self.git_sha1

    def describes(self, path: Path) -> bool:
        if path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return file_digest(path) == self.sha256
        return git_digest(path) == self.git_sha1


def parse_reference(reference: str) -> tuple[str, str]:
    """Repository and revision. Raises `InvalidValue`."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidValue(f"{reference!r} is not of the form OWNER/NAME@REVISION", param="reference")
    return match["repository"], match["revision"]


class Hub:
    """A hub's routes, at `HF_ENDPOINT` or Hugging Face's own; `HF_TOKEN` opens what is not public."""

    def __init__(self, *, attempts: int = 5) -> None:
        self.endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        self._attempts = attempts
        token = os.environ.get("HF_TOKEN")
        headers = {} if not token else {"authorization": f"Bearer {token}"}
        # Identity: a range of a compressed answer is not a range of the file.
        self._http = httpx2.Client(headers={**headers, "accept-encoding": "identity"}, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def files(self, repository: str, revision: str) -> tuple[str, dict[str, HubFile]]:
        """The commit that a revision is, and its files by name. Raises `ModelMissing` or `Unreachable`."""
        url = f"{self.endpoint}/api/models/{repository}/revision/{revision}"
        try:
            answer = self._http.get(url, params={"blobs": "true"}, follow_redirects=True)
        except httpx2.HTTPError as error:
            raise Unreachable(f"the hub at {self.endpoint} does not answer: {error}") from error
        if answer.status_code in _NOT_FOUND:
            reason = answer.headers.get("x-error-message", f"status {answer.status_code}")
            raise ModelMissing(f"the hub has no {repository} at {revision}: {reason}")
        try:
            answer.raise_for_status()
            told = answer.json()
            return str(told["sha"]), {file.name: file for file in map(_hub_file, told["siblings"])}
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Unreachable(f"the hub at {self.endpoint} answers what cannot be understood: {error!r}") from error

    def download(self, repository: str, commit: str, file: HubFile, directory: Path, told: Told) -> None:
        """Put a file into a directory, whole and of the digest listed; what an earlier try has left is gone on with.

        Raises `Unreachable`, leaving what has come for the next try, or `ModelInvalid`, leaving nothing.
        """
        partial = directory / f".{file.name}.{file.digest[:16]}{UNFINISHED}"
        url = f"{self.endpoint}/{repository}/resolve/{commit}/{file.name}"
        failure: Exception | None = None
        for _ in range(self._attempts):
            try:
                self._go_on(url, partial, file, told)
                break
            except httpx2.HTTPError as error:
                failure = error
        else:
            raise Unreachable(f"{file.name} did not come whole from {url}: {failure}; the next try goes on from there")
        if not file.describes(partial):
            partial.unlink()
            raise ModelInvalid(f"{file.name} came with another digest than the hub lists")
        partial.chmod(0o644)  # the workers may run as another user
        partial.replace(directory / file.name)

    def _go_on(self, url: str, partial: Path, file: HubFile, told: Told) -> None:
        with partial.open("ab") as out:
            have = out.tell()
            if have > file.size:
                out.truncate(have := 0)
            if have == file.size:
                return
            headers = {"range": f"bytes={have}-"} if have else {}
            with self._http.stream("GET", url, headers=headers, follow_redirects=True) as answer:
                answer.raise_for_status()
                if have and answer.status_code != 206:
                    out.truncate(have := 0)
                elif have and not answer.headers.get("content-range", "").startswith(f"bytes {have}-"):
                    raise httpx2.RemoteProtocolError("another range came than was asked for")
                for piece in answer.iter_raw():
                    out.write(piece)
                    have += len(piece)
                    told(file.name, have, file.size)
            if have != file.size:
                raise httpx2.RemoteProtocolError(f"{have} bytes came of {file.size}")


def _hub_file(entry: dict[str, Any]) -> HubFile:
    lfs = entry.get("lfs") or {}
    return HubFile(
        name=entry["rfilename"],
        size=entry["size"],
        git_sha1=entry["blobId"],
        sha256=lfs.get("sha256") or lfs.get("oid"),
    )


def fetch(
    reference: str,
    root: Path,
    *,
    names: Sequence[str] = CHATTERBOX_FILES,
    told: Told = lambda *_: None,
    attempts: int = 5,
) -> Path:
    """The directory under `root` that holds these files of a revision, downloaded where they are not there yet.

    Raises `ModelMissing`, `ModelInvalid`, `Unreachable` or `StorageFull`.
    """
    repository, revision = parse_reference(reference)
    with Hub(attempts=attempts) as hub:
        commit, listed = hub.files(repository, revision)
        missing = [name for name in names if name not in listed]
        if missing:
            raise ModelMissing(f"{repository} at {commit[:12]} has no {', '.join(missing)}")
        directory = root / repository.replace("/", "--") / commit
        directory.mkdir(parents=True, exist_ok=True)
        with _alone(directory):
            files = [listed[name] for name in names]
            wanted = [file for file in files if not _is_here(file, directory)]
            _require_room(directory, sum(file.size for file in wanted))
            for file in wanted:
                hub.download(repository, commit, file, directory, told)
            digests = tuple(digest_of(directory, name) for name in names)
            write_manifest(directory, Manifest(repository=repository, revision=commit, files=digests))
    return directory


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two that fetch the same wait for each other: both would add to the same unfinished files."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_here(file: HubFile, directory: Path) -> bool:
    path = directory / file.name
    return path.is_file() and file.describes(path)


def _require_room(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise StorageFull(f"{directory} has room for {free / 2**30:.1f} GiB; {needed / 2**30:.1f} GiB are to come")


def digest_of(directory: Path, name: str) -> FileDigest:
    path = directory / name
    return FileDigest(name=name, size=path.stat().st_size, sha256=file_digest(path))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    with whole_file(directory / MANIFEST, durable=True) as file:
        file.write(manifest.model_dump_json(indent=2).encode() + b"\n")
        os.fchmod(file.fileno(), 0o644)


def read_manifest(directory: Path) -> Manifest | None:
    """None where there is none. Raises `ModelInvalid`."""
    try:
        return Manifest.model_validate_json((directory / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ModelInvalid(f"{directory / MANIFEST} cannot be read: {error}") from error


def faults(directory: Path) -> list[str]:
    """What is not as the manifest says, file by file. Raises `ModelMissing` where there is no manifest."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise ModelMissing(f"{directory} has no {MANIFEST}; `fleet models fetch` writes it")
    return [fault for file in manifest.files if (fault := _fault(directory / file.name, file)) is not None]


def _fault(path: Path, expected: FileDigest) -> str | None:
    try:
        size = path.stat().st_size
        if size != expected.size:
            return f"{expected.name} is {size} bytes long, not {expected.size}"
        return None if file_digest(path) == expected.sha256 else f"{expected.name} has another digest"
    except FileNotFoundError:
        return f"{expected.name} is missing"
    except OSError as error:
        return f"{expected.name} cannot be read: {error.strerror}"


def directories(root: Path) -> list[Path]:
    """Those under `root` that `fetch` has completed."""
    return sorted(path.parent for path in root.glob(f"*/*/{MANIFEST}"))


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_digest(path: Path) -> str:
    """git's name of a file's content: SHA-1 over a header and the bytes."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
