"""One tar for a host without a network: this project's source, a model's files, wheels, and the digest of each.

TOP/install.sh    installs it: a copy of scripts/install_bundle
TOP/LOCK          which of requirements/*.lock the wheels are of
TOP/PYTHON        the Python's version that they are for
TOP/source/       the project
TOP/model/        files of a checkpoint, with its manifest
TOP/wheels/       what the lock and bootstrap.lock list
TOP/SHA256SUMS    of all the others, as `sha256sum --check` reads it; last, so that a tar cut off lacks it
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fleet import __version__
from fleet.errors import InvalidValue, Unreachable
from fleet.files import whole_file
from fleet.models import CHATTERBOX_FILES, MANIFEST, faults, read_manifest
from fleet.startup_errors import ModelInvalid, ModelMissing

TOP = f"chatterbox-fleet-{__version__}"
SUMS = "SHA256SUMS"

_BLOCK = 2**20
_LARGEST_SUMS = 16 * 2**20
_LEFT_OUT = {"data", "logs", "models", "model", "dist", "node_modules", "__pycache__"}
"""Folders of a source tree that are not the project's, where git cannot be asked."""


def write_bundle(path: Path, *, source: Path, checkpoint: Path | None, lock: str, wheels: bool) -> int:
    """Write the whole tar or nothing, and tell how many files it holds.

    Raises `InvalidValue`, `ModelMissing`, `ModelInvalid`, `Unreachable` where wheels cannot be had, or OSError.
    """
    installer = source / "scripts/install_bundle"
    if not installer.is_file() or not (source / f"requirements/{lock}.lock").is_file():
        raise InvalidValue(f"{source} is not this project's source with requirements/{lock}.lock", param="source")
    members = [("install.sh", installer)]
    members += [(f"source/{name.as_posix()}", source / name) for name in source_files(source, but=path)]
    members += [] if checkpoint is None else [(f"model/{name.name}", name) for name in _model_files(checkpoint)]
    with tempfile.TemporaryDirectory(prefix="fleet-bundle-") as folder, whole_file(path, durable=True) as file:
        if wheels:
            members += [(f"wheels/{wheel.name}", wheel) for wheel in _download(source, lock, Path(folder))]
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
            sums = [_add_text(tar, "LOCK", f"{lock}\n")]
            sums.append(_add_text(tar, "PYTHON", f"{sys.version_info.major}.{sys.version_info.minor}\n"))
            sums += [_add(tar, name, member) for name, member in members]
            _add_text(tar, SUMS, "".join(sums))
        os.fchmod(file.fileno(), 0o644)
    return len(sums) + 1


_PAGE = "webui/dist"


def source_files(source: Path, *, but: Path) -> list[Path]:
    """The project's files, relative to `source`: those git knows of or, without git, all that look like it.

    The web page is among them where it has been built, since there may be no Node where they go.
    """
    if (source / ".git").exists():
        listed = subprocess.run(["git", "-C", source, "ls-files", "-z"], capture_output=True, check=False)
        if listed.returncode != 0:
            raise InvalidValue(f"git cannot list the files of {source}: {listed.stderr.decode().strip()}")
        names = [Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name]
    else:
        names = sorted(found.relative_to(source) for found in source.rglob("*") if found.is_file())
        names = [name for name in names if not any(part in _LEFT_OUT or part[0] == "." for part in name.parts)]
    names += sorted(found.relative_to(source) for found in (source / _PAGE).rglob("*"))
    return [name for name in names if (source / name).is_file() and (source / name).resolve() != but.resolve()]


def _model_files(checkpoint: Path) -> list[Path]:
    manifest = read_manifest(checkpoint)
    names = CHATTERBOX_FILES if manifest is None else tuple(file.name for file in manifest.files)
    missing = [name for name in names if not (checkpoint / name).is_file()]
    if missing:
        raise ModelMissing(f"the checkpoint {checkpoint} lacks {', '.join(missing)}")
    if manifest is None:
        return [checkpoint / name for name in names]
    if found := faults(checkpoint):
        raise ModelInvalid(f"{checkpoint}: {'; '.join(found)}")
    return [checkpoint / name for name in (*names, MANIFEST)]


def _download(source: Path, lock: str, folder: Path) -> list[Path]:
    """The wheels of a lock and of what installs them, for this Python and platform, each of a digest listed there."""
    for name in (lock, "bootstrap"):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--no-input"]
        command += ["--disable-pip-version-check", "--dest", str(folder), "-r", f"{source}/requirements/{name}.lock"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unreachable(f"pip cannot download what {name}.lock lists: {' '.join(done.stderr.split())}")
    return sorted(folder.iterdir())


class _Digesting:
    """A file whose digest is known once it has been read to its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.digest.update(block)
        return block


def _add(tar: tarfile.TarFile, name: str, path: Path) -> str:
    """Put a file into the tar, owned by nobody in particular; its line of the sums."""
    entry = tar.gettarinfo(path, f"{TOP}/{name}")
    with path.open("rb") as file:
        return _put(tar, name, entry, file)


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> str:
    entry = tarfile.TarInfo(f"{TOP}/{name}")
    entry.size = len(text.encode())
    return _put(tar, name, entry, io.BytesIO(text.encode()))


def _put(tar: tarfile.TarFile, name: str, entry: tarfile.TarInfo, file: IO[bytes]) -> str:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.type = tarfile.REGTYPE  # a second name of the same file would be a link
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    if "\n" in name or "\\" in name:
        raise InvalidValue(f"{name!r} cannot stand in {SUMS}")
    digesting = _Digesting(file)
    tar.addfile(entry, digesting)
    return f"{digesting.digest.hexdigest()}  {name}\n"


def bundle_faults(path: Path) -> list[str]:
    """What of a bundle is not as its sums say. Raises `InvalidValue` where it is no bundle at all."""
    try:
        with tarfile.open(path, "r:") as tar:
            found = dict(_digests(tar))
    except (tarfile.TarError, EOFError) as error:
        raise InvalidValue(f"{path} is not a bundle, or is cut off: {error}", param="bundle") from None
    sums = found.pop(SUMS, None)
    if sums is None:
        raise InvalidValue(f"{path} is not a bundle, or is cut off: it has no {SUMS}", param="bundle")
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in sums.splitlines())}
    differing = [f"{name} has another digest" for name in sorted(listed.keys() & found) if listed[name] != found[name]]
    missing = [f"{name} is missing" for name in sorted(listed.keys() - found)]
    return [*differing, *missing, *(f"{name} is not listed in {SUMS}" for name in sorted(found.keys() - listed))]


def _digests(tar: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    """Each file's name and digest; of the sums, their text. A file that comes twice is one too many."""
    seen: set[str] = set()
    for entry in tar:
        top, _, name = entry.name.partition("/")
        file = tar.extractfile(entry) if entry.isreg() else None
        if file is None or not top.startswith("chatterbox-fleet-") or ".." in Path(name).parts or name in seen:
            raise tarfile.ReadError(f"{entry.name} does not belong into one")
        seen.add(name)
        if name == SUMS:
            yield name, file.read(_LARGEST_SUMS).decode(errors="replace")
            continue
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
        yield name, digest.hexdigest()
