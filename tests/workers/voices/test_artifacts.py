"""Files named for their contents."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fleet.errors import StorageFull
from tests.running import ROOT
from workers.voices.artifacts import ArtifactDamaged, Artifacts


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "sha256")


def age(artifacts: Artifacts, digest: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(artifacts.path(digest), (then, then))


def test_contents_come_back_by_their_digest(artifacts: Artifacts) -> None:
    """The same contents are kept once."""
    digest = artifacts.put(b"sound")
    assert digest == hashlib.sha256(b"sound").hexdigest() == artifacts.put(b"sound")
    assert artifacts.read(digest) == b"sound"
    assert [path.name for path in artifacts.path(digest).parent.iterdir()] == [digest]


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "g" * 64, "a" * 63, "a" * 64 + "\n"])
def test_what_is_no_digest_names_no_file(artifacts: Artifacts, digest: str) -> None:
    """Nothing leads out of the folder."""
    with pytest.raises(ValueError, match="no SHA-256"):
        artifacts.read(digest)


def test_damaged_file_is_set_aside_and_can_be_put_again(artifacts: Artifacts) -> None:
    """One flipped bit is enough."""
    digest = artifacts.put(b"sound")
    artifacts.path(digest).write_bytes(b"soune")
    with pytest.raises(ArtifactDamaged):
        artifacts.read(digest)
    assert artifacts.path(digest).with_name(f"{digest}.quarantined").read_bytes() == b"soune"
    with pytest.raises(ArtifactDamaged):
        artifacts.read(digest)
    artifacts.put(b"sound")
    assert artifacts.read(digest) == b"sound"


def test_damaged_file_is_mended_by_the_same_upload(artifacts: Artifacts) -> None:
    """Even where nobody has read it yet."""
    digest = artifacts.put(b"sound")
    artifacts.path(digest).write_bytes(b"noise")
    artifacts.put(b"sound")
    assert artifacts.read(digest) == b"sound"


def test_only_what_nothing_refers_to_is_collected(artifacts: Artifacts) -> None:
    """And only after its time, with what was left unfinished or set aside."""
    kept, gone, young = (artifacts.put(text) for text in (b"kept", b"gone", b"young"))
    unfinished = artifacts.path(gone).with_name(".x.unfinished")
    unfinished.write_bytes(b"half")
    for digest in (kept, gone):
        age(artifacts, digest, 100)
    os.utime(unfinished, (1, 1))
    assert artifacts.collect(lambda: {kept}, grace_s=50) == 2
    assert artifacts.read(kept) == b"kept"
    assert artifacts.read(young) == b"young"
    assert not artifacts.path(gone).exists()
    assert not unfinished.exists()


def test_upload_between_look_and_removal_keeps_its_file(artifacts: Artifacts) -> None:
    """Putting what is there already makes it young, however late that is."""
    digest = artifacts.put(b"sound")
    age(artifacts, digest, 100)

    def referenced() -> set[str]:
        artifacts.put(b"sound")  # another worker's upload, not yet in the store
        return set()

    assert artifacts.collect(referenced, grace_s=50) == 0
    assert artifacts.read(digest) == b"sound"


def test_uploads_and_collections_at_once_lose_nothing(artifacts: Artifacts) -> None:
    """What was put within its time can be read, whatever is removed beside it."""
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            artifacts.collect(set, grace_s=0.5)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for number in range(300):
            digest = artifacts.put(b"%d" % (number % 7))
            assert artifacts.read(digest) == b"%d" % (number % 7)
    finally:
        stop.set()
        collector.join()


def test_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """What was there can still be read; the refusal is of its own kind."""
    program = f"""
import resource, pathlib
from fleet.errors import StorageFull
from workers.voices.artifacts import Artifacts
artifacts = Artifacts(pathlib.Path({str(tmp_path)!r}))
small = artifacts.put(b"small")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    artifacts.put(bytes(5000))
except StorageFull as error:
    assert artifacts.read(small) == b"small"
    print(error.status)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "507\n"
    assert StorageFull.status == 507
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    assert [path.read_bytes() for path in files] == [b"small"]
