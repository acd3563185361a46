"""The same values as ``render``'s, for a terminal: rich tables and the live one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from llmlaunch.cli.display import render
from llmlaunch.common.terminal_text import one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from llmlaunch.control.types import ComponentStatus, StatusReport

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
MARKS = {"ready": "✔", "failed": "✘"}


def console(file: IO[str] | None = None) -> Console:
    """A console on ``file`` (stdout) that leaves our words alone: no highlighting, no markup, no emoji codes."""
    from rich.console import Console

    return Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=False)


def status(report: StatusReport, now: float) -> RenderableType:
    """``llmlaunch status`` on a terminal."""
    from rich.console import Group
    from rich.text import Text

    from llmlaunch.cli.display.responsive_table import ResponsiveTable

    well = all(c.phase == "ready" for c in report.components) and not report.stopping
    parts: list[RenderableType] = [Text(render.headline(report, now), style="bold green" if well else "bold")]
    if report.api.url:
        parts.append(Text.assemble(("endpoint ", "dim"), (render.endpoint(report.api.url), "cyan")))
    parts.append(Text())
    rows = [_styled(c, render.component_row(c, report.gpus, now)) for c in report.components]
    parts.append(
        ResponsiveTable(
            render.COMPONENT_HEADER,
            rows,
            ("PID", "RESTARTS"),
            ("WHY",),
            ("PID", "VRAM", "SINCE", "GPU"),
            ("RESTARTS",),
        )
    )
    if report.gpus:
        gpus = [[Text(cell) for cell in render.gpu_row(gpu)] for gpu in report.gpus]
        parts += [Text(), ResponsiveTable(render.GPU_HEADER, gpus, ("TOTAL", "USED", "FREE", "PLANNED"))]
    if report.note:
        parts += [Text(), Text(f"GPUs: {one_line(report.note)}", style="yellow")]
    return Group(*parts)


def _styled(component: ComponentStatus, row: Sequence[str]) -> list[Text]:
    from rich.text import Text

    style = render.PHASE_STYLE.get(component.phase, "")
    return [
        Text(row[0], style="bold"),
        Text(row[1], style=style),
        *map(Text, row[2:-1]),
        Text(row[-1], style="red" if component.phase in ("failed", "backoff") else ""),
    ]


def live_table(components: Sequence[ComponentStatus], now: float) -> RenderableType:
    """The live table of ``up``, ``restart`` and ``down``: one row a component, with a spinner where something happens."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for fold in (False, False, False, True):
        table.add_column(no_wrap=not fold, overflow="fold" if fold else "ellipsis")
    for component in components:
        style = render.PHASE_STYLE.get(component.phase, "")
        moving = component.phase in ("pending", "starting", "stopping", "backoff")
        frame = SPINNER[int(now * 10) % len(SPINNER)]
        mark = frame if moving else MARKS.get(component.phase, "•")
        table.add_row(
            Text(component.name, style="bold"),
            Text(f"{mark} {component.phase}", style=style),
            Text(render.age(now - component.since), style="dim"),
            Text(render.why(component, now) or component.address, style="" if moving else "dim"),
        )
    return table
