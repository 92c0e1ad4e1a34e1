"""`scripts/install`, into a root of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT
from tests.tools import require_tool

PREFIX = "opt/fleet"
WANTS = "etc/systemd/system/chatterbox.target.wants"


def run(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/install", "--prefix", f"/{PREFIX}", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def install(root: Path, *flags: str) -> str:
    require_tool("systemctl")
    done = run("--root", root, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tree(root: Path) -> dict[str, str | bytes]:
    """Every file's content and every link's target, by name."""
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def workers(root: Path) -> list[str]:
    return sorted(path.name for path in (root / WANTS).glob("chatterbox-worker@*"))


def test_installing_again_changes_nothing(tmp_path: Path) -> None:
    """Programs, units, settings and the site are there after the first time, and the same after the second."""
    install(tmp_path, "--gpus", "2")
    before = tree(tmp_path)
    for name in (
        f"{PREFIX}/balancer/__main__.py",
        "etc/chatterbox-fleet/worker.env",
        f"{WANTS}/chatterbox-balancer.socket",
    ):
        assert name in before
    assert before["etc/nginx/sites-enabled/chatterbox-fleet.conf"] == "../sites-available/chatterbox-fleet.conf"
    settings = (tmp_path / "etc/chatterbox-fleet/balancer.env").read_text()
    assert "BALANCER_WORKERS=http://127.0.0.1:6100,http://127.0.0.1:6101\n" in settings
    assert workers(tmp_path) == ["chatterbox-worker@0.service", "chatterbox-worker@1.service"]
    install(tmp_path, "--gpus", "2")
    assert tree(tmp_path) == before


def test_only_one_site_is_enabled(tmp_path: Path) -> None:
    """Where the site with TLS is linked, or nginx's own default is, which claim the same port, ours is not."""
    enabled = tmp_path / "etc/nginx/sites-enabled"
    enabled.mkdir(parents=True)
    for other in ("default", "chatterbox-fleet-tls.conf"):
        (enabled / other).symlink_to(f"../sites-available/{other}")
        install(tmp_path)
        assert [path.name for path in enabled.iterdir()] == [other]
        (enabled / other).unlink()


def test_what_is_installed_runs(tmp_path: Path) -> None:
    """The programs need nothing that was left behind, and systemd understands units that name the prefix."""
    install(tmp_path)
    home = tmp_path / PREFIX
    script = "import balancer.__main__, workers.__main__, fleet.cli; print(fleet.__file__)"
    told = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**os.environ, "PYTHONPATH": str(home)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.strip() == str(home / "fleet/__init__.py")
    for unit in ("chatterbox-balancer.service", "chatterbox-worker@.service"):
        assert f"ExecStart=/{PREFIX}/.venv/bin/python" in (tmp_path / "etc/systemd/system" / unit).read_text()


def test_edited_settings_are_kept(tmp_path: Path) -> None:
    """An edited file stays as it is, with the newer example beside it; one that nobody edited follows."""
    install(tmp_path, "--gpus", "1")
    settings = tmp_path / "etc/chatterbox-fleet"
    balancer = settings / "balancer.env"
    install(tmp_path, "--gpus", "2")
    assert "6101" in balancer.read_text()
    balancer.write_text("BALANCER_MAX_QUEUE=7\n")
    assert "kept as it was edited" in install(tmp_path, "--gpus", "3")
    assert balancer.read_text() == "BALANCER_MAX_QUEUE=7\n"
    assert "6102" in (settings / "balancer.env.new").read_text()


def test_fewer_gpus_and_keys_are_followed(tmp_path: Path) -> None:
    """Workers beyond the number are disabled, and the keys are handed over once there is a file of them."""
    install(tmp_path, "--gpus", "3")
    keys = tmp_path / "etc/chatterbox-fleet/api-keys"
    drop_in = tmp_path / "etc/systemd/system/chatterbox-balancer.service.d/credentials.conf"
    assert not drop_in.exists()
    keys.write_text("3f9c0e51d2b84a7790aa61bd2f6c\n")
    install(tmp_path, "--gpus", "1")
    assert workers(tmp_path) == ["chatterbox-worker@0.service"]
    assert "LoadCredential=api-keys:" in drop_in.read_text()


def test_uninstalling_keeps_what_is_the_operators(tmp_path: Path) -> None:
    """Settings, keys, voices and the site's text stay; `--purge` removes them too, and either may be repeated."""
    install(tmp_path)
    voices = tmp_path / "var/lib/chatterbox-fleet/library.db"
    voices.parent.mkdir(parents=True)
    voices.write_text("voices")
    for _ in ("first", "again"):
        install(tmp_path, "--uninstall")
        left = set(tree(tmp_path))
        sites = {name for name in left if name.startswith("etc/nginx/")}
        assert left - sites == {
            "etc/chatterbox-fleet/.installed",
            "etc/chatterbox-fleet/balancer.env",
            "etc/chatterbox-fleet/worker.env",
            "var/lib/chatterbox-fleet/library.db",
        }
        assert "etc/nginx/sites-available/chatterbox-fleet.conf" in sites
        assert not any(name.startswith("etc/nginx/sites-enabled/") for name in sites)
    assert not (tmp_path / PREFIX).exists()
    for _ in ("first", "again"):
        install(tmp_path, "--purge")
        assert tree(tmp_path) == {}


@pytest.mark.parametrize("action", [(), ("--uninstall",), ("--purge",)])
def test_dry_run_writes_nothing(tmp_path: Path, action: tuple[str, ...]) -> None:
    """Each step is told, none is done: on an empty root, which is not even made, and on an installed one."""
    told = install(tmp_path / "new", *action, "--dry-run").splitlines()
    assert not (tmp_path / "new").exists()
    assert len(told) > 5
    assert all(line.startswith("would ") for line in told)
    install(tmp_path)
    before = tree(tmp_path)
    install(tmp_path, *action, "--dry-run")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--prefix", "here"), "absolute path"),
        (("--prefix", "/"), "absolute path"),
        (("--prefix", "/home/me/fleet"), "no home directory"),
        (("--prefix", "/opt/../etc"), "letters, digits"),
        (("--gpus", "11"), "between 1 and 10"),
        (("--gpus", "two"), "between 1 and 10"),
        (("--lock", "dev"), "serve or chatterbox"),
        (("--root",), "needs a value"),
        (("--frobnicate",), "usage:"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, flags: tuple[str, ...], told: str) -> None:
    """With one line, and before anything is written."""
    done = run("--root", tmp_path, *flags)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert not any(tmp_path.iterdir())


def test_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """A prefix that holds other things is neither installed into nor removed."""
    other = tmp_path / PREFIX / "docs/precious"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    done = run("--root", tmp_path)
    assert done.returncode == 1
    assert "holds something else" in done.stderr
    run("--root", tmp_path, "--purge")
    assert other.read_text() == "mine"
