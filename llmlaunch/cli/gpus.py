"""``llmlaunch gpus``: the GPUs of this machine, what they hold, and how they are joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from llmlaunch.hardware.types import Gpu, Inventory, LinkKind

Rows = list[tuple[str, ...]]
Shown = tuple[Sequence[str], Rows]

GPU_HEADER = (
    "GPU", "NAME", "TOTAL", "RESERVED", "USED", "FREE", "UTIL", "TEMP", "POWER", "PCI BUS", "UUID", "REMARK",
)  # fmt: skip
PROCESS_HEADER = ("GPU", "PID", "USED", "PROCESS", "COMPONENT")
RIGHT = {"TOTAL", "RESERVED", "USED", "FREE", "UTIL", "TEMP", "POWER", "PID"}
# The letters of `nvidia-smi topo -m`, which people know.
LINK_WORDS = {
    "UNKNOWN": "?", "SYSTEM": "SYS", "NODE": "NODE", "HOST_BRIDGE": "PHB", "MULTI_SWITCH": "PXB", "SWITCH": "PIX",
    "BOARD": "BOARD", "NVLINK": "NV",
}  # fmt: skip


def gpus(
    json: bool = typer.Option(
        False, "--json", help="Print the inventory as `llmlaunch plan --gpus FILE` reads it."
    ),
) -> None:
    """Show the GPUs: memory, load, MIG instances, links, and the processes on each with the component they belong to.

    A machine without a GPU or a driver is a plain statement, and no error.
    """
    from llmlaunch.hardware.inventory import probe

    inventory = probe()
    owners = _owners(inventory)
    if json:
        _print_json(inventory, owners)
    else:
        _print_tables(inventory, owners)


def _owners(inventory: Inventory) -> dict[int, str]:
    from llmlaunch.hardware.process_owners import owner

    pids = {process.pid for gpu in inventory.gpus for process in gpu.processes or ()}
    return {pid: owner(pid) for pid in pids}


def _print_json(inventory: Inventory, owners: dict[int, str]) -> None:
    from llmlaunch.cli.display.stdout import as_json
    from llmlaunch.hardware.simulated import to_json

    content: dict[str, Any] = to_json(inventory)
    for gpu in content["gpus"]:
        for process in gpu["processes"] or ():
            process["component"] = owners.get(process["pid"]) or None
    print(as_json(content))


def _print_tables(inventory: Inventory, owners: dict[int, str]) -> None:
    from llmlaunch.cli.display import render, stdout

    if not inventory.gpus:
        print(f"no GPU: {inventory.note}")
        return
    tables: list[Shown] = [(GPU_HEADER, _gpu_rows(inventory))]
    if stdout.on_terminal():
        tables = _narrow(*tables[0])
    processes = _process_rows(inventory, owners)
    if processes:
        tables.append((PROCESS_HEADER, processes))
    if len(inventory.gpus) > 1:
        tables.append(_link_table(inventory))
    print(f"driver {inventory.driver or 'unknown'}, CUDA {inventory.cuda or 'unknown'}")
    for header, rows in tables:
        print()
        if stdout.on_terminal():
            _rich(header, rows)
        else:
            print("\n".join(render.columns([header, *rows])))
    if inventory.note:
        print(f"\nnote: {inventory.note}")


def _gpu_rows(inventory: Inventory) -> Rows:
    from llmlaunch.cli.display.render import size

    rows: Rows = []
    for gpu in inventory.gpus:
        figures = (gpu.total_bytes, gpu.reserved_bytes, gpu.used_bytes, gpu.free_bytes)
        known = not gpu.lost and gpu.memory != "unknown"
        sizes = tuple(map(size, figures)) if known else ("-",) * 4
        load = (_with(gpu.utilisation, " %"), _with(gpu.temperature, " °C"), _power(gpu))
        rows.append(
            (str(gpu.index), gpu.name, *sizes, *load, gpu.pci_bus or "-", gpu.uuid, _remark(gpu, inventory))
        )
        for mig in gpu.mig:
            figures = (mig.total_bytes, 0, mig.used_bytes, mig.free_bytes)
            sizes = tuple(map(size, figures)) if mig.memory != "unknown" else ("-",) * 4
            number = f"{gpu.index}:{mig.gpu_instance}/{mig.compute_instance}"
            remark = "" if _allowed(mig.uuid, inventory) else "hidden by the device mask"
            rows.append((number, mig.name, *sizes, "-", "-", "-", gpu.pci_bus or "-", mig.uuid, remark))
    return rows


def _remark(gpu: Gpu, inventory: Inventory) -> str:
    if gpu.lost:
        return gpu.lost
    shared = " (shared by MPS)" if gpu.compute_mode == "exclusive-process" and inventory.mps else ""
    remarks = {
        "hidden by the device mask": not _allowed(gpu.uuid, inventory),
        "MIG on, no instances": gpu.mig_enabled and not gpu.mig,
        f"{gpu.compute_mode}{shared}": gpu.compute_mode != "default",
        "uses main memory": gpu.memory == "main",
        f"memory unknown: {gpu.memory_error}": gpu.memory == "unknown" and not gpu.mig_enabled,
        "processes unknown": gpu.processes is None,
    }
    return "; ".join(remark for remark, holds in remarks.items() if holds)


def _allowed(uuid: str, inventory: Inventory) -> bool:
    return inventory.visible is None or uuid in inventory.visible


def _with(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.0f}{unit}"


def _power(gpu: Gpu) -> str:
    if gpu.power_watts is None:
        return "-"
    limit = f"/{gpu.power_limit_watts:.0f}" if gpu.power_limit_watts else ""
    return f"{gpu.power_watts:.0f}{limit} W"


def _process_rows(inventory: Inventory, owners: dict[int, str]) -> Rows:
    from llmlaunch.cli.display.render import size
    from llmlaunch.common.terminal_text import one_line

    return [
        (
            str(gpu.index),
            str(process.pid),
            "-" if process.used_bytes is None else size(process.used_bytes),
            one_line(process.name) or "-",
            one_line(owners.get(process.pid, "")) or "-",
        )
        for gpu in inventory.gpus
        for process in gpu.processes or ()
    ]


def _narrow(header: Sequence[str], rows: Rows) -> list[Shown]:
    """The same as two tables: what changes, then what identifies; a terminal is seldom wide enough for both."""
    identity = ("GPU", "UUID", "PCI BUS")
    state = [title for title in header if title not in identity[1:]]
    return [
        (titles, [tuple(row[header.index(title)] for title in titles) for row in rows])
        for titles in (state, identity)
    ]


def _link_table(inventory: Inventory) -> Shown:
    """Who reaches whom how, as a square."""
    words = {frozenset((link.a, link.b)): _link_word(link.kind, link.nvlinks) for link in inventory.links}
    rows: Rows = [
        (
            f"GPU {a.index}",
            *("X" if a is b else words.get(frozenset((a.uuid, b.uuid)), "-") for b in inventory.gpus),
        )
        for a in inventory.gpus
    ]
    return ("LINK", *(f"GPU {gpu.index}" for gpu in inventory.gpus)), rows


def _link_word(kind: LinkKind, nvlinks: int) -> str:
    return LINK_WORDS[kind.name] + (str(nvlinks) if nvlinks else "")


def _rich(header: Sequence[str], rows: Rows) -> None:
    from rich.text import Text

    from llmlaunch.cli.display.responsive_table import ResponsiveTable
    from llmlaunch.cli.display.tables import console

    styles = ["red" if title == "REMARK" else "" for title in header]
    cells = [[Text(cell, style=style) for cell, style in zip(row, styles, strict=True)] for row in rows]
    console().print(ResponsiveTable(header, cells, RIGHT, ("NAME", "REMARK")))
