"""NVML, NVIDIA's management library, through pynvml (its only import): one function for each question.

A question that one GPU or one driver cannot answer is answered by None. NVMLError goes through where it matters to the
caller: for a GPU that is gone, and for what nothing works without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

try:
    import pynvml

    # The second does not derive from the first: some wrappers raise it when the driver lacks the newest version of a
    # function.
    NVMLError: tuple[type[Exception], ...] = (pynvml.NVMLError,)
    NVMLError += (getattr(pynvml, "NVMLLibraryMismatchError", pynvml.NVMLError),)
except ImportError:  # pragma: no cover - a broken installation
    pynvml = None
    NVMLError = ()

_NOT_SUPPORTED, _NO_PERMISSION = 3, 4
_GPU_GONE = frozenset({15, 16})  # GPU_IS_LOST, RESET_REQUIRED
_MESSAGES = {
    4: "no permission to talk to the NVIDIA driver: check who may open /dev/nvidia*",
    9: "the NVIDIA driver is installed but not loaded",
    12: "no NVIDIA driver: libnvidia-ml.so.1 is not on this machine",
    13: "the NVIDIA driver is too old: its libnvidia-ml.so.1 lacks what is needed to count GPUs",
    18: "the NVIDIA driver was updated under a running kernel module (driver/library version mismatch): reboot, "
    "or reload the nvidia modules",
}
_NO_PACKAGE = "the package nvidia-ml-py is not installed"
NOT_HERE = (_MESSAGES[12], _NO_PACKAGE)
"""What :func:`start` says where NVML is missing, which tells nothing about GPUs."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a GPU or a MIG instance, in bytes. ``reserved`` is the driver's own share, 0 where it is counted as used."""

    total: int
    reserved: int
    used: int
    free: int


# -- the library ---------------------------------------------------------------------------------------------------------


def start() -> str:
    """Initialise NVML; why it does not work, or empty. Calls are counted: each needs its own :func:`stop`."""
    if pynvml is None:
        return _NO_PACKAGE
    try:
        pynvml.nvmlInit()
    except NVMLError as error:
        return message(error)
    return ""


def stop() -> None:
    """Let NVML go. Never raises."""
    try:
        pynvml.nvmlShutdown()
    except NVMLError:
        pass  # a driver that is gone has nothing left to shut down


def message(error: Exception) -> str:
    """What is wrong with the driver, for a user to read."""
    return _MESSAGES.get(_code(error), f"the NVIDIA driver reports: {error}")


def gpu_gone(error: Exception) -> bool:
    """Whether ``error`` means that the GPU fell off the bus or must be reset."""
    return _code(error) in _GPU_GONE


def not_supported(error: Exception) -> bool:
    """Whether ``error`` means that a GPU has no such thing."""
    return _code(error) == _NOT_SUPPORTED


def no_permission(error: Exception) -> bool:
    """Whether ``error`` means that this process may not use a GPU: a container or a batch system keeps it from us."""
    return _code(error) == _NO_PERMISSION


def driver_version() -> str:
    """``580.95.05``; empty when unknown."""
    return str(_ask(pynvml.nvmlSystemGetDriverVersion) or "")


def cuda_version() -> str:
    """The newest CUDA that the driver supports, ``13.0``; empty when unknown."""
    version = _ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    return f"{version // 1000}.{version % 1000 // 10}" if version else ""


def gpu_count() -> int:
    """How many GPUs the driver shows. Raises NVMLError."""
    return int(pynvml.nvmlDeviceGetCount())


# -- one GPU or MIG instance ---------------------------------------------------------------------------------------------


def handle_by_index(index: int) -> Any:
    """What the other functions ask about, of the GPU at ``index`` in PCI bus order. Raises NVMLError."""
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def uuid(handle: Any) -> str | None:
    """``GPU-…`` or ``MIG-…``."""
    return _ask(pynvml.nvmlDeviceGetUUID, handle)  # type: ignore[no-any-return]


def name(handle: Any) -> str | None:
    """``NVIDIA H100 80GB HBM3``."""
    return _ask(pynvml.nvmlDeviceGetName, handle)  # type: ignore[no-any-return]


def pci_bus(handle: Any) -> str:
    """The PCI bus id as :func:`_bus_id` writes it; empty when unknown."""
    return _bus_id(_ask(pynvml.nvmlDeviceGetPciInfo, handle))


def memory(handle: Any) -> Memory:
    """Version 2 tells the driver's own share apart; version 1, of older drivers, counts it as used. Raises NVMLError."""
    try:
        two = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        return Memory(int(two.total), int(two.reserved), int(two.used), int(two.free))
    except NVMLError as error:
        if gpu_gone(error):
            raise
    one = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Memory(int(one.total), 0, int(one.used), int(one.free))


def utilisation(handle: Any) -> int | None:
    """Percent of the last sampling period in which a kernel ran."""
    rates = _ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return None if rates is None else int(rates.gpu)


def temperature(handle: Any) -> int | None:
    """Degrees Celsius."""
    for function in ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"):
        if hasattr(pynvml, function):
            value = _ask(getattr(pynvml, function), handle, pynvml.NVML_TEMPERATURE_GPU)
            if value is not None:
                return int(value)
    return None


def power_watts(handle: Any) -> float | None:
    """What it draws now."""
    return _watts(_ask(pynvml.nvmlDeviceGetPowerUsage, handle))


def power_limit_watts(handle: Any) -> float | None:
    """What it may draw."""
    return _watts(_ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle))


def compute_capability(handle: Any) -> tuple[int, int] | None:
    """Major and minor: (9, 0) for Hopper."""
    pair = _ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    return None if pair is None else (int(pair[0]), int(pair[1]))


def compute_mode(handle: Any) -> int:
    """As nvmlComputeMode_t numbers it; 0, the default, where it is not told."""
    return int(_ask(pynvml.nvmlDeviceGetComputeMode, handle) or 0)


def running_processes(handle: Any) -> list[list[tuple[int, int | None]] | None]:
    """Pids with their bytes on this GPU, in two lists: those that compute and those that draw.

    None in the place of a list that the driver keeps from us; None in the place of bytes that it does not tell.
    """
    return [_running(handle, kind) for kind in ("Compute", "Graphics")]


def _running(handle: Any, kind: str) -> list[tuple[int, int | None]] | None:
    for version in ("_v3", "_v2", ""):
        call = getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses{version}", None)
        rows = _ask(call, handle) if call else None
        if rows is not None:
            return [
                (int(row.pid), None if row.usedGpuMemory is None else int(row.usedGpuMemory)) for row in rows
            ]
    return None


def mig_handles(handle: Any) -> list[Any] | None:
    """Handles of the MIG instances; None when MIG is off or unknown to this GPU. Slots may have holes."""
    mode = _ask(pynvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != 1:
        return None
    slots = _ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    found = (_ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot) for slot in range(slots))
    return [item for item in found if item is not None]


def mig_memory(handle: Any) -> Memory | None:
    """Of a MIG instance; None when it is not told. Raises NVMLError only when its GPU is gone."""
    return _ask(memory, handle)  # type: ignore[no-any-return]


def mig_place(handle: Any) -> tuple[int, int]:
    """The ids of a MIG device's GPU instance and compute instance."""
    gpu = _ask(pynvml.nvmlDeviceGetGpuInstanceId, handle)
    compute = _ask(pynvml.nvmlDeviceGetComputeInstanceId, handle)
    return int(gpu or 0), int(compute or 0)


# -- how GPUs are connected ----------------------------------------------------------------------------------------------


def nvlink_lanes(handle: Any) -> Counter[str]:
    """How many active NVLink lanes lead to each PCI bus id, in lower case: another GPU's, or a switch's."""
    found: Counter[str] = Counter()
    for lane in range(int(getattr(pynvml, "NVML_NVLINK_MAX_LINKS", 18))):
        if _ask_quietly(pynvml.nvmlDeviceGetNvLinkState, handle, lane) != 1:
            continue
        found[_bus_id(_ask_quietly(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, lane)).lower()] += 1
    return found


def nvlink_between(handle: Any, other: Any) -> bool:
    """Whether two GPUs reach each other's memory over NVLink, through switches or not."""
    status = _ask_quietly(pynvml.nvmlDeviceGetP2PStatus, handle, other, pynvml.NVML_P2P_CAPS_INDEX_NVLINK)
    return bool(status == pynvml.NVML_P2P_STATUS_OK)


def common_ancestor(handle: Any, other: Any) -> int | None:
    """The nearest thing on the way from one GPU to another, as nvmlGpuTopologyLevel_t numbers them."""
    return _ask_quietly(pynvml.nvmlDeviceGetTopologyCommonAncestor, handle, other)  # type: ignore[no-any-return]


# -- asking --------------------------------------------------------------------------------------------------------------


def _code(error: Exception) -> int:
    return int(getattr(error, "value", 999))


def _ask(function: Callable[..., Any], *args: Any) -> Any:
    """What NVML answers; None when this driver or GPU does not tell. Raises NVMLError only for a GPU that is gone."""
    try:
        return function(*args)
    except NVMLError as error:
        if gpu_gone(error):
            raise
        return None


def _ask_quietly(function: Callable[..., Any], *args: Any) -> Any:
    """Like ``_ask``, also for a GPU that is lost meanwhile: a link is not worth an error."""
    try:
        return function(*args)
    except NVMLError:
        return None


def _bus_id(info: Any) -> str:
    """``0000:1B:00.0``, as nvidia-smi and lspci write it; NVML pads the domain to eight digits."""
    if info is None:
        return ""
    text = info.busId.decode() if isinstance(info.busId, bytes) else str(info.busId)
    return text[4:] if text.startswith("0000") and text.find(":") == 8 else text


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
