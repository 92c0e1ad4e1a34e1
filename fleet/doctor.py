"""The checks of `fleet doctor`, in the order in which a person reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from fleet import doctor_files, doctor_gpu, doctor_system
from fleet.doctor_site import Finding, Site, warning

Check = Callable[[Site], Finding]

CHECKS: Mapping[str, Check] = {
    "driver": doctor_gpu.driver,
    "cuda": doctor_gpu.cuda,
    "torch": doctor_gpu.torch,
    "gpu memory": doctor_gpu.gpu_memory,
    "ports": doctor_system.ports,
    "data": doctor_files.data,
    "keys": doctor_files.keys,
    "checkpoint": doctor_files.checkpoint,
    "store": doctor_files.store,
    "disk": doctor_files.disk,
    "clock": doctor_system.clock,
    "open files": doctor_system.open_files,
    "nginx": doctor_system.nginx,
    "units": doctor_system.units,
}


def examine(site: Site) -> Iterator[tuple[str, Finding]]:
    """Every check's name and what it found, as each comes."""
    for name, check in CHECKS.items():
        try:
            yield name, check(site)
        except OSError as error:
            yield name, warning(f"this could not be examined: {error}", "run this as root, or as the workers' user")
