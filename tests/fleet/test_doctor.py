"""`fleet doctor`: each check with a real fault, and without one."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fleet import doctor_files, doctor_gpu, doctor_system
from fleet.doctor import CHECKS
from fleet.doctor_site import Finding, Level, Site
from fleet.models import CHATTERBOX_FILES, Manifest, digest_of, file_digest, write_manifest
from tests.running import ROOT, RunningFleet
from tests.tools import require_tool
from workers.voices.database import Database, sqlite_url

COMMAND = [sys.executable, "-P", "-c", "from fleet.cli import app; app()", "doctor"]
KEY = "0123456789abcdef"
CARD = "0, NVIDIA Card, 580.65, {capability}, 24576, {free}"


def levels(finding: Finding) -> Level:
    """The finding's level; what is wrong always comes with what to do about it."""
    assert finding.said
    assert (finding.mend is not None) == (finding.level in (Level.warning, Level.problem))
    return finding.level


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    """Puts an `nvidia-smi` on PATH that tells of one card, or fails; then a Site beside it."""

    def put(*, capability: str = "9.0", free: int = 20000, cuda: str = "13.0", code: int = 0, python: str = "") -> Site:
        lines = [
            "#!/bin/sh",
            'case "$*" in',
            f'*query-gpu*) echo "{CARD.format(capability=capability, free=free) if code == 0 else "no devices"}" ;;',
            f'*) echo "| Driver Version: 580.65  CUDA Version: {cuda} |" ;;',
            f"esac\nexit {code}",
        ]
        executable(tmp_path / "bin/nvidia-smi", "\n".join(lines))
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        return Site(python=python or sys.executable)

    return put


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def torch_telling(tmp_path: Path, version: str, cuda: str | None, architectures: str) -> str:
    """A Python whose torch was built so."""
    package = tmp_path / "site/torch"
    package.mkdir(parents=True)
    lines = [
        f"__version__ = {version!r}",
        "class version:",
        f"    cuda = {cuda!r}",
        "class _C:",
        f"    _cuda_getArchFlags = staticmethod(lambda: {architectures!r})",
    ]
    (package / "__init__.py").write_text("\n".join(lines))
    script = f'#!/bin/sh\nPYTHONPATH="{tmp_path}/site" exec {sys.executable} "$@"\n'
    return str(executable(tmp_path / "python/python", script))


def test_driver_that_fails_is_a_problem(card: Callable[..., Site]) -> None:
    """A driver that does not run is told in its own words; then nothing is said of CUDA."""
    site = card(code=9)
    finding = doctor_gpu.driver(site)
    assert levels(finding) is Level.problem
    assert "no devices" in finding.said
    assert levels(doctor_gpu.cuda(site)) is Level.not_applicable


def test_missing_driver_is_a_problem_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without nvidia-smi the CPU computes, unless the settings say cuda."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert levels(doctor_gpu.driver(Site(environment={}))) is Level.not_applicable
    assert levels(doctor_gpu.driver(Site(environment={"CHATTERBOX_DEVICE": "cuda"}))) is Level.problem


def test_card_that_suits_torch_is_well(card: Callable[..., Site], tmp_path: Path) -> None:
    """Driver, CUDA, torch and memory all agree."""
    site = card(python=torch_telling(tmp_path, "2.11.0", "13.0", "sm_75 sm_80 sm_86 sm_90"))
    assert len(site.gpus) == 1
    for check in (doctor_gpu.driver, doctor_gpu.cuda, doctor_gpu.torch, doctor_gpu.gpu_memory):
        assert levels(check(site)) is Level.ok


@pytest.mark.parametrize(
    ("architectures", "capability", "level"),
    [
        ("sm_75 sm_80", "8.6", Level.ok),
        ("sm_86", "8.0", Level.problem),
        ("sm_80 sm_90", "6.1", Level.problem),
        ("sm_80 sm_90", "12.0", Level.problem),
        ("sm_80 compute_90", "12.0", Level.ok),
    ],
)
def test_torch_must_be_built_for_the_card(
    card: Callable[..., Site], tmp_path: Path, architectures: str, capability: str, level: Level
) -> None:
    """Machine code serves newer cards of its major version, PTX all newer ones."""
    site = card(capability=capability, python=torch_telling(tmp_path, "2.11.0", "13.0", architectures))
    assert levels(doctor_gpu.torch(site)) is level


def test_torch_without_cuda_or_missing_is_a_problem_beside_a_card(card: Callable[..., Site], tmp_path: Path) -> None:
    """A build for the CPU leaves the card idle; a Python without torch is named."""
    assert levels(doctor_gpu.torch(card(python=torch_telling(tmp_path, "2.11.0", None, "")))) is Level.problem
    bare = executable(tmp_path / "python/bare", f'#!/bin/sh\nshift\nexec {sys.executable} -I -S "$@"\n')
    finding = doctor_gpu.torch(card(python=str(bare)))
    assert levels(finding) is Level.problem
    assert "No module named 'torch'" in finding.said


def test_driver_older_than_torchs_cuda_is_a_problem(card: Callable[..., Site], tmp_path: Path) -> None:
    """CUDA 13 does not run on a driver for 12."""
    assert levels(doctor_gpu.cuda(card(cuda="12.4", python=torch_telling(tmp_path, "2", "13.0", "")))) is Level.problem


def test_gpu_memory_that_others_hold_is_told(card: Callable[..., Site]) -> None:
    """A card with too little free memory is named."""
    assert levels(doctor_gpu.gpu_memory(card(free=300))) is Level.warning


def test_port_held_by_another_program_is_a_problem() -> None:
    """A socket that listens and is none of ours; once it is closed the port is free."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(0)
        port = other.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # its one place is taken: it does not answer
            site = Site(environment={"BALANCER_PORT": str(port), "BALANCER_WORKERS": "none"})
            finding = doctor_system.ports(site)
    assert levels(finding) is Level.problem
    assert str(port) in finding.said
    assert levels(doctor_system.ports(site)) is Level.ok


def test_running_fleet_holds_its_own_ports(fleet: RunningFleet) -> None:
    """What answers as balancer and as worker is ours; a worker where the balancer belongs is not."""
    port = int(fleet.url.rpartition(":")[2])
    own = Site(environment={"BALANCER_PORT": str(port), "BALANCER_WORKERS": f"http://127.0.0.1:{port + 5}"})
    finding = doctor_system.ports(own)
    assert levels(finding) is Level.ok
    assert finding.said == f"our own: {port}, {port + 5}"
    swapped = Site(environment={"BALANCER_PORT": str(port + 5), "BALANCER_WORKERS": "none"})
    assert levels(doctor_system.ports(swapped)) is Level.problem


def test_modes_of_data_and_keys(tmp_path: Path) -> None:
    """Open to every user: the data is a warning, the keys are a problem; so is a file that holds none."""
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    data = tmp_path / "data"
    site = Site(environment={"CHATTERBOX_DATA_DIR": str(data), "BALANCER_API_KEYS": str(keys)})
    assert levels(doctor_files.data(site)) is Level.not_applicable
    data.mkdir()
    for path in (keys, data):
        path.chmod(0o755)
    assert levels(doctor_files.data(site)) is Level.warning
    finding = doctor_files.keys(site)
    assert levels(finding) is Level.problem
    assert KEY not in finding.said
    for path in (keys, data):
        path.chmod(0o700)
    assert levels(doctor_files.data(site)) is Level.ok
    assert levels(doctor_files.keys(site)) is Level.ok
    keys.write_text("short\n")
    assert levels(doctor_files.keys(site)) is Level.problem
    assert levels(doctor_files.data(Site(environment={"CHATTERBOX_DATA_DIR": str(keys)}))) is Level.problem
    credential = tmp_path / "api-keys"
    assert levels(doctor_files.keys(Site(environment={}, credential=credential))) is Level.not_applicable
    credential.write_text(f"{KEY}\n")
    credential.chmod(0o644)
    assert levels(doctor_files.keys(Site(environment={}, credential=credential))) is Level.problem


def tensors(path: Path) -> None:
    """A safetensors file of one tensor of 16 bytes."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in CHATTERBOX_FILES:
        tensors(folder / name)
    return folder


def checkpoint(where: str | Path, **environment: str) -> Finding:
    return doctor_files.checkpoint(Site(environment={"CHATTERBOX_CHECKPOINT": str(where), **environment}))


def test_damaged_checkpoint_is_a_problem(model: Path) -> None:
    """A missing file, one cut off anywhere, and one that is something else."""
    assert levels(checkpoint(model)) is Level.ok
    weights = model / "s3gen.safetensors"
    whole = weights.read_bytes()
    for damage in (whole[:-1], whole[:20], b"", b"\0" * 40):
        weights.write_bytes(damage)
        finding = checkpoint(model)
        assert levels(finding) is Level.problem
        assert "s3gen.safetensors" in finding.said
    weights.unlink()
    assert levels(checkpoint(model)) is Level.problem


def test_changed_digest_is_a_problem(model: Path) -> None:
    """A flipped bit is found where the digests were noted."""
    files = tuple(digest_of(model, name) for name in CHATTERBOX_FILES)
    write_manifest(model, Manifest(repository="o/n", revision="1", files=files))
    assert levels(checkpoint(model)) is Level.ok
    with (model / "ve.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    finding = checkpoint(model)
    assert levels(finding) is Level.problem
    assert "ve.safetensors has another digest" in finding.said


def test_hub_cache_is_held_against_its_names(model: Path, tmp_path: Path) -> None:
    """A revision not yet there is a warning; a blob that is not what it is named for, a problem."""
    reference, cache = f"hub:o/n@{'a' * 40}", {"HF_HUB_CACHE": str(tmp_path / "hub")}
    assert levels(checkpoint(reference, **cache)) is Level.warning
    blobs, snapshot = tmp_path / "hub/models--o--n/blobs", tmp_path / f"hub/models--o--n/snapshots/{'a' * 40}"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    for name in CHATTERBOX_FILES:
        blob = blobs / file_digest(model / name)
        shutil.copy(model / name, blob)
        (snapshot / name).symlink_to(blob)
    assert levels(checkpoint(reference, **cache)) is Level.ok
    with blob.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    assert levels(checkpoint(reference, **cache)) is Level.problem


def test_model_wanted_and_not_given_is_a_problem() -> None:
    """The engine chatterbox needs a checkpoint; the embedded voice does not."""
    assert levels(doctor_files.checkpoint(Site(environment={"CHATTERBOX_ENGINE": "chatterbox"}))) is Level.problem
    assert levels(doctor_files.checkpoint(Site(environment={}))) is Level.not_applicable


def test_store_is_examined_without_a_trace(tmp_path: Path) -> None:
    """A library that is whole, in use, of an older or a newer schema, and damaged; no file is added beside it."""
    site = Site(environment={**os.environ, "CHATTERBOX_DATA_DIR": str(tmp_path)})
    assert levels(doctor_files.store(site)) is Level.not_applicable
    path = tmp_path / "library.db"
    opened = Database.open(sqlite_url(path))
    with opened.writing() as connection:
        connection.exec_driver_sql("SELECT 1")
        assert levels(doctor_files.store(site)) is Level.ok
    opened.close()
    before = {found.name for found in tmp_path.iterdir()}
    assert levels(doctor_files.store(site)) is Level.ok
    changes = {
        "UPDATE alembic_version SET version_num = '9999'": Level.problem,
        "DROP TABLE alembic_version": Level.warning,
    }
    for change, level in changes.items():
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(change)
        assert levels(doctor_files.store(site)) is level
    path.write_bytes(b"no database" * 1000)
    assert levels(doctor_files.store(site)) is Level.problem
    assert {found.name for found in tmp_path.iterdir()} == before


def test_store_that_cannot_be_examined_is_a_problem(tmp_path: Path) -> None:
    """A Python without the workers' packages says so."""
    bare = executable(tmp_path / "python/bare", f'#!/bin/sh\nshift\nexec {sys.executable} -I -S "$@"\n')
    (tmp_path / "library.db").touch()
    site = Site(environment={"CHATTERBOX_DATA_DIR": str(tmp_path)}, python=str(bare))
    assert levels(doctor_files.store(site)) is Level.problem


def test_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Told by what the disk has and by what is asked of it; a folder not made yet counts as its parent."""
    site = Site(environment={"CHATTERBOX_DATA_DIR": str(tmp_path / "not/yet")})
    free = shutil.disk_usage(tmp_path).free
    for least, good, level in ((0, 0, Level.ok), (0, 2 * free, Level.warning), (2 * free, 4 * free, Level.problem)):
        monkeypatch.setattr(doctor_files, "LEAST_FREE", least)
        monkeypatch.setattr(doctor_files, "GOOD_FREE", good)
        assert levels(doctor_files.disk(site)) is level


def test_clock_before_the_program_was_written_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file from the day after tomorrow in the program's place."""
    assert levels(doctor_system.clock(Site())) in (Level.ok, Level.warning)
    later = tmp_path / "later.py"
    later.touch()
    os.utime(later, (2**32, 2**32))
    monkeypatch.setattr(doctor_system, "__file__", str(later))
    assert levels(doctor_system.clock(Site())) is Level.problem


def test_clock_that_nothing_keeps_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What timedatectl answers decides."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for answer, level in (("no", Level.warning), ("yes", Level.ok)):
        executable(tmp_path / "bin/timedatectl", f"#!/bin/sh\necho {answer}\n")
        assert levels(doctor_system.clock(Site())) is level


def run_doctor(tmp_path: Path, *arguments: str, files: int | None = None, **environment: str) -> tuple[int, str]:
    def limit() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    settings = ["--settings", str(tmp_path), "--units", str(tmp_path), "--nginx", str(tmp_path / "none")]
    done = subprocess.run(
        [*COMMAND, *settings, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CHATTERBOX_DATA_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=limit,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(("files", "level"), [(256, "problem"), (2048, "warning")])
def test_low_limit_of_open_files_is_told(tmp_path: Path, files: int, level: str) -> None:
    """Run under the limit itself; every check is in the JSON, and a problem is exit code 1."""
    code, told = run_doctor(tmp_path, "--json", "--python", "/bin/false", files=files)
    checks = json.loads(told)["checks"]
    assert list(checks) == list(CHECKS)
    assert checks["open files"]["level"] == level
    assert code == int(any(check["level"] == "problem" for check in checks.values()))


def test_settings_of_the_units_are_read(tmp_path: Path) -> None:
    """A checkpoint named in worker.env is looked for, and its absence is told in plain text with a cure."""
    (tmp_path / "worker.env").write_text(f'# the model\nCHATTERBOX_CHECKPOINT="{tmp_path / "gone"}"\n')
    code, told = run_doctor(tmp_path)
    assert code == 1
    assert f"checkpoint: {tmp_path / 'gone'} lacks t3_cfg.safetensors" in told
    assert "mend: fetch it anew" in told


def test_nginx_configuration_is_tried(tmp_path: Path) -> None:
    """Broken, valid without the site, and with it."""
    require_tool("nginx")
    configuration = tmp_path / "nginx.conf"
    site = Site(nginx_configuration=configuration)
    assert levels(doctor_system.nginx(site)) is Level.not_applicable
    body = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; %s }}"
    configuration.write_text(body % "server { listen 127.0.0.1:1; no_such_thing on; }")
    finding = doctor_system.nginx(site)
    assert levels(finding) is Level.problem
    assert "no_such_thing" in finding.said
    configuration.write_text(body % "")
    assert levels(doctor_system.nginx(site)) is Level.warning
    shutil.copytree(ROOT / "nginx/snippets", tmp_path / "snippets")
    configuration.write_text(body % f"include {ROOT}/nginx/chatterbox-fleet.conf;")
    finding = doctor_system.nginx(site)
    if os.geteuid() == 0:
        assert levels(finding) is Level.ok


def test_units_are_held_against_systemd(tmp_path: Path) -> None:
    """None installed, all well, one missing, one that systemd refuses."""
    require_tool("systemd-analyze")
    site = Site(units=tmp_path)
    assert levels(doctor_system.units(site)) is Level.not_applicable
    for unit in (ROOT / "systemd").glob("chatterbox*"):
        text = unit.read_text()
        # Stands for the installation's Python, which is not there.
        (tmp_path / unit.name).write_text(text.replace("/opt/chatterbox-fleet/.venv/bin/python", "/bin/sh"))
    assert levels(doctor_system.units(site)) in (Level.ok, Level.warning)  # whether it starts at boot is the machine's
    (tmp_path / "chatterbox.slice").unlink()
    finding = doctor_system.units(site)
    assert levels(finding) is Level.problem
    assert "chatterbox.slice" in finding.said
    shutil.copy(ROOT / "systemd/chatterbox.slice", tmp_path)
    (tmp_path / "chatterbox-balancer.service").write_text("[Service]\nType=exec\nExecStart=not/absolute\n")
    finding = doctor_system.units(site)
    assert levels(finding) is Level.problem
    assert "refuses" in finding.said
