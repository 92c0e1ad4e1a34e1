"""`fleet bundle`: packed, held against its digests, unpacked and installed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fleet.bundle import SUMS, TOP, bundle_faults, write_bundle
from fleet.errors import InvalidValue, Unreachable
from fleet.models import CHATTERBOX_FILES, Manifest, digest_of, write_manifest
from fleet.startup_errors import ModelInvalid, ModelMissing
from tests.running import ROOT
from tests.tools import require_tool

COMMAND = [sys.executable, "-P", "-c", "from fleet.cli import app; app()", "bundle"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in CHATTERBOX_FILES:
        (folder / name).write_bytes(name.encode() * 1000)
    files = tuple(digest_of(folder, name) for name in CHATTERBOX_FILES)
    write_manifest(folder, Manifest(repository="o/n", revision="1", files=files))
    return folder


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree without git whose lock lists one tiny wheel, which pip finds in a folder."""
    tree = tmp_path / "tree"
    for name in ("scripts/install_bundle", "scripts/environment.sh", "pyproject.toml"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for left_out in ("data/library.db", ".venv/bin/python", "fleet/__pycache__/a.pyc"):
        (tree / left_out).parent.mkdir(parents=True)
        (tree / left_out).touch()
    wheel = tmp_path / "index/tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    (tree / "requirements").mkdir()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    for lock in ("serve", "bootstrap"):
        (tree / f"requirements/{lock}.lock").write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return tree


def bundle(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def unpack(path: Path, folder: Path) -> Path:
    with tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    return folder / TOP


def test_bundle_holds_source_and_model_whole(tmp_path: Path, model: Path) -> None:
    """What is unpacked passes `sha256sum`, installs by its script, and holds what git knows of; nothing else."""
    path = tmp_path / "bundle.tar"
    packed = bundle("-o", path, "--checkpoint", model, "--no-wheels")
    assert packed.returncode == 0, packed.stderr
    verified = bundle("verify", path)
    assert (verified.returncode, verified.stdout) == (0, f"{path}: whole\n")
    folder = unpack(path, tmp_path / "unpacked")
    to = tmp_path / "installed"
    done = subprocess.run([folder / "install.sh", to], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (to / "fleet/bundle.py").read_bytes() == (ROOT / "fleet/bundle.py").read_bytes()
    assert os.access(to / "scripts/up", os.X_OK)
    assert {file.name for file in (to / "model").iterdir()} == {file.name for file in model.iterdir()}
    assert not (to / ".venv").exists()
    assert not (to / ".git").exists()


def test_wheels_of_the_lock_are_packed(tmp_path: Path, source: Path) -> None:
    """Each wheel once; of a tree without git what is not the project's is left out."""
    path = tmp_path / "bundle.tar"
    packed = bundle("-o", path, "--source", source, "--lock", "serve")
    assert packed.returncode == 0, packed.stderr
    assert bundle_faults(path) == []
    with tarfile.open(path) as tar:
        names = {name.removeprefix(f"{TOP}/") for name in tar.getnames()}
        assert all(entry.uid == 0 and entry.uname == "" for entry in tar)
    scripts = {"source/scripts/install_bundle", "source/scripts/environment.sh"}
    locks = {"source/pyproject.toml", "source/requirements/serve.lock", "source/requirements/bootstrap.lock"}
    own = {"install.sh", "LOCK", "PYTHON", SUMS}
    assert names == {*own, *scripts, *locks, "wheels/tiny-1.0-py3-none-any.whl"}


def test_wheel_of_another_digest_is_refused(tmp_path: Path, source: Path) -> None:
    """Nothing is written when pip finds another file than the lock lists."""
    (source / "requirements/serve.lock").write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(Unreachable, match=r"serve\.lock"):
        write_bundle(tmp_path / "out/bundle.tar", source=source, checkpoint=None, lock="serve", wheels=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_broken_model_is_not_packed(tmp_path: Path, model: Path, source: Path) -> None:
    """A file that is not as noted, or not there, ends it before anything is written."""
    path = tmp_path / "bundle.tar"
    with (model / "conds.pt").open("r+b") as file:
        file.write(b"?")
    with pytest.raises(ModelInvalid, match=r"conds\.pt"):
        write_bundle(path, source=source, checkpoint=model, lock="serve", wheels=False)
    (model / "conds.pt").unlink()
    with pytest.raises(ModelMissing, match=r"conds\.pt"):
        write_bundle(path, source=source, checkpoint=model, lock="serve", wheels=False)
    with pytest.raises(InvalidValue, match="source"):
        write_bundle(path, source=model, checkpoint=None, lock="serve", wheels=False)
    assert not path.exists()


def test_verify_finds_damage(tmp_path: Path, model: Path, source: Path) -> None:
    """A flipped byte is named; a tar cut off anywhere, or one that is something else, is no bundle."""
    path = tmp_path / "bundle.tar"
    write_bundle(path, source=source, checkpoint=model, lock="serve", wheels=False)
    whole = path.read_bytes()
    place = whole.index(b"ve.safetensors" * 10)
    path.write_bytes(whole[:place] + b"?" + whole[place + 1 :])
    found = bundle("verify", path)
    assert found.returncode == 1
    assert "model/ve.safetensors has another digest" in found.stderr
    for cut in (0, 100, place, whole.rindex(SUMS.encode()), 10_240):
        path.write_bytes(whole[:cut])
        with pytest.raises(InvalidValue):
            bundle_faults(path)


def test_other_files_than_listed_are_found(tmp_path: Path, source: Path) -> None:
    """One added, one taken out, and one that would be unpacked elsewhere."""
    path = tmp_path / "bundle.tar"
    write_bundle(path, source=source, checkpoint=None, lock="serve", wheels=False)
    folder = unpack(path, tmp_path / "unpacked")
    (folder / "added").touch()
    (folder / "source/pyproject.toml").unlink()
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                tar.add(file, f"{TOP}/{file.relative_to(folder)}")
    assert bundle_faults(path) == ["source/pyproject.toml is missing", f"added is not listed in {SUMS}"]
    with tarfile.open(path, "a") as tar:
        tar.add(source / "pyproject.toml", f"{TOP}/../outside")
    with pytest.raises(InvalidValue, match="outside"):
        bundle_faults(path)


def test_damaged_bundle_is_not_installed(tmp_path: Path, source: Path) -> None:
    """The script checks the digests before it makes anything."""
    path = tmp_path / "bundle.tar"
    write_bundle(path, source=source, checkpoint=None, lock="serve", wheels=False)
    folder = unpack(path, tmp_path / "unpacked")
    (folder / "source/pyproject.toml").write_text("changed")
    done = subprocess.run([folder / "install.sh", tmp_path / "to"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert not (tmp_path / "to").exists()


def test_installer_is_sound_shell() -> None:
    """shellcheck finds nothing in what runs on a host where nobody can mend it."""
    scripts = ["scripts/install_bundle", "scripts/environment.sh"]
    done = subprocess.run(
        [require_tool("shellcheck"), "--shell=bash", *scripts], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
