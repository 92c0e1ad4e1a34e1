"""Checks of files: the data directory, key files, the checkpoint with its digests, the store, and room on the disk."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from fleet.doctor_site import PROJECT, Finding, Level, Site, not_applicable, ok, problem, run, warning
from fleet.errors import FleetError
from fleet.keys import read_keys
from fleet.models import CHATTERBOX_FILES, faults, file_digest, git_digest, read_manifest

LEAST_FREE, GOOD_FREE = 2**30, 5 * 2**30
"""Bytes on the data's disk; the files of `/generate` alone may take 1 GiB."""

_FETCH = "fetch it anew: `fleet models fetch OWNER/NAME@COMMIT`"


def data(site: Site) -> Finding:
    folder = site.data
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        return not_applicable(f"{folder} is made at the first start")
    except OSError as error:
        return warning(f"{folder} cannot be looked at: {error.strerror}", "run this as root, or as the workers' user")
    if not folder.is_dir():
        return problem(f"{folder} is not a directory", "name another one in CHATTERBOX_DATA_DIR")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return problem(
            f"this user may not write to {folder}", f"chown it to the workers' user, then chmod 700 {folder}"
        )
    if mode & 0o007:
        return warning(f"every user of this machine may look into {folder}", f"chmod o-rwx {folder}")
    return ok(f"{folder} can be read and written")


def keys(site: Site) -> Finding:
    names = ("CHATTERBOX_API_KEYS", "BALANCER_API_KEYS", "API_KEYS")
    paths = sorted({Path(site.environment[name]) for name in names if site.environment.get(name)})
    paths += [site.credential] if site.credential.exists() else []
    if not paths:
        return not_applicable("no file of keys is set")
    for path in paths:
        if path.exists() and not os.access(path, os.R_OK):
            return warning(f"this user may not read {path}", "run this as root, or as the service's user")
        try:
            read_keys(path)
        except FleetError as error:
            return problem(error.message, "put one key a line there, readable for the service's user")
        if path.stat().st_mode & 0o007:
            return problem(f"every user of this machine may read {path}", f"chmod o-rwx {path}")
    return ok(f"{', '.join(map(str, paths))}: not open to other users")


def checkpoint(site: Site) -> Finding:
    """Every file there, whole by its own list of tensors, and of the digest noted when it was fetched."""
    where = site.environment.get("CHATTERBOX_CHECKPOINT")
    if not where:
        if site.wants_model:
            return problem("CHATTERBOX_ENGINE is chatterbox, and CHATTERBOX_CHECKPOINT is not set", _FETCH)
        return not_applicable("CHATTERBOX_CHECKPOINT is not set")
    folder = _in_cache(where, site) if where.startswith("hub:") else Path(where)
    try:
        missing = [name for name in CHATTERBOX_FILES if not (folder / name).is_file()]
        if missing and where.startswith("hub:"):
            return warning(f"{', '.join(missing)} of {where} would be downloaded at the start", _FETCH)
        if missing:
            return problem(f"{folder} lacks {', '.join(missing)}", _FETCH)
        broken = [fault for name in CHATTERBOX_FILES if (fault := _damage(folder / name)) is not None]
        noted = read_manifest(folder) is not None
        broken += faults(folder) if noted else _misnamed(folder)
    except FleetError as error:
        return problem(error.message, _FETCH)
    except OSError as error:
        return problem(f"{error.filename} cannot be read: {error.strerror}", "let the workers' user read it")
    if broken:
        return problem(f"{folder}: {'; '.join(broken)}", _FETCH)
    if noted or where.startswith("hub:"):
        return ok(f"{folder}: every file is there and of the digest noted")
    return ok(f"{folder}: every file is there; no digests were noted to hold them against")


def _damage(path: Path) -> str | None:
    """A safetensors file says itself where its last tensor ends: 8 bytes of length, that much JSON, the tensors."""
    if path.suffix != ".safetensors":
        return None
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 + length:
                return f"{path.name} is cut off"
            header = json.loads(file.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"{path.name} is not a safetensors file"
    return None if size == 8 + length + end else f"{path.name} is {size} bytes long, not {8 + length + end}"


def _in_cache(reference: str, site: Site) -> Path:
    """Where the hub's library keeps a revision: links into a folder of files named by their digests."""
    home = Path(site.environment.get("HF_HOME") or Path.home() / ".cache/huggingface")
    cache = Path(site.environment.get("HF_HUB_CACHE") or home / "hub")
    repository, _, revision = reference.removeprefix("hub:").partition("@")
    return cache / f"models--{repository.replace('/', '--')}" / "snapshots" / revision


def _misnamed(folder: Path) -> Sequence[str]:
    """Files of the hub's cache that are not what their names there say; none for files of other places."""
    found = []
    for name in CHATTERBOX_FILES:
        path = folder / name
        digest = path.resolve().name
        if path.is_symlink() and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
            actual = file_digest(path) if len(digest) == 64 else git_digest(path)
            if actual != digest:
                found.append(f"{name} has another digest than its name in the hub's cache")
    return found


def store(site: Site) -> Finding:
    """Asked of the workers' own code in a process of its own, which opens the database for reading alone."""
    url = site.environment.get("CHATTERBOX_DATABASE_URL")
    path = site.data / "library.db"
    try:
        if not url and not path.exists():
            return not_applicable("there is no library of voices yet")
    except OSError as error:
        return warning(f"{path} cannot be looked at: {error.strerror}", "run this as root, or as the workers' user")
    environment = {**site.environment, "PYTHONPATH": str(PROJECT)}
    command = [site.python, "-P", "-m", "workers.voices.inspection"]
    told = run(command, limit_s=120, given=url or str(path.absolute()), environment=environment)
    try:
        finding = json.loads(told.output)
        level, said, mend = Level(finding["level"]), str(finding["said"]), finding["mend"]
    except (ValueError, KeyError, TypeError):
        return problem(f"the store could not be examined: {told.last_line}", "see whether the workers' packages import")
    return Finding(level, said, mend)


def disk(site: Site) -> Finding:
    folder = site.data
    while not os.access(folder, os.F_OK) and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    said = f"{free / 2**30:.1f} GiB are free for {site.data}"
    mend = "remove what is not needed there, or move CHATTERBOX_DATA_DIR to a larger disk"
    if free < LEAST_FREE:
        return problem(said, mend)
    return ok(said) if free >= GOOD_FREE else warning(said, mend)
