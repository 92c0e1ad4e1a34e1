"""`fleet models` against a server that speaks a hub's routes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.errors import InvalidValue, StorageFull, Unreachable
from fleet.models import CHATTERBOX_FILES, MANIFEST, faults, fetch, file_digest, read_manifest
from fleet.startup_errors import ModelInvalid, ModelMissing
from tests.hub import COMMIT, REPOSITORY, LocalHub, serving
from tests.running import ROOT
from workers.engine.chatterbox.checkpoint import ENGLISH

COMMAND = [sys.executable, "-P", "-c", "from fleet.cli import app; app()"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """Serves files of the checkpoint's names with arbitrary content."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name in (*CHATTERBOX_FILES, "README.md"):
        (folder / name).write_bytes(hashlib.shake_128(name.encode()).digest(300_000))
    with serving(LocalHub(folder)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield running


def fleet(*arguments: str | Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*COMMAND, "models", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_files_are_those_the_worker_reads() -> None:
    """What is fetched unasked is what the engine opens."""
    assert set(CHATTERBOX_FILES) == set(ENGLISH.all)


def test_fetched_files_are_whole_and_noted(hub: LocalHub, tmp_path: Path) -> None:
    """A branch becomes its commit, digests are noted, other users may read, and nothing is fetched twice."""
    directory = fetch(f"{REPOSITORY}@main", tmp_path / "models")
    assert directory == tmp_path / "models/owner--tiny" / COMMIT
    assert {path.name for path in directory.iterdir()} == {*CHATTERBOX_FILES, MANIFEST}
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in directory.iterdir())
    manifest = read_manifest(directory)
    assert manifest is not None
    assert (manifest.repository, manifest.revision) == (REPOSITORY, COMMIT)
    assert {file.name: file.sha256 for file in manifest.files} == {
        name: file_digest(hub.folder / name) for name in CHATTERBOX_FILES
    }
    hub.asked.clear()
    assert fetch(f"hub:{REPOSITORY}@{COMMIT}", tmp_path / "models") == directory
    assert hub.asked == []


def test_token_goes_to_the_hub_alone(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is shown HF_TOKEN, and the place it sends us to for the bytes is not."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(f"{REPOSITORY}@main", tmp_path)
    assert hub.tokens == {("api", "Bearer hf_secret"), ("owner", "Bearer hf_secret"), ("cdn", None)}


def test_two_that_fetch_the_same_wait_for_each_other(hub: LocalHub, tmp_path: Path) -> None:
    """Each file is downloaded once, and both have it whole."""
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: fetch(f"{REPOSITORY}@main", tmp_path), range(2)))
    assert found[0] == found[1]
    assert faults(found[0]) == []
    assert sorted(name for name, _ in hub.asked) == sorted(CHATTERBOX_FILES)


def test_broken_download_goes_on_where_it_ended(hub: LocalHub, tmp_path: Path) -> None:
    """After a failure nothing looks complete; the next try asks for the rest alone."""
    hub.break_after = 100_000
    with pytest.raises(Unreachable, match="next try"):
        fetch(f"{REPOSITORY}@{COMMIT}", tmp_path, attempts=1)
    directory = tmp_path / "owner--tiny" / COMMIT
    assert [path.name[:5] for path in directory.iterdir()] == [".t3_c"]
    hub.break_after = None
    hub.asked.clear()
    assert faults(fetch(f"{REPOSITORY}@{COMMIT}", tmp_path)) == []
    assert ("t3_cfg.safetensors", "bytes=100000-") in hub.asked
    assert {path.name for path in directory.iterdir()} == {*CHATTERBOX_FILES, MANIFEST}


def test_repeated_breaks_are_outlived_in_one_run(hub: LocalHub, tmp_path: Path) -> None:
    """A connection that breaks over and over still brings every file, a piece at a time."""
    hub.break_after = 100_000
    assert faults(fetch(f"{REPOSITORY}@{COMMIT}", tmp_path)) == []


def test_server_without_ranges_starts_over(hub: LocalHub, tmp_path: Path) -> None:
    """The whole file sent in place of its rest is taken from the start."""
    hub.break_after = 100_000
    with pytest.raises(Unreachable):
        fetch(f"{REPOSITORY}@{COMMIT}", tmp_path, attempts=1)
    hub.break_after, hub.ranged = None, False
    assert faults(fetch(f"{REPOSITORY}@{COMMIT}", tmp_path)) == []


def test_other_bytes_than_listed_are_refused(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose content is not what the hub lists is not kept."""
    listed = hub.information()
    monkeypatch.setattr(hub, "information", lambda: listed)
    for name in ("tokenizer.json", "t3_cfg.safetensors"):  # one named by git's digest, one by LFS's
        whole = (hub.folder / name).read_bytes()
        (hub.folder / name).write_bytes(bytes(len(whole)))
        with pytest.raises(ModelInvalid, match=name):
            fetch(f"{REPOSITORY}@{COMMIT}", tmp_path, names=[name])
        assert list((tmp_path / "owner--tiny" / COMMIT).iterdir()) == []
        (hub.folder / name).write_bytes(whole)


def test_unknown_revision_and_file_are_refused(hub: LocalHub, tmp_path: Path) -> None:
    """Nothing is made for what the hub does not have, nor for what is no reference."""
    with pytest.raises(ModelMissing, match="abcdef"):
        fetch(f"{REPOSITORY}@abcdef", tmp_path / "models")
    with pytest.raises(ModelMissing, match=r"no other\.bin"):
        fetch(f"{REPOSITORY}@{COMMIT}", tmp_path / "models", names=["other.bin"])
    for wrong in ("tiny", "owner/tiny", "owner/tiny@a/b", "../x@main/.."):
        with pytest.raises(InvalidValue):
            fetch(wrong, tmp_path / "models")
    assert not (tmp_path / "models").exists()
    assert hub.asked == []


def test_too_little_room_is_told_beforehand(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than the disk is not begun."""
    told = hub.information()
    siblings = told["siblings"]
    assert isinstance(siblings, list)
    huge = [{**entry, "size": 2**60} for entry in siblings]
    monkeypatch.setattr(hub, "information", lambda: {**told, "siblings": huge})
    with pytest.raises(StorageFull):
        fetch(f"{REPOSITORY}@{COMMIT}", tmp_path)
    assert hub.asked == []


def test_verify_finds_what_has_changed(hub: LocalHub, tmp_path: Path) -> None:
    """A flipped byte, a shortened and a missing file are each named; fetching again mends them."""
    fetched = fleet("fetch", f"{REPOSITORY}@main", "--root", tmp_path / "models", endpoint=hub.url)
    assert fetched.returncode == 0, fetched.stderr
    directory = Path(fetched.stdout.strip())
    listing = fleet("list", "--root", tmp_path / "models", endpoint=hub.url)
    assert REPOSITORY in listing.stdout
    with (directory / "s3gen.safetensors").open("r+b") as file:
        file.write(b"?")
    os.truncate(directory / "ve.safetensors", 10)
    (directory / "conds.pt").unlink()
    found = fleet("verify", "--root", tmp_path / "models", endpoint=hub.url)
    assert found.returncode == 1
    assert "s3gen.safetensors has another digest" in found.stderr
    assert "ve.safetensors is 10 bytes long" in found.stderr
    assert "conds.pt is missing" in found.stderr
    fetch(f"{REPOSITORY}@main", tmp_path / "models")
    assert fleet("verify", directory, endpoint=hub.url).returncode == 0
