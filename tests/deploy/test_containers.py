"""The Dockerfiles and the compose file, held against what they name; no image is built here."""

from __future__ import annotations

import ast
import fnmatch
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from balancer.settings import BalancerSettings
from fleet.access import Access
from fleet.settings import ServingSettings
from fleet.startup_errors import InvalidSettings
from tests.deploy.site import Nginx
from tests.running import ROOT, RunningFleet, free_port
from tests.tools import require_tool
from workers.settings import WorkerSettings

DEPLOY = ROOT / "deploy"
DOCKERFILES = ["Dockerfile.cpu", "Dockerfile.cuda"]
CHECKPOINT = f"hub:owner/name@{'0' * 40}"


def instructions(name: str) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile with what follows it, its lines joined."""
    text = "\n".join(line for line in (DEPLOY / name).read_text().splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line]


def every(name: str, instruction: str) -> list[str]:
    """What follows each instruction of one kind."""
    return [rest for kind, rest in instructions(name) if kind == instruction]


def image_environment(name: str) -> dict[str, str]:
    """What the image sets."""
    return dict(word.split("=", 1) for rest in every(name, "ENV") for word in shlex.split(rest))


def compose() -> dict[str, Any]:
    """The compose file, with the one variable that its reader must set."""
    text = (DEPLOY / "compose.yaml").read_text()
    found = re.findall(r"\$\{(\w+):\?[^}]*\}", text)
    assert found == ["CHATTERBOX_CHECKPOINT"] == re.findall(r"\$\{(\w+)", text)
    loaded: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{CHATTERBOX_CHECKPOINT:[^}]*\}", CHECKPOINT, text))
    return loaded


COMPOSE = compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = {name: service for name, service in SERVICES.items() if service["image"] == "chatterbox-fleet:cuda"}


def dockerfile_of(service: Mapping[str, Any]) -> str:
    return str(service["build"]["dockerfile"]).removeprefix("deploy/")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One without any setting of ours."""
    for name in list(os.environ):
        if name.startswith(("CHATTERBOX_", "BALANCER_", "API_")):
            monkeypatch.delenv(name)
    return monkeypatch


def settings_of(name: str, kind: type[ServingSettings], environment: pytest.MonkeyPatch) -> ServingSettings:
    """A service's settings: what its image sets, then what the compose file does."""
    service = SERVICES[name]
    for variable, value in {**image_environment(dockerfile_of(service)), **service["environment"]}.items():
        assert isinstance(value, str), variable
        environment.setenv(variable, value)
    return kind.from_environment()


def _reaches_the_build(path: Path) -> bool:
    """Whether .dockerignore lets a file through: the last pattern that fits it, or a folder it lies in, decides."""
    allowed = True
    name = path.relative_to(ROOT).as_posix()
    candidates = [name, *(str(parent) for parent in PurePosixPath(name).parents)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            named = candidates if not line.startswith("**/") else name.split("/")
            if any(fnmatch.fnmatchcase(candidate, pattern) for candidate in named):
                allowed = line.startswith("!")
    return allowed


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_there(name: str) -> None:
    """Every source of a COPY exists, is part of the repository and passes .dockerignore; caches do not."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    copied = [rest.split()[:-1] for rest in every(name, "COPY") if not rest.startswith("--from")]
    for source in [ROOT / word for words in copied for word in words]:
        files = [ROOT / file for file in tracked if (ROOT / file).is_relative_to(source)]
        assert files, source
        assert all(_reaches_the_build(file) for file in files), source
    for left_out in ("data/library.db", "deploy/.env", ".git/config", "fleet/__pycache__/up.pyc", "requirements/x.in"):
        assert not _reaches_the_build(ROOT / left_out)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_installing_checks_hashes_and_keeps_no_cache(name: str) -> None:
    """Each installer is given a lock with hashes that exists and is copied, or no network; none keeps a cache."""
    copied = [word for rest in every(name, "COPY") for word in rest.split()]
    installs = [part for rest in every(name, "RUN") for part in rest.split("&&") if "pip install" in part]
    assert len(installs) == 3
    for install in installs:
        assert "--no-cache" in install
        assert "--require-hashes" in install or "--offline" in install
    for lock in re.findall(r"requirements/\S+", " ".join(installs)):
        assert lock in copied
        assert "--hash=sha256:" in (ROOT / lock).read_text()


@pytest.mark.parametrize("name", DOCKERFILES)
def test_shellcheck_accepts_the_commands(name: str) -> None:
    """shellcheck finds nothing in what a build runs."""
    script = "\n".join(every(name, "RUN"))
    check = subprocess.run(
        [require_tool("shellcheck"), "--shell=sh", "-"], input=script, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout


def test_the_package_is_built_without_a_network(tmp_path: Path) -> None:
    """What the images install of our own needs no download, and holds the files that are not Python's too."""
    for copied in [word for rest in every("Dockerfile.cpu", "COPY") for word in rest.split()[:-1]]:
        if copied in ("balancer", "fleet", "workers"):
            shutil.copytree(ROOT / copied, tmp_path / copied, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / copied).is_file():
            shutil.copy(ROOT / copied, tmp_path)
    uv = [
        str(Path(sys.executable).with_name("uv")),
        "pip",
        "install",
        "--quiet",
        "--python",
        sys.executable,
        "--no-cache",
    ]
    installed = tmp_path / "installed"
    subprocess.run([*uv, "--no-deps", "--offline", "--target", str(installed), str(tmp_path)], check=True)
    for folder in ("balancer", "fleet", "workers"):
        ours = {file.relative_to(ROOT) for file in (ROOT / folder).rglob("*") if file.is_file()}
        for file in ours:
            assert "__pycache__" in file.parts or (installed / file).is_file(), file


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_nobody_in_particular(name: str) -> None:
    """The image's user is not root, owns what it may write, and starts a module that is there."""
    assert every(name, "USER") == ["10001:10001"]
    assert "--uid 10001 " in " ".join(every(name, "RUN"))
    assert every(name, "EXPOSE") == [str(WorkerSettings.model_fields["port"].default)]
    (command,) = every(name, "CMD")
    assert ast.literal_eval(command)[:3] == ["python", "-P", "-m"]
    assert importlib.util.find_spec(ast.literal_eval(command)[3])
    (owned,) = re.findall(r"install --directory .*", every(name, "RUN")[-1])
    for value in image_environment(name).values():
        if value.startswith("/var/"):
            assert "/".join(value.split("/")[:4]) in owned.split()


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_alone_lets_nobody_in_without_a_key(name: str, environment: pytest.MonkeyPatch) -> None:
    """Its settings are known, and as they stand it refuses to serve all the world."""
    for variable, value in image_environment(name).items():
        environment.setenv(variable, value)
    settings = WorkerSettings.from_environment()
    with pytest.raises(InvalidSettings, match="CHATTERBOX_OPEN_ACCESS"):
        Access.of(settings)


def test_healthchecks_tell_the_ready_from_the_absent(fleet: RunningFleet) -> None:
    """Each one's command ends well where a server is ready, and badly where nothing listens."""
    checks = [(every(name, "HEALTHCHECK")[0].partition("CMD ")[2], "6100") for name in DOCKERFILES]
    checks.append((json.dumps(SERVICES["balancer"]["healthcheck"]["test"][1:]), "6095"))
    ports = {"6100": fleet.worker_urls()[0].rpartition(":")[2], "6095": str(fleet.port)}
    for text, port in checks:
        assert text.count(port) == 1
        for actual, code in ((ports[port], 0), (str(free_port(0)), 1)):
            _, *arguments = json.loads(text.replace(port, actual))
            check = subprocess.run([sys.executable, *arguments], check=False, stderr=subprocess.DEVNULL)
            assert check.returncode == code


def test_each_gpu_has_a_worker_of_its_own(environment: pytest.MonkeyPatch) -> None:
    """Workers differ in GPU and name alone and share the library; the balancer and Prometheus know them all."""
    gpus, names, addresses = [], [], []
    for name, service in WORKERS.items():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        gpus += device["device_ids"]
        settings = settings_of(name, WorkerSettings, environment)
        assert isinstance(settings, WorkerSettings)
        Access.of(settings)
        assert (settings.engine, settings.checkpoint) == ("chatterbox", CHECKPOINT)
        assert f"data:{settings.data_dir}" in service["volumes"]
        assert "ports" not in service
        names.append(settings.name)
        addresses.append(f"{name}:{settings.port}")
    assert gpus == [str(index) for index in range(len(WORKERS))]
    assert len(set(names)) == len(WORKERS) == 2
    balancer = settings_of("balancer", BalancerSettings, environment)
    assert isinstance(balancer, BalancerSettings)
    assert balancer.worker_words == [f"http://{address}" for address in addresses]
    (targets,) = json.loads((DEPLOY / "compose-workers.json").read_text())
    assert targets["targets"] == addresses


def test_only_this_machine_reaches_it_as_shipped(environment: pytest.MonkeyPatch) -> None:
    """The balancer listens to its own network only, and all published ports are this machine's."""
    balancer = settings_of("balancer", BalancerSettings, environment)
    assert isinstance(balancer, BalancerSettings)
    Access.of(balancer)
    assert (balancer.host, balancer.port) == ("127.0.0.1", 6095)
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert [port.rpartition(":")[2] for port in published] == ["80", "9090"]
    for name in ("nginx", "prometheus"):
        assert SERVICES[name]["network_mode"] == "service:balancer"
        assert "ports" not in SERVICES[name]


def test_what_is_mounted_is_there() -> None:
    """Every bind mount's source exists, every named volume is declared, and a file lies over one that is there."""
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
    over = "./compose-workers.json:/etc/prometheus/targets/workers.json:ro"
    assert over in SERVICES["prometheus"]["volumes"]
    assert (DEPLOY / "targets/workers.json").is_file()
    assert (DEPLOY / "prometheus.yml").is_file()


def test_nginx_accepts_what_is_mounted(tmp_path: Path) -> None:
    """The files that the compose file mounts are the site, whole, and lead to where the balancer listens."""
    site, snippets, *_ = (volume.split(":") for volume in SERVICES["nginx"]["volumes"])
    assert (DEPLOY / site[0]).resolve() == ROOT / "nginx/chatterbox-fleet.conf"
    assert (DEPLOY / snippets[0]).resolve() == ROOT / "nginx/snippets"
    assert (site[1], snippets[1]) == ("/etc/nginx/conf.d/default.conf", "/etc/nginx/snippets")
    assert "server 127.0.0.1:6095;" in (ROOT / "nginx/snippets/chatterbox-fleet-upstream.conf").read_text()
    subprocess.run(Nginx(tmp_path, 6095).command("-t"), check=True, capture_output=True)
