"""Simulated hardware: a machine described in words, or an inventory saved on another one.

``4xA100-80GB,2xL4`` or ``2x24GiB`` stands for idle GPUs; a file written by ``llmlaunch gpus --json`` comes back as it was.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from llmlaunch.common.spelling import closest
from llmlaunch.errors import HardwareError
from llmlaunch.hardware import cards
from llmlaunch.hardware.cards import Card
from llmlaunch.hardware.types import (
    ComputeMode,
    Gpu,
    GpuProcess,
    Inventory,
    Link,
    LinkKind,
    MemoryKind,
    MigDevice,
)

FORMAT = 1
MAX_GPUS = 512
_MIB = 1 << 20
_ENTRY = re.compile(r"^(?:(?P<count>\d{1,18})\s*[x*]\s*)?(?P<name>.+)$", re.IGNORECASE)
_SIZE = re.compile(r"^(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>GiB|GB|MiB|MB|G|M)$", re.IGNORECASE)
_T = TypeVar("_T")


def parse(text: str) -> Inventory:
    """A box of idle GPUs: ``NxNAME``, ``NxNAME-SIZE`` or ``Nx24GiB``, joined by commas; ``0`` is a box without.

    Equal GPUs that have NVLink are joined by it, all others by their host. Raises HardwareError.
    """
    if text.strip() in ("0", "none"):
        return Inventory(note="a simulated box without GPUs", simulated=True)
    boxed: list[Card] = []
    for part in text.split(","):
        count, card = _entry(part.strip())
        if len(boxed) + count > MAX_GPUS:
            raise HardwareError(f"--gpus {text!r}: more than {MAX_GPUS} GPUs")
        boxed += [card] * count
    gpus = tuple(_gpu(index, card) for index, card in enumerate(boxed))
    links = tuple(
        _link(gpus[i], gpus[j], boxed[i], boxed[j]) for i in range(len(gpus)) for j in range(i + 1, len(gpus))
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


def _entry(part: str) -> tuple[int, Card]:
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
        return count, Card(f"simulated GPU {name}", _mebibytes(size), 0, (9, 0))
    return count, _card(name)


def _mebibytes(size: re.Match[str]) -> int:
    factor = {"gib": 1024, "g": 1024, "gb": 1e9 / _MIB, "mib": 1, "m": 1, "mb": 1e6 / _MIB}
    mebibytes = int(float(size["number"]) * factor[size["unit"].lower()])
    if not 0 < mebibytes < 1 << 30:
        raise HardwareError(f"--gpus: {size[0]!r} is not a valid size for a GPU")
    return mebibytes


def _card(name: str) -> Card:
    known = cards.by_key()
    key = cards.key(name)
    found = known.get(key) or known.get(key.removesuffix("b")) or known.get(f"{key}b")
    if found is None:
        found = _card_with_size(name, known)
    if found is None:
        raise _unknown(name)
    return found


def _card_with_size(name: str, known: Mapping[str, Card]) -> Card | None:
    """``L4-24GB``: a size that only repeats what the name says; one that differs is no such GPU."""
    stem, _, tail = name.rpartition("-")
    size = _SIZE.match(tail)
    card = known.get(cards.key(stem)) if size else None
    if size is None or card is None:
        return None
    return card if abs(_mebibytes(size) - card.total) < 0.12 * card.total else None


def _unknown(name: str) -> HardwareError:
    nearest = closest(name, (*cards.CARDS, *cards.ALIASES), 3, cutoff=0.4) or sorted(cards.CARDS)
    return HardwareError(
        f"--gpus: {name!r} is not a known GPU; nearest: {', '.join(nearest)}",
        hint="give its memory instead, for example 2x24GiB",
    )


def _gpu(index: int, card: Card) -> Gpu:
    total, reserved = card.total * _MIB, card.reserved * _MIB
    return Gpu(
        index=index,
        uuid=f"GPU-51311a7e-d000-4000-8000-{index:012d}",
        name=card.name,
        pci_bus=f"0000:{index + 1:02X}:00.0" if index < 255 else f"{index:04X}:01:00.0",
        total_bytes=total,
        reserved_bytes=reserved,
        used_bytes=0,
        free_bytes=total - reserved,
        memory=MemoryKind.MAIN if card.main_memory else MemoryKind.OWN,
        compute_capability=card.capability,
    )


def _link(a: Gpu, b: Gpu, card_a: Card, card_b: Card) -> Link:
    if card_a == card_b and card_a.nvlinks:
        return Link(a.uuid, b.uuid, LinkKind.NVLINK, card_a.nvlinks)
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
        mps=bool(content.get("mps", False)),
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
        memory=MemoryKind(row.get("memory", MemoryKind.OWN)),
        memory_error=_text(row.get("memory_error", "")),
        compute_capability=None if capability is None else (int(capability[0]), int(capability[1])),
        compute_mode=ComputeMode(row.get("compute_mode", ComputeMode.DEFAULT)),
        mig_enabled=bool(row.get("mig_enabled", False)),
        mig=tuple(_read_mig(mig) for mig in row.get("mig", [])),
        processes=None if processes is None else tuple(_read_process(item) for item in processes),
        lost=_text(row.get("lost", "")),
    )


def _read_mig(row: dict[str, Any]) -> MigDevice:
    sizes = ("total_bytes", "free_bytes", "used_bytes", "gpu_instance", "compute_instance")
    return MigDevice(
        uuid=_text(row["uuid"]),
        name=_text(row["name"]),
        **{size: _whole(row[size]) for size in sizes},
        memory=MemoryKind(row.get("memory", MemoryKind.OWN)),
    )


def _read_process(row: dict[str, Any]) -> GpuProcess:
    return GpuProcess(
        _whole(row["pid"]),
        _maybe(row.get("used_bytes"), int),
        _text(row.get("name", "")),
        computes=bool(row.get("computes", True)),
    )


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
