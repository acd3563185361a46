"""Which GPUs a device mask leaves to this program.

CUDA_VISIBLE_DEVICES as the CUDA C++ Programming Guide ("CUDA environment variables") describes it: a comma-separated list
of indexes in CUDA's order, or of UUIDs that may be cut short; the list ends at the first entry that names nothing.
NVML ignores the mask, so it has to be applied by hand.

NVIDIA_VISIBLE_DEVICES is no mask: it tells a container runtime which GPUs to put into a container, and CUDA never reads
it. Where the runtime works by CDI it says ``void`` in every container that has GPUs. What NVML shows decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmlaunch.hardware.types import Gpu

NO_DEVICES = ("", "-1", "none", "void", "nodevfiles")


def visible(gpus: Sequence[Gpu], env: Mapping[str, str]) -> tuple[tuple[str, ...] | None, str]:
    """The UUIDs (GPU and MIG) that ``env`` allows, in the mask's order, and a remark about it; ``(None, "")``: all."""
    mask = env.get("CUDA_VISIBLE_DEVICES")
    if mask is None:
        return None, ""
    if mask.strip().lower() in NO_DEVICES:
        return (), f"CUDA_VISIBLE_DEVICES={mask!r} hides every GPU"
    allowed: list[str] = []
    remark = ""
    for entry in (part.strip() for part in mask.split(",")):
        found = _by_index(entry, gpus) if _is_index(entry) else _by_uuid(entry, gpus)
        if not found:
            remark = (
                f"CUDA_VISIBLE_DEVICES={mask!r}: {entry!r} does not name one device; CUDA ignores the rest"
            )
            break
        if found[0] in allowed:
            return (), f"CUDA_VISIBLE_DEVICES={mask!r} names {entry!r} twice; CUDA then shows no GPU"
        allowed.extend(found)
    if not remark and _ambiguous(mask, gpus, env):
        remark = (
            f"CUDA_VISIBLE_DEVICES={mask!r} counts fastest first unless CUDA_DEVICE_ORDER=PCI_BUS_ID; "
            "this box has different GPUs, so it is read in PCI order here; name UUIDs to be sure"
        )
    return tuple(allowed), remark


def _is_index(entry: str) -> bool:
    return entry.isascii() and entry.isdigit()


def _by_index(entry: str, gpus: Sequence[Gpu]) -> list[str]:
    return next((_with_parts(gpu) for gpu in gpus if gpu.index == int(entry)), [])


def _by_uuid(entry: str, gpus: Sequence[Gpu]) -> list[str]:
    if entry.startswith("MIG-GPU-"):
        return _by_legacy_mig(entry, gpus)
    if not entry.startswith(("GPU-", "MIG-")):
        return []
    matches = [_with_parts(gpu) for gpu in gpus if gpu.uuid.startswith(entry)]
    matches += [[mig.uuid] for gpu in gpus for mig in gpu.mig if mig.uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else []


def _by_legacy_mig(entry: str, gpus: Sequence[Gpu]) -> list[str]:
    """``MIG-<GPU UUID>/<GPU instance>/<compute instance>``, the form of drivers before R470."""
    uuid, _, instances = entry.removeprefix("MIG-").partition("/")
    for gpu in gpus:
        for mig in gpu.mig:
            if gpu.uuid == uuid and f"{mig.gpu_instance}/{mig.compute_instance}" == instances:
                return [mig.uuid]
    return []


def _with_parts(gpu: Gpu) -> list[str]:
    return [gpu.uuid, *(mig.uuid for mig in gpu.mig)]


def _ambiguous(mask: str, gpus: Sequence[Gpu], env: Mapping[str, str]) -> bool:
    by_index = any(_is_index(part.strip()) for part in mask.split(","))
    pci_order = env.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    return by_index and not pci_order and len({gpu.name for gpu in gpus}) > 1
