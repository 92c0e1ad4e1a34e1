"""What `fleet doctor` examines: one machine's installation, and what is asked of several programs only once."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from fleet.keys import CREDENTIAL

INSTALLED_DATA = Path("/var/lib/chatterbox-fleet")
PROJECT = Path(__file__).parent.parent


class Level(StrEnum):
    ok = "ok"
    not_applicable = "not applicable"
    warning = "warning"
    problem = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says of one thing; `mend` is what a person does about it."""

    level: Level
    said: str
    mend: str | None = None


def ok(said: str) -> Finding:
    return Finding(Level.ok, said)


def not_applicable(said: str) -> Finding:
    return Finding(Level.not_applicable, said)


def warning(said: str, mend: str) -> Finding:
    return Finding(Level.warning, said, mend)


def problem(said: str, mend: str) -> Finding:
    return Finding(Level.problem, said, mend)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended; `code` is None where it could not be run or did not end in time."""

    code: int | None
    output: str
    errors: str

    @property
    def last_line(self) -> str:
        lines = [line.strip() for line in (self.errors or self.output).splitlines() if line.strip()]
        return lines[-1] if lines else "it says nothing"


def run(
    command: Sequence[str], *, limit_s: float = 20, given: str = "", environment: Mapping[str, str] | None = None
) -> Outcome:
    try:
        done = subprocess.run(
            command, input=given, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Outcome(None, "", str(error))
    return Outcome(done.returncode, done.stdout, done.stderr)


def program(name: str) -> str | None:
    """A program's path, also where only an administrator's PATH names its directory."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


@dataclass(frozen=True, slots=True)
class Gpu:
    """As `nvidia-smi` tells it; memory in MiB."""

    index: str
    name: str
    driver: str
    capability: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Torch:
    """The installation's torch; `cuda` is None for one built for the CPU, `reason` says why there is none."""

    version: str = ""
    cuda: str | None = None
    architectures: Sequence[str] = ()
    reason: str | None = None


_ASK_TORCH = """
import json, torch
flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)()
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "architectures": (flags or "").split()}))
"""

_GPU_FIELDS = "index,name,driver_version,compute_cap,memory.total,memory.free"


@dataclass(frozen=True)
class Site:
    """Where an installation's parts lie, and the environment that its processes get."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    python: str = sys.executable
    nginx_configuration: Path = Path("/etc/nginx/nginx.conf")
    units: Path = Path("/etc/systemd/system")
    credential: Path = Path("/etc/chatterbox-fleet/api-keys")

    @classmethod
    def of(cls, *, settings: Path, python: str | None, nginx_configuration: Path, units: Path) -> Site:
        """The environment is that of the units' files in `settings`, with this process's own put over it."""
        given: dict[str, str] = {}
        for name in ("worker.env", "balancer.env"):
            given |= _environment_file(settings / name)
        environment = {**given, **os.environ}
        return cls(environment, python or sys.executable, nginx_configuration, units, settings / CREDENTIAL)

    @property
    def data(self) -> Path:
        named = self.environment.get("CHATTERBOX_DATA_DIR")
        if named:
            return Path(named)
        # A link into a folder that root alone may look into, where systemd makes up the user.
        installed = INSTALLED_DATA.is_symlink() or INSTALLED_DATA.exists()
        return INSTALLED_DATA if installed else PROJECT / "data"

    @property
    def wants_gpu(self) -> bool:
        return self.environment.get("CHATTERBOX_DEVICE", "auto") == "cuda"

    @property
    def wants_model(self) -> bool:
        return self.environment.get("CHATTERBOX_ENGINE", "auto") == "chatterbox"

    @property
    def balancer_port(self) -> int:
        given = self.environment.get("BALANCER_PORT", "")
        return int(given) if given.isdecimal() else 6095

    @property
    def worker_ports(self) -> list[int]:
        """Of the workers on this machine that the balancer is told of."""
        words = self.environment.get("BALANCER_WORKERS", "http://127.0.0.1:6100").split(",")
        addresses = [urlsplit(word.strip()) for word in words if "://" in word]
        local = [address for address in addresses if address.hostname in ("127.0.0.1", "localhost", "::1")]
        return [address.port for address in local if address.port is not None]

    @cached_property
    def smi(self) -> Outcome | None:
        """What `nvidia-smi` says of the GPUs; None where there is no such program."""
        path = program("nvidia-smi")
        return None if path is None else run([path, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"])

    @cached_property
    def gpus(self) -> list[Gpu]:
        if self.smi is None or self.smi.code != 0:
            return []
        rows = csv.reader(self.smi.output.splitlines(), skipinitialspace=True)
        return [Gpu(row[0], row[1], row[2], row[3], _number(row[4]), _number(row[5])) for row in rows if len(row) == 6]

    @cached_property
    def torch(self) -> Torch:
        told = run([self.python, "-P", "-c", _ASK_TORCH], limit_s=120, environment=self.environment)
        try:
            return Torch(**json.loads(told.output)) if told.code == 0 else Torch(reason=told.last_line)
        except (ValueError, TypeError):
            return Torch(reason=told.last_line)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0  # "[N/A]" where the card does not tell


def _environment_file(path: Path) -> dict[str, str]:
    """`NAME=VALUE` a line as systemd reads it, without its continued lines; nothing where it cannot be read."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = [line.split("=", 1) for line in map(str.strip, lines) if "=" in line and line[0] not in "#;"]
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}
