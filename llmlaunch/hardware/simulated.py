"""Simulated hardware: a machine described in words, or an inventory saved on another one.

``4xA100-80GB,2xL4`` or ``2x24GiB`` stands for idle GPUs; a file written by ``llmlaunch gpus --json`` comes back as it was.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from llmlaunch.common.spelling import closest
from llmlaunch.errors import HardwareError
from llmlaunch.hardware.types import Gpu, GpuProcess, Inventory, Link, LinkKind, MigDevice

FORMAT = 1
MAX_GPUS = 512
_MIB = 1 << 20
_ENTRY = re.compile(r"^(?:(?P<count>\d{1,18})\s*[x*]\s*)?(?P<name>.+)$", re.IGNORECASE)
_SIZE = re.compile(r"^(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>GiB|GB|MiB|MB|G|M)$", re.IGNORECASE)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Model:
    """What NVML reports for a kind of GPU. Memory in MiB; ``nvlinks``: lanes to the other GPUs of its box."""

    name: str
    total: int
    reserved: int
    capability: tuple[int, int]
    nvlinks: int = 0


# Short name -> what NVML says. Totals are exact for a kind of GPU; the reserved memory is typical, and differs by some
# tens of MiB between drivers.
MODELS = {
    "V100-16GB": Model("Tesla V100-SXM2-16GB", 16384, 228, (7, 0), 6),
    "V100-32GB": Model("Tesla V100-SXM2-32GB", 32768, 271, (7, 0), 6),
    "T4": Model("Tesla T4", 15360, 447, (7, 5)),
    "P100": Model("Tesla P100-PCIE-16GB", 16384, 216, (6, 0)),
    "RTX2080Ti": Model("NVIDIA GeForce RTX 2080 Ti", 11264, 245, (7, 5)),
    "RTX3060": Model("NVIDIA GeForce RTX 3060", 12288, 238, (8, 6)),
    "RTX3080": Model("NVIDIA GeForce RTX 3080", 10240, 225, (8, 6)),
    "RTX3090": Model("NVIDIA GeForce RTX 3090", 24576, 311, (8, 6)),
    "RTX4060Ti": Model("NVIDIA GeForce RTX 4060 Ti", 16380, 367, (8, 9)),
    "RTX4070": Model("NVIDIA GeForce RTX 4070", 12282, 356, (8, 9)),
    "RTX4080": Model("NVIDIA GeForce RTX 4080", 16376, 382, (8, 9)),
    "RTX4090": Model("NVIDIA GeForce RTX 4090", 24564, 516, (8, 9)),
    "RTX5090": Model("NVIDIA GeForce RTX 5090", 32607, 518, (12, 0)),
    "RTXA4000": Model("NVIDIA RTX A4000", 16376, 261, (8, 6)),
    "RTXA5000": Model("NVIDIA RTX A5000", 24564, 310, (8, 6)),
    "RTXA6000": Model("NVIDIA RTX A6000", 49140, 454, (8, 6)),
    "RTX6000Ada": Model("NVIDIA RTX 6000 Ada Generation", 49140, 633, (8, 9)),
    "A10": Model("NVIDIA A10", 23028, 307, (8, 6)),
    "A10G": Model("NVIDIA A10G", 23028, 307, (8, 6)),
    "A16": Model("NVIDIA A16", 15356, 260, (8, 6)),
    "A30": Model("NVIDIA A30", 24576, 434, (8, 0)),
    "A40": Model("NVIDIA A40", 46068, 436, (8, 6)),
    "A100-40GB": Model("NVIDIA A100-SXM4-40GB", 40960, 524, (8, 0), 12),
    "A100-80GB": Model("NVIDIA A100-SXM4-80GB", 81920, 669, (8, 0), 12),
    "A100-PCIE-40GB": Model("NVIDIA A100-PCIE-40GB", 40960, 524, (8, 0)),
    "A100-PCIE-80GB": Model("NVIDIA A100 80GB PCIe", 81920, 669, (8, 0)),
    "L4": Model("NVIDIA L4", 23034, 566, (8, 9)),
    "L40": Model("NVIDIA L40", 46068, 633, (8, 9)),
    "L40S": Model("NVIDIA L40S", 46068, 598, (8, 9)),
    "H100-80GB": Model("NVIDIA H100 80GB HBM3", 81559, 551, (9, 0), 18),
    "H100-PCIE-80GB": Model("NVIDIA H100 PCIe", 81559, 551, (9, 0)),
    "H100-NVL-94GB": Model("NVIDIA H100 NVL", 95830, 600, (9, 0)),
    "H200-141GB": Model("NVIDIA H200", 143771, 633, (9, 0), 18),
    "GH200-96GB": Model("NVIDIA GH200 480GB", 97871, 620, (9, 0)),
    "B200-180GB": Model("NVIDIA B200", 183359, 750, (10, 0), 18),
}
_ALIASES = {
    "V100": "V100-16GB", "A100": "A100-80GB", "A100-PCIE": "A100-PCIE-80GB", "H100": "H100-80GB",
    "H100-PCIE": "H100-PCIE-80GB", "H100-NVL": "H100-NVL-94GB", "H200": "H200-141GB", "GH200": "GH200-96GB",
    "B200": "B200-180GB", "3090": "RTX3090", "4090": "RTX4090", "5090": "RTX5090", "A6000": "RTXA6000",
    "A5000": "RTXA5000", "A4000": "RTXA4000", "A100-SXM4-40GB": "A100-40GB", "A100-SXM4-80GB": "A100-80GB",
}  # fmt: skip


def parse(text: str) -> Inventory:
    """A box of idle GPUs: ``NxNAME``, ``NxNAME-SIZE`` or ``Nx24GiB``, joined by commas; ``0`` is a box without.

    Equal GPUs that have NVLink are joined by it, all others by their host. Raises HardwareError.
    """
    if text.strip() in ("0", "none"):
        return Inventory(note="a simulated box without GPUs", simulated=True)
    models: list[Model] = []
    for part in text.split(","):
        count, model = _entry(part.strip())
        if len(models) + count > MAX_GPUS:
            raise HardwareError(f"--gpus {text!r}: more than {MAX_GPUS} GPUs")
        models += [model] * count
    gpus = tuple(_gpu(index, model) for index, model in enumerate(models))
    links = tuple(
        _link(gpus[i], gpus[j], models[i], models[j])
        for i in range(len(gpus))
        for j in range(i + 1, len(gpus))
    )
    return Inventory(gpus=gpus, links=links, note="simulated", simulated=True)


def load(path_or_json: str | Path) -> Inventory:
    """An inventory saved by ``llmlaunch gpus --json``, from a file or from the JSON itself. Raises HardwareError."""
    text, where = str(path_or_json), "the given JSON"
    if not text.lstrip().startswith("{"):
        where = text
        try:
            text = _expanded(path_or_json).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise HardwareError(f"{where}: cannot be read: {reason}") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HardwareError(f"{where}: not JSON: {error}") from error
    try:
        return _inventory(content)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise HardwareError(
            f"{where}: not an inventory: {type(error).__name__}: {error}",
            hint="save one with: llmlaunch gpus --json > box.json",
        ) from error


def to_json(inventory: Inventory) -> dict[str, Any]:
    """The form that ``llmlaunch gpus --json`` prints and :func:`load` reads; sizes in bytes."""
    return {"format": FORMAT, **asdict(inventory), "links": [_link_json(link) for link in inventory.links]}


def from_spec(text: str) -> Inventory:
    """What ``--gpus`` takes: a saved inventory when there is such a file, else a box in words. Raises HardwareError."""
    if text.lstrip().startswith("{") or text.endswith(".json") or _expanded(text).is_file():
        return load(text)
    return parse(text)


def _expanded(path: str | Path) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111  # which knows no error


def _entry(part: str) -> tuple[int, Model]:
    match = _ENTRY.match(part)
    name = match["name"].strip() if match else ""
    count = int(match["count"] or 1) if match else 0
    if not name or count < 1:
        raise HardwareError(
            f"--gpus: {part!r} is not COUNTxNAME",
            hint="for example 4xA100-80GB,2xL4 or 2x24GiB; none for a box without GPUs",
        )
    size = _SIZE.match(name)
    if size:
        return count, Model(f"simulated GPU {name}", _mebibytes(size), 0, (9, 0))
    return count, _model(name)


def _mebibytes(size: re.Match[str]) -> int:
    factor = {"gib": 1024, "g": 1024, "gb": 1e9 / _MIB, "mib": 1, "m": 1, "mb": 1e6 / _MIB}
    mebibytes = int(float(size["number"]) * factor[size["unit"].lower()])
    if not 0 < mebibytes < 1 << 30:
        raise HardwareError(f"--gpus: {size[0]!r} is not a valid size for a GPU")
    return mebibytes


def _key(name: str) -> str:
    """Spelling does not matter: ``rtx 4090``, ``RTX-4090`` and ``NVIDIA GeForce RTX 4090`` are one."""
    plain = re.sub(r"(?i)nvidia|geforce|tesla", "", name)
    return re.sub(r"[^0-9a-z]", "", plain.lower())


def _model(name: str) -> Model:
    known = {_key(short): model for short, model in MODELS.items()}
    known |= {_key(model.name): model for model in MODELS.values()}
    known |= {_key(alias): MODELS[short] for alias, short in _ALIASES.items()}
    key = _key(name)
    found = known.get(key) or known.get(key.removesuffix("b")) or known.get(f"{key}b")
    if found is None:
        found = _model_with_size(name, known)
    if found is None:
        raise _unknown(name)
    return found


def _model_with_size(name: str, known: Mapping[str, Model]) -> Model | None:
    """``L4-24GB``: a size that only repeats what the name says; one that differs is no such GPU."""
    stem, _, tail = name.rpartition("-")
    size = _SIZE.match(tail)
    model = known.get(_key(stem)) if size else None
    if size is None or model is None:
        return None
    return model if abs(_mebibytes(size) - model.total) < 0.12 * model.total else None


def _unknown(name: str) -> HardwareError:
    nearest = closest(name, (*MODELS, *_ALIASES), 3, cutoff=0.4) or sorted(MODELS)
    return HardwareError(
        f"--gpus: {name!r} is not a known GPU; nearest: {', '.join(nearest)}",
        hint="give its memory instead, for example 2x24GiB",
    )


def _gpu(index: int, model: Model) -> Gpu:
    total, reserved = model.total * _MIB, model.reserved * _MIB
    return Gpu(
        index=index,
        uuid=f"GPU-51311a7e-d000-4000-8000-{index:012d}",
        name=model.name,
        pci_bus=f"0000:{index + 1:02X}:00.0" if index < 255 else f"{index:04X}:01:00.0",
        total_bytes=total,
        reserved_bytes=reserved,
        used_bytes=0,
        free_bytes=total - reserved,
        compute_capability=model.capability,
    )


def _link(a: Gpu, b: Gpu, model_a: Model, model_b: Model) -> Link:
    if model_a == model_b and model_a.nvlinks:
        return Link(a.uuid, b.uuid, LinkKind.NVLINK, model_a.nvlinks)
    return Link(a.uuid, b.uuid, LinkKind.HOST_BRIDGE)


def _link_json(link: Link) -> dict[str, Any]:
    return {"a": link.a, "b": link.b, "kind": link.kind.name.lower(), "nvlinks": link.nvlinks}


def _inventory(content: Any) -> Inventory:
    if not isinstance(content, dict) or not isinstance(content.get("gpus"), list):
        raise ValueError("it has no list of gpus")
    if content.get("format", FORMAT) != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, this program reads {FORMAT}")
    gpus = tuple(sorted((_read_gpu(row) for row in content["gpus"]), key=lambda gpu: gpu.index))
    if len({gpu.uuid for gpu in gpus}) < len(gpus):
        raise ValueError("duplicate GPU uuid")
    visible = content.get("visible")
    return Inventory(
        gpus=gpus,
        links=tuple(
            Link(_text(row["a"]), _text(row["b"]), LinkKind[row["kind"].upper()], int(row.get("nvlinks", 0)))
            for row in content.get("links", [])
        ),
        driver=_text(content.get("driver", "")),
        cuda=_text(content.get("cuda", "")),
        note=_text(content.get("note", "")),
        simulated=bool(content.get("simulated", False)),
        visible=None if visible is None else tuple(_text(uuid) for uuid in visible),
    )


def _read_gpu(row: dict[str, Any]) -> Gpu:
    capability = row.get("compute_capability")
    processes = row.get("processes", [])
    sizes = ("total_bytes", "reserved_bytes", "used_bytes", "free_bytes")
    return Gpu(
        index=_whole(row["index"]),
        uuid=_text(row["uuid"]),
        name=_text(row["name"]),
        pci_bus=_text(row.get("pci_bus", "")),
        **{size: _whole(row[size]) for size in sizes},
        utilisation=_maybe(row.get("utilisation"), int),
        temperature=_maybe(row.get("temperature"), int),
        power_watts=_maybe(row.get("power_watts"), float),
        power_limit_watts=_maybe(row.get("power_limit_watts"), float),
        compute_capability=None if capability is None else (int(capability[0]), int(capability[1])),
        mig_enabled=bool(row.get("mig_enabled", False)),
        mig=tuple(_read_mig(mig) for mig in row.get("mig", [])),
        processes=None if processes is None else tuple(_read_process(item) for item in processes),
        lost=_text(row.get("lost", "")),
    )


def _read_mig(row: dict[str, Any]) -> MigDevice:
    sizes = ("total_bytes", "free_bytes", "used_bytes", "gpu_instance", "compute_instance")
    return MigDevice(
        uuid=_text(row["uuid"]), name=_text(row["name"]), **{size: _whole(row[size]) for size in sizes}
    )


def _read_process(row: dict[str, Any]) -> GpuProcess:
    return GpuProcess(_whole(row["pid"]), _maybe(row.get("used_bytes"), int), _text(row.get("name", "")))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _maybe(value: Any, kind: type[_T]) -> _T | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return kind(value)  # type: ignore[call-arg]
