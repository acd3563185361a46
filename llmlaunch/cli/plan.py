"""``llmlaunch plan``: what would run where, and why; starts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llmlaunch.control.types import Deployed
    from llmlaunch.planning.types import Plan, ProcessSpec

PROCESS_HEADER = ("NAME", "ADDRESS", "ENGINE", "GPU", "MASK", "VRAM")
GPU_HEADER = ("GPU", "NAME", "TOTAL", "FREE", "PLANNED", "LEFT", "USED BY")


def plan(
    file: str = typer.Argument("deploy.yaml", metavar="FILE", help="The manifest."),
    gpus: str | None = typer.Option(
        None,
        "--gpus",
        metavar="SPEC|FILE",
        help="Plan for other hardware: 4xA100-80GB,2xL4 · 8x24GiB · none · a saved `llmlaunch gpus --json`.",
    ),
    name: str | None = typer.Option(
        None, "--name", metavar="NAME", help="The deployment's name, instead of the manifest's."
    ),
    json: bool = typer.Option(False, "--json", help="Print the plan as JSON."),
) -> None:
    """Print processes, addresses, device masks, the VRAM arithmetic of each GPU, and a reason for every placement and refusal.

    Exit codes: 0 everything fits · 1 something does not, or a port is taken · 2 the manifest is wrong.
    """
    import os
    from dataclasses import replace

    from llmlaunch import assemble
    from llmlaunch.cli.deploy.gateway_files import check_gateway_files
    from llmlaunch.cli.deploy.select import check_name, name_to_start
    from llmlaunch.manifest.load import load

    manifest = load(file, os.environ)
    manifest = replace(manifest, name=name_to_start(file) if name is None else check_name(name))
    deployed = assemble.NOTHING_DEPLOYED if gpus is not None else _deployed(manifest.name, file)
    _, made = assemble.replan(
        manifest, env=os.environ, deployed=deployed, gpus=gpus, check=check_gateway_files
    )
    _show(made, as_json=json)
    if gpus is None:
        assemble.refuse_unstartable(made, deployed, os.environ)
    if not made.fits:
        raise typer.Exit(1)


def _deployed(name: str, file: str) -> Deployed:
    """What a supervisor of that name runs now; its replicas keep their places. Raises PlanError when another file started it."""
    from llmlaunch.assemble import NOTHING_DEPLOYED
    from llmlaunch.cli.deploy.select import refuse_other_file
    from llmlaunch.control.client import ControlClient
    from llmlaunch.errors import ControlError, NotRunningError

    try:
        client = ControlClient.connect(name)
        refuse_other_file(name, client.about().manifest, file)
        return client.deployed()
    except (NotRunningError, ControlError):
        return NOTHING_DEPLOYED


def _show(made: Plan, *, as_json: bool) -> None:
    from llmlaunch.cli.display import stdout

    if as_json:
        from llmlaunch.planning.codec import plan_report

        print(stdout.as_json(plan_report(made)))
    elif stdout.on_terminal():
        from llmlaunch.cli.display.tables import console

        console().print(_tables(made))
    else:
        print("\n".join(_lines(made)))


def _headline(made: Plan) -> str:
    from llmlaunch.cli.display.render import plural

    count = plural(len(made.processes), "process").replace("processs", "processes")
    if made.fits:
        return f"{made.deployment}: {count}, everything fits; nothing was started"
    refused = plural(len(made.rejections), "model")
    return f"{made.deployment}: {refused} {'does' if len(made.rejections) == 1 else 'do'} not fit; nothing was started"


def _process_row(spec: ProcessSpec, made: Plan) -> tuple[str, ...]:
    from llmlaunch.cli.display.render import size

    index = {gpu.uuid: str(gpu.index) for gpu in made.gpus}
    where = ",".join(index.get(uuid, uuid) for uuid in spec.gpus)
    mask = spec.mask if spec.mask else "none"
    return (
        spec.name,
        spec.address,
        spec.engine or "-",
        where or ("cpu" if spec.engine else "-"),
        mask,
        size(spec.vram_bytes) if spec.vram_bytes else "-",
    )


def _why(spec: ProcessSpec) -> str:
    return f"{spec.engine_reason}; {spec.reason}" if spec.engine_reason else spec.reason


def _gpu_rows(made: Plan) -> list[tuple[str, ...]]:
    from llmlaunch.cli.display.render import size

    rows = []
    for gpu in made.gpus:
        users = [
            f"{spec.name} {size(claim)}"
            for spec in made.processes
            for uuid, claim in zip(spec.gpus, spec.vram_per_gpu, strict=True)
            if uuid == gpu.uuid
        ]
        amounts = (gpu.total_bytes, gpu.free_bytes, gpu.planned_bytes, gpu.free_bytes - gpu.planned_bytes)
        label = f"{gpu.index} {gpu.uuid[:12]}" if gpu.uuid.startswith("MIG-") else str(gpu.index)
        # Without a total nothing is known of its memory but what is planned.
        known = map(size, amounts) if gpu.total_bytes else ("-", "-", size(gpu.planned_bytes), "-")
        rows.append((label, gpu.name, *known, ", ".join(users) or "-"))
    return rows


def _lines(made: Plan) -> list[str]:
    """Plain text for a pipe."""
    from llmlaunch.cli.display.render import columns

    lines = [_headline(made), ""]
    lines += columns([PROCESS_HEADER, *(_process_row(spec, made) for spec in made.processes)])
    if made.gpus:
        lines += ["", *columns([GPU_HEADER, *_gpu_rows(made)])]
    lines += ["", *(f"{spec.name}: {_why(spec)}" for spec in made.processes if spec.engine)]
    lines += [f"note: {note}" for note in made.notes]
    lines += [f"does not fit: {rejection.model}: {rejection.reason}" for rejection in made.rejections]
    return lines


def _tables(made: Plan) -> RenderableType:
    """The same for a terminal."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(_headline(made), style="bold green" if made.fits else "bold red"),
        Text(),
    ]
    parts.append(_table(PROCESS_HEADER, [_process_row(spec, made) for spec in made.processes]))
    if made.gpus:
        parts += [Text(), _table(GPU_HEADER, _gpu_rows(made))]
    parts.append(Text())
    for spec in made.processes:
        if spec.engine:
            parts += [Text(spec.name, style="bold"), Padding(Text(_why(spec), style="dim"), (0, 0, 0, 2))]
    parts += [Text(f"note: {note}", style="yellow") for note in made.notes]
    for rejection in made.rejections:
        parts += [
            Text(f"{rejection.model} does not fit", style="bold red"),
            Padding(Text(rejection.reason), (0, 0, 0, 2)),
        ]
    return Group(*parts)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> RenderableType:
    from rich.text import Text

    from llmlaunch.cli.display.responsive_table import ResponsiveTable

    cells = [[Text(cell) for cell in row] for row in rows]
    return ResponsiveTable(header, cells, ("VRAM", "TOTAL", "FREE", "PLANNED", "LEFT"), ("MASK", "USED BY"))
