"""Checks of the machine around the fleet: ports, the clock, limits, nginx and the systemd units."""

from __future__ import annotations

import errno
import json
import resource
import socket
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from fleet.doctor_site import PROJECT, Finding, Site, not_applicable, ok, problem, program, run, warning

LEAST_FILES, GOOD_FILES = 1024, 4096
"""Open files of a process; a request that is passed on holds two."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ports(site: Site) -> Finding:
    """Each is free, or one of the fleet's own servers answers there."""
    wanted = {site.balancer_port: "balancer"} | dict.fromkeys(site.worker_ports, "worker")
    free, ours = [], []
    for port, role in wanted.items():
        if _is_free(port):
            free.append(str(port))
        elif _role(port) == role:
            ours.append(str(port))
        else:
            setting = "BALANCER_PORT" if role == "balancer" else "CHATTERBOX_PORT and BALANCER_WORKERS"
            return problem(
                f"port {port}, the {role}'s, is held by another program",
                f"find it with `ss -ltnp 'sport = :{port}'` and stop it, or choose another port: {setting}",
            )
    told = [f"{what} {', '.join(found)}" for what, found in (("free:", free), ("our own:", ours)) if found]
    return ok("; ".join(told))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _role(port: int) -> str | None:
    try:
        with _DIRECT.open(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            told = json.loads(answer.read(2**20))
    except (OSError, ValueError):
        return None
    return str(told.get("role")) if isinstance(told, Mapping) else None


def clock(_site: Site) -> Finding:
    """Not before this program was written, and kept by somebody where that can be known."""
    written = Path(__file__).stat().st_mtime
    if time.time() < written - 86_400:
        return problem(
            f"the clock says {time.strftime('%Y-%m-%d', time.gmtime())}, before this program was written",
            "set it: `timedatectl set-ntp true`",
        )
    told = run(["timedatectl", "show", "--property=NTPSynchronized", "--value"], limit_s=5)
    if told.output.strip() == "no":
        return warning("nothing keeps the clock: it is not synchronised", "`timedatectl set-ntp true`")
    known = "kept by NTP" if told.output.strip() == "yes" else "whether NTP keeps it cannot be told here"
    return ok(f"the clock is plausible; {known}")


def open_files(_site: Site) -> Finding:
    """The hard limit counts: the servers raise their own soft one to it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return ok("a process may have any number of files open")
    said = f"a process may have at most {most} files open"
    mend = f"raise the limit: LimitNOFILE={GOOD_FILES} in the units, or `nofile` in /etc/security/limits.conf"
    if most < LEAST_FILES:
        return problem(f"{said}; streams would fail under load", mend)
    if most < GOOD_FILES:
        return warning(f"{said}; the balancer runs out of them at some {most // 2} streams", mend)
    return ok(said)


def nginx(site: Site) -> Finding:
    path = program("nginx")
    if path is None or not site.nginx_configuration.exists():
        return not_applicable("nginx is not installed; it is needed for TLS and callers from outside only")
    told = run([path, "-T", "-q", "-c", str(site.nginx_configuration.absolute())])
    if "Permission denied" in told.errors:
        return warning("this user may not read all of nginx's configuration", "run this as root")
    if told.code != 0:
        line = next((line for line in told.errors.splitlines() if "[emerg]" in line), told.last_line)
        return problem(f"nginx refuses its configuration: {line}", "mend that line, then `nginx -t`")
    if "upstream chatterbox" not in told.output:
        return warning(
            "nginx's configuration is valid and does not hold the fleet's site",
            "link nginx/chatterbox-fleet.conf into sites-enabled/, then `nginx -s reload`",
        )
    return ok("nginx's configuration is valid and holds the fleet's site")


def units(site: Site) -> Finding:
    installed = sorted(path for path in site.units.glob("chatterbox*") if path.is_file())
    if not installed:
        return not_applicable(f"no units of the fleet are in {site.units}")
    ours = sorted(path.name for path in (PROJECT / "systemd").glob("chatterbox*"))
    missing = [name for name in ours if not (site.units / name).is_file()]
    if missing:
        return problem(f"{site.units} lacks {', '.join(missing)}", "install the units anew: scripts/install")
    analyze = program("systemd-analyze")
    if analyze is not None:
        told = run([analyze, "verify", "--man=no", "--recursive-errors=no", *map(str, installed)], limit_s=60)
        if told.code != 0:
            return problem(f"systemd refuses a unit: {told.last_line}", "install the units anew: scripts/install")
    if Path("/run/systemd/system").is_dir():
        failed = run(["systemctl", "list-units", "--failed", "--plain", "--no-legend", "chatterbox*"])
        names = [line.split()[0] for line in failed.output.splitlines() if line.strip()]
        if names:
            return problem(f"failed: {', '.join(names)}", f"`journalctl -u {names[0]}` says why")
        if run(["systemctl", "is-enabled", "--quiet", "chatterbox.target"]).code != 0:
            return warning("the fleet does not start at boot", "`systemctl enable chatterbox.target`")
    return ok("the units are installed and systemd accepts them")
