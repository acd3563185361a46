"""The machine's NVIDIA GPUs, as NVML tells them (the only import of pynvml).

NVML numbers GPUs in PCI bus order and ignores device masks. What one GPU or one driver cannot tell becomes None, a GPU
that fails becomes a row that says so, and a machine without a driver becomes an empty inventory with a note: nothing
in here raises.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from llmlaunch.hardware.device_mask import visible
from llmlaunch.hardware.types import Gpu, GpuProcess, Inventory, Link, LinkKind, MigDevice

try:
    import pynvml

    # The second is none of the first: some wrappers raise it when the driver lacks the newest version of a function.
    NVMLError: tuple[type[Exception], ...] = (pynvml.NVMLError,)
    NVMLError += (getattr(pynvml, "NVMLLibraryMismatchError", pynvml.NVMLError),)
except ImportError:  # pragma: no cover - a broken installation
    pynvml = None
    NVMLError = ()

_GPU_GONE = frozenset({15, 16})  # GPU_IS_LOST, RESET_REQUIRED
_UNLISTED_BYTES = 1 << 30
"""With this much in use an empty process list means that the list is not for us, as in containers. Older drivers count
their own share, up to some 750 MiB, as used."""
_KINDS = {
    0: LinkKind.BOARD,
    10: LinkKind.SWITCH,
    20: LinkKind.MULTI_SWITCH,
    30: LinkKind.HOST_BRIDGE,
    40: LinkKind.NODE,
    50: LinkKind.SYSTEM,
}
_WHY_NOTHING = {
    4: "no permission to talk to the NVIDIA driver: check who may open /dev/nvidia*",
    9: "the NVIDIA driver is installed but not loaded",
    12: "no NVIDIA driver: libnvidia-ml.so.1 is not on this machine",
    13: "the NVIDIA driver is too old: its libnvidia-ml.so.1 lacks what is needed to count GPUs",
    18: "the NVIDIA driver was updated under a running kernel module (driver/library version mismatch): reboot, "
    "or reload the nvidia modules",
}
_PATIENCE_S = 60.0
"""The first call may have to wake every GPU of a box, which takes seconds each without persistence mode."""
_lock = threading.RLock()


def probe(env: Mapping[str, str] = os.environ, patience_s: float = _PATIENCE_S) -> Inventory:
    """One look at the machine. Never raises: what is missing is said in ``Inventory.note``.

    ``env`` holds the device mask that the program was started with. A driver in trouble may never answer, and a call
    into it cannot be interrupted, not even by Ctrl-C: after ``patience_s`` seconds it is left alone in its thread.
    """
    found: list[Inventory] = []

    def look() -> None:
        with Sampler(env) as sampler:
            found.append(sampler.sample())

    looking = threading.Thread(target=look, name="nvml", daemon=True)
    looking.start()
    looking.join(patience_s)
    return found[0] if found else Inventory(note=f"the NVIDIA driver did not answer within {patience_s:g} s")


def free_bytes(uuids: Iterable[str]) -> dict[str, int]:
    """Free memory of these GPUs and MIG instances now; those that cannot be asked are left out."""
    found: dict[str, int] = {}
    with _lock:
        if _start():
            return found
        try:
            for uuid in uuids:
                try:
                    found[uuid] = _memory(pynvml.nvmlDeviceGetHandleByUUID(uuid)).free
                except NVMLError:
                    continue
        finally:
            _stop()
    return found


class Sampler:
    """Looks at the machine again and again, with NVML kept initialised (a start costs tens of milliseconds).

    Links are read once per set of GPUs. When the driver goes away, the next sample starts NVML anew.
    """

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._env = dict(env)
        self._started = False
        self._links: tuple[tuple[str, ...], tuple[Link, ...]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let NVML go. Safe to call twice; the next sample starts it again."""
        with _lock:
            if self._started:
                self._started = False
                _stop()

    def sample(self) -> Inventory:
        """The machine now. Never raises."""
        with _lock:
            fresh = not self._started
            inventory, sound = self._try()
            if not sound:
                self.close()
                if not fresh:
                    inventory, sound = self._try()
                    if not sound:
                        self.close()
            return inventory

    def _try(self) -> tuple[Inventory, bool]:
        """An inventory, and whether NVML still works as it should."""
        if not self._started:
            note = _start()
            if note:
                return Inventory(note=note), False
            self._started = True
        try:
            count = int(pynvml.nvmlDeviceGetCount())
        except NVMLError as error:
            return Inventory(note=_why(error)), False
        rows = [_look(index) for index in range(count)]
        gpus = tuple(row.gpu for row in rows)
        allowed, remark = visible(gpus, self._env)
        notes = [remark, *_remarks(gpus)]
        inventory = Inventory(
            gpus=gpus,
            links=self._joined(rows),
            driver=str(_ask(pynvml.nvmlSystemGetDriverVersion) or ""),
            cuda=_cuda(_ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)),
            note="; ".join(note for note in notes if note),
            visible=allowed,
        )
        return inventory, not gpus or any(not gpu.lost for gpu in gpus)

    def _joined(self, rows: list[_Row]) -> tuple[Link, ...]:
        alive = [row for row in rows if not row.gpu.lost]
        key = tuple(row.gpu.uuid for row in alive)
        if self._links is None or self._links[0] != key:
            self._links = (key, _links(alive))
        return self._links[1]


@dataclass(frozen=True, slots=True)
class _Row:
    gpu: Gpu
    handle: Any


@dataclass(frozen=True, slots=True)
class _Memory:
    total: int
    reserved: int
    used: int
    free: int


def _start() -> str:
    """Initialise NVML; why it does not work, or empty."""
    if pynvml is None:
        return "the package nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except NVMLError as error:
        return _why(error)
    return ""


def _stop() -> None:
    try:
        pynvml.nvmlShutdown()
    except NVMLError:
        pass  # a driver that is gone has nothing left to shut down


def _code(error: Exception) -> int:
    return int(getattr(error, "value", 999))


def _why(error: Exception) -> str:
    return _WHY_NOTHING.get(_code(error), f"the NVIDIA driver reports: {error}")


def _ask(function: Callable[..., Any], *args: Any) -> Any:
    """What NVML answers; None when this driver or GPU does not tell. Raises NVMLError only for a GPU that is gone."""
    try:
        return function(*args)
    except NVMLError as error:
        if _code(error) in _GPU_GONE:
            raise
        return None


def _cuda(version: int | None) -> str:
    return f"{version // 1000}.{version % 1000 // 10}" if version else ""


def _remarks(gpus: tuple[Gpu, ...]) -> list[str]:
    if not gpus:
        return ["the NVIDIA driver works but shows no GPU"]
    if any(gpu.processes is None and not gpu.lost for gpu in gpus):
        return ["the driver does not list the processes on every GPU here, as is usual in a container"]
    return []


def _look(index: int) -> _Row:
    uuid, name, bus, handle = f"unknown-{index}", "", "", None
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _ask(pynvml.nvmlDeviceGetUUID, handle) or uuid
        name = _ask(pynvml.nvmlDeviceGetName, handle) or "unknown GPU"
        bus = _bus(_ask(pynvml.nvmlDeviceGetPciInfo, handle))
        return _Row(_gpu(index, uuid, name, bus, handle), handle)
    except NVMLError as error:
        # Beside a GPU that is gone, only its memory can end up here: without it there is nothing to plan with.
        why = str(error) if handle is None or _code(error) in _GPU_GONE else f"no memory figures: {error}"
        gone = Gpu(index, uuid, name or "unknown GPU", bus, 0, 0, 0, 0, processes=None, lost=why)
        return _Row(gone, handle)


def _gpu(index: int, uuid: str, name: str, bus: str, handle: Any) -> Gpu:
    memory = _memory(handle)
    instances = _mig_handles(handle)
    utilisation = _ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return Gpu(
        index=index,
        uuid=uuid,
        name=name,
        pci_bus=bus,
        total_bytes=memory.total,
        reserved_bytes=memory.reserved,
        used_bytes=memory.used,
        free_bytes=memory.free,
        utilisation=None if utilisation is None else int(utilisation.gpu),
        temperature=_temperature(handle),
        power_watts=_watts(_ask(pynvml.nvmlDeviceGetPowerUsage, handle)),
        power_limit_watts=_watts(_ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        compute_capability=_capability(_ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)),
        mig_enabled=instances is not None,
        mig=tuple(mig for item in instances or [] if (mig := _mig(item)) is not None),
        processes=_processes([handle, *(instances or [])], memory.used),
    )


def _memory(handle: Any) -> _Memory:
    """Version 2 tells the driver's own share apart; version 1, of older drivers, counts it as used."""
    try:
        two = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        return _Memory(int(two.total), int(two.reserved), int(two.used), int(two.free))
    except NVMLError as error:
        if _code(error) in _GPU_GONE:
            raise
    one = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return _Memory(int(one.total), 0, int(one.used), int(one.free))


def _bus(info: Any) -> str:
    """``0000:1B:00.0``, as nvidia-smi and lspci write it; NVML pads the domain to eight digits."""
    if info is None:
        return ""
    text = info.busId.decode() if isinstance(info.busId, bytes) else str(info.busId)
    return text[4:] if text.startswith("0000") and text.find(":") == 8 else text


def _temperature(handle: Any) -> int | None:
    for name in ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"):
        if hasattr(pynvml, name):
            value = _ask(getattr(pynvml, name), handle, pynvml.NVML_TEMPERATURE_GPU)
            if value is not None:
                return int(value)
    return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _capability(pair: Any) -> tuple[int, int] | None:
    return None if pair is None else (int(pair[0]), int(pair[1]))


def _mig_handles(handle: Any) -> list[Any] | None:
    """Handles of the MIG instances; None when MIG is off or unknown to this GPU. Slots may have holes."""
    mode = _ask(pynvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != 1:
        return None
    slots = _ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    found = (_ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot) for slot in range(slots))
    return [item for item in found if item is not None]


def _mig(handle: Any) -> MigDevice | None:
    uuid = _ask(pynvml.nvmlDeviceGetUUID, handle)
    memory = _ask(_memory, handle)
    if uuid is None or memory is None:
        return None
    return MigDevice(
        uuid=uuid,
        name=_ask(pynvml.nvmlDeviceGetName, handle) or "MIG device",
        total_bytes=memory.total,
        free_bytes=memory.free,
        used_bytes=memory.used,
        gpu_instance=int(_ask(pynvml.nvmlDeviceGetGpuInstanceId, handle) or 0),
        compute_instance=int(_ask(pynvml.nvmlDeviceGetComputeInstanceId, handle) or 0),
    )


def _processes(handles: list[Any], used: int) -> tuple[GpuProcess, ...] | None:
    lists = [rows for handle in handles for rows in _process_lists(handle) if rows is not None]
    if not lists:
        return None
    found: dict[int, int | None] = {}
    for row in (row for rows in lists for row in rows):
        pid, value = int(row.pid), row.usedGpuMemory
        known = found.get(pid)
        # A process that computes and draws, or holds several instances, stands in several lists.
        found[pid] = known if value is None else max(int(value), known or 0)
    if not found and used >= _UNLISTED_BYTES:
        return None
    return tuple(GpuProcess(pid, found[pid], _process_name(pid)) for pid in sorted(found))


def _process_lists(handle: Any) -> list[Any]:
    lists = []
    for kind in ("Compute", "Graphics"):
        rows = None
        for version in ("_v3", "_v2", ""):
            call = getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses{version}", None)
            rows = _ask(call, handle) if call and rows is None else rows
        lists.append(rows)
    return lists


def _process_name(pid: int) -> str:
    """Empty when the pid is not visible here: another user's, or of another pid namespace."""
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except (psutil.Error, ValueError):
        return ""


def _links(rows: list[_Row]) -> tuple[Link, ...]:
    lanes = [_lanes(row.handle) for row in rows]
    buses = {_bus_key(row.gpu.pci_bus) for row in rows}
    return tuple(
        _link(a, b, lanes[i], lanes[j], buses)
        for i, a in enumerate(rows)
        for j, b in enumerate(rows[i + 1 :], start=i + 1)
    )


def _link(a: _Row, b: _Row, lanes_a: Counter[str], lanes_b: Counter[str], buses: set[str]) -> Link:
    direct = lanes_a[_bus_key(b.gpu.pci_bus)]
    if direct:
        return Link(a.gpu.uuid, b.gpu.uuid, LinkKind.NVLINK, direct)
    status = _quiet(pynvml.nvmlDeviceGetP2PStatus, a.handle, b.handle, pynvml.NVML_P2P_CAPS_INDEX_NVLINK)
    if status == pynvml.NVML_P2P_STATUS_OK:
        to_switch = [sum(n for bus, n in lanes.items() if bus not in buses) for lanes in (lanes_a, lanes_b)]
        return Link(a.gpu.uuid, b.gpu.uuid, LinkKind.NVLINK, min(to_switch))
    level = _quiet(pynvml.nvmlDeviceGetTopologyCommonAncestor, a.handle, b.handle)
    return Link(a.gpu.uuid, b.gpu.uuid, _KINDS.get(level, LinkKind.UNKNOWN))


def _lanes(handle: Any) -> Counter[str]:
    """How many active NVLink lanes lead to each PCI bus id: another GPU's, or a switch's."""
    found: Counter[str] = Counter()
    for lane in range(int(getattr(pynvml, "NVML_NVLINK_MAX_LINKS", 18))):
        if _quiet(pynvml.nvmlDeviceGetNvLinkState, handle, lane) != 1:
            continue
        found[_bus_key(_bus(_quiet(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, lane)))] += 1
    return found


def _bus_key(bus: str) -> str:
    return bus.lower()


def _quiet(function: Callable[..., Any], *args: Any) -> Any:
    """Like ``_ask``, also for a GPU that is lost meanwhile: a link is worth no error."""
    try:
        return function(*args)
    except NVMLError:
        return None
