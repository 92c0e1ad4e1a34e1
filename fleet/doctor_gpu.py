"""Checks of the GPUs: the driver, its CUDA, torch's match with both, and free memory."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fleet.doctor_site import Finding, Site, not_applicable, ok, problem, program, run, warning

LEAST_FREE = 4096
"""MiB: the model's weights, CUDA's own share and room for keys and values of a few requests."""

_NONE = "there is no NVIDIA GPU to use"


def driver(site: Site) -> Finding:
    if site.smi is None:
        if site.wants_gpu:
            return problem("CHATTERBOX_DEVICE is cuda, and nvidia-smi is not installed", "install the NVIDIA driver")
        return not_applicable("nvidia-smi is not installed: workers compute on the CPU")
    if site.smi.code != 0:
        return problem(
            f"nvidia-smi fails: {site.smi.last_line}",
            "load the kernel module (modprobe nvidia); after a kernel or driver update, reboot; see dmesg",
        )
    if not site.gpus:
        return problem("nvidia-smi lists no GPU", "see whether the card is seated and in lspci, and look into dmesg")
    names = ", ".join(gpu.name for gpu in site.gpus)
    return ok(f"driver {site.gpus[0].driver} with {len(site.gpus)} GPU(s): {names}")


def cuda(site: Site) -> Finding:
    """CUDA's minor versions are compatible: the driver must know torch's major one."""
    smi = program("nvidia-smi")
    if not site.gpus or smi is None:
        return not_applicable(_NONE)
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", run([smi]).output)
    if found is None:
        return warning("nvidia-smi does not tell the CUDA version of the driver", "update the NVIDIA driver")
    known = f"{found[1]}.{found[2]}"
    wanted = site.torch.cuda
    if wanted is not None and int(wanted.split(".", maxsplit=1)[0]) > int(found[1]):
        return problem(
            f"the driver knows CUDA {known}, and torch is built for {wanted}",
            f"update the NVIDIA driver to one for CUDA {wanted}, or install torch for CUDA {known}",
        )
    return ok(f"the driver knows CUDA {known}")


def torch(site: Site) -> Finding:
    """Machine code for another minor version of the same major one runs; PTX (compute_XY) runs on all newer cards."""
    found = site.torch
    if found.reason is not None:
        if site.wants_model or site.gpus:
            return problem(
                f"{site.python} cannot import torch: {found.reason}",
                "install what requirements/chatterbox.lock lists: `scripts/up --engine chatterbox` does",
            )
        return not_applicable("torch is not installed; the embedded voice does without")
    if not site.gpus:
        return ok(f"torch {found.version}, on the CPU")
    if found.cuda is None:
        return problem(f"torch {found.version} is built for the CPU alone", "install torch from its CUDA packages")
    foreign = [gpu for gpu in site.gpus if not _runs(gpu.capability, found.architectures)]
    if foreign:
        which = ", ".join(f"{gpu.name} (compute capability {gpu.capability})" for gpu in foreign)
        built = " ".join(found.architectures)
        return problem(
            f"torch {found.version} is built for {built}, not for {which}",
            "install a torch that is built for this card, or leave the card out by CUDA_VISIBLE_DEVICES",
        )
    return ok(f"torch {found.version} for CUDA {found.cuda} runs on every GPU here")


def _runs(capability: str, architectures: Sequence[str]) -> bool:
    mine = _version(capability.replace(".", ""))
    for architecture in architectures:
        kind, _, digits = architecture.partition("_")
        built = _version(re.sub(r"\D", "", digits))
        if built <= mine and (kind == "compute" or built[0] == mine[0]):
            return True
    return False


def _version(digits: str) -> tuple[int, int]:
    return (int(digits[:-1] or 0), int(digits[-1])) if digits else (0, 0)


def gpu_memory(site: Site) -> Finding:
    if not site.gpus:
        return not_applicable(_NONE)
    small = [gpu for gpu in site.gpus if gpu.total < LEAST_FREE]
    if small:
        which = ", ".join(f"GPU {gpu.index} has {gpu.total} MiB" for gpu in small)
        return problem(f"{which}; the model needs {LEAST_FREE}", "leave the GPU out by CUDA_VISIBLE_DEVICES")
    full = [gpu for gpu in site.gpus if gpu.free < LEAST_FREE]
    if full:
        which = ", ".join(f"GPU {gpu.index} has {gpu.free} MiB free of {gpu.total}" for gpu in full)
        return warning(
            f"{which}; a worker that starts needs {LEAST_FREE}",
            "nothing to do where the fleet's own workers hold it; else end what nvidia-smi lists on that GPU",
        )
    return ok(", ".join(f"GPU {gpu.index}: {gpu.free} of {gpu.total} MiB free" for gpu in site.gpus))
