"""How values look as text: plain lines for pipes, and the words that tables share. Pure functions of their arguments.

Rich is imported by ``tables`` alone, and only for a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmlaunch.common.terminal_text import one_line

if TYPE_CHECKING:
    from llmlaunch.control.types import ComponentStatus, GpuStatus, StatusReport

PHASE_STYLE = {
    "pending": "dim",
    "starting": "yellow",
    "ready": "green",
    "stopping": "yellow",
    "stopped": "dim",
    "backoff": "magenta",
    "failed": "bold red",
}
"""Colours that stay readable on light and dark terminals."""

COMPONENT_HEADER = ("NAME", "PHASE", "PID", "ADDRESS", "GPU", "VRAM", "RESTARTS", "SINCE", "WHY")
GPU_HEADER = ("GPU", "NAME", "TOTAL", "USED", "FREE", "PLANNED")


def size(count: int) -> str:
    """Bytes for people: ``14.9 GiB``, ``120 MiB``."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1023.5 or unit == "TiB":
            break
        value /= 1024
    if unit == "B":
        return f"{count} B"
    digits = 1 if value < (99.95 if unit in ("GiB", "TiB") else 9.95) else 0
    return f"{value:.{digits}f} {unit}"


def age(seconds: float) -> str:
    """A duration for people, in its two largest units: ``8s``, ``2m 03s``, ``5h 20m``, ``3d 4h``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def plural(count: int, word: str) -> str:
    """``1 replica``, ``2 replicas``."""
    ending = "es" if word.endswith("s") else "s"
    return f"{count} {word}" if count == 1 else f"{count} {word}{ending}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines; the last column keeps its own length."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def devices(component: ComponentStatus, gpus: Sequence[GpuStatus]) -> str:
    """The GPUs of a component by index, or by the start of the UUID when no index is known; ``cpu`` without any."""
    if component.component != "worker":
        return "-"
    index = {gpu.uuid: _number(gpu) for gpu in gpus}
    return ",".join(index.get(uuid, uuid[:12]) for uuid in component.gpus) or "cpu"


def vram(component: ComponentStatus) -> str:
    """What is used of what was planned: ``2.1/3.0 GiB``; ``-`` on the CPU."""
    if not component.vram_bytes:
        return "-"
    if component.vram_used_bytes is None:
        return size(component.vram_bytes)
    return f"{size(component.vram_used_bytes)} of {size(component.vram_bytes)}"


def explanation(component: ComponentStatus) -> str:
    """What explains its phase: the progress of a start, the cause of a failure, or its own remark."""
    if component.phase == "starting" and component.cause and not component.progress:
        return f"the last time: {one_line(component.cause)}"
    if component.phase in ("starting", "pending"):
        return one_line(component.progress or component.cause)
    return one_line(component.cause or component.note)


def next_attempt(component: ComponentStatus, now: float) -> str:
    """When a component that is down is started again, or that only a command does; empty for all others."""
    if component.phase not in ("backoff", "failed"):
        return ""
    if component.next_try is None:
        return f"`llmlaunch restart {component.name}` tries again" if component.phase == "failed" else ""
    wait = component.next_try - now
    return "next try now" if wait < 1 else f"next try in {age(wait)}"


def why(component: ComponentStatus, now: float) -> str:
    """The explanation, and the next attempt."""
    return "; ".join(word for word in (explanation(component), next_attempt(component, now)) if word)


def status_reason(component: ComponentStatus, now: float) -> str:
    """For ``status``: what explains its phase; of a component that is ready again, its last failure."""
    told = why(component, now)
    if component.phase != "ready" or component.last is None:
        return told
    last = f"{age(now - component.last.at)} ago: {one_line(component.last.text)}"
    return f"{told}; {last}" if told else last


def component_row(component: ComponentStatus, gpus: Sequence[GpuStatus], now: float) -> tuple[str, ...]:
    """A component's row in the table of ``status``; ``now`` is seconds since the epoch."""
    return (
        component.name,
        component.phase,
        str(component.pid or "-"),
        component.address,
        devices(component, gpus),
        vram(component),
        str(component.restarts),
        age(now - component.since),
        status_reason(component, now),
    )


def gpu_row(gpu: GpuStatus) -> tuple[str, ...]:
    """A GPU's row in the table of ``status``: name, total, used, free and planned memory."""
    sizes = (gpu.total_bytes, gpu.used_bytes, gpu.free_bytes, gpu.planned_bytes)
    why = one_line(gpu.lost) or ("memory unknown" if gpu.memory == "unknown" else "")
    if why:
        return (_number(gpu), f"{gpu.name}: {why}", "-", "-", "-", size(gpu.planned_bytes))
    name = f"{gpu.name} (main memory)" if gpu.memory == "main" else gpu.name
    return (_number(gpu), name, *map(size, sizes))


def _number(gpu: GpuStatus) -> str:
    """``1``; ``1 MIG-5c1e07a4`` for a MIG instance on GPU 1."""
    return f"{gpu.index} {gpu.uuid[:12]}" if gpu.uuid.startswith("MIG-") else str(gpu.index)


def headline(report: StatusReport, now: float) -> str:
    """``lab: up 2m 03s, 3 of 3 components ready``."""
    ready = sum(c.phase == "ready" for c in report.components)
    state = "going down" if report.stopping else f"up {age(now - report.supervisor.started_at)}"
    return (
        f"{report.deployment}: {state}, {ready} of {plural(len(report.components), 'component')} ready "
        f"(supervisor {report.supervisor.pid})"
    )


def endpoint(url: str) -> str:
    """The base URL that OpenAI clients are given."""
    return url.rstrip("/").removesuffix("/v1") + "/v1" if url else ""


def status_lines(report: StatusReport, now: float) -> list[str]:
    """``llmlaunch status`` in a pipe."""
    lines = [headline(report, now)]
    if report.api.url:
        lines.append(f"endpoint: {endpoint(report.api.url)}")
    if report.components:
        rows = [component_row(c, report.gpus, now) for c in report.components]
        lines += ["", *columns([COMPONENT_HEADER, *rows])]
    if report.gpus:
        lines += ["", *columns([GPU_HEADER, *map(gpu_row, report.gpus)])]
    if report.note:
        lines += ["", f"GPUs: {one_line(report.note)}"]
    return lines


def change_line(component: ComponentStatus) -> str:
    """One change of one component: ``smollm2-1: starting: loading weights 120 of 260 MiB``."""
    told = why(component, component.since)
    return f"{component.name}: {component.phase}" + (f": {told}" if told else "")


def curl(url: str, model: str, *, embedding: bool, key: str = "") -> list[str]:
    """A command line that asks ``model`` through the endpoint. ``key``: the shell variable that holds an API key."""
    import json
    import shlex

    path = "embeddings" if embedding else "chat/completions"
    messages = [{"role": "user", "content": "Name the capital of France."}]
    body = {"model": model} | ({"input": "Hello"} if embedding else {"messages": messages})
    lines = [f"curl {endpoint(url)}/{path} -H 'Content-Type: application/json' \\"]
    if key:
        lines.append(f'  -H "Authorization: Bearer ${key}" \\')
    return [*lines, f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"]
