"""Tables for RESULTS.md: what was measured, on which machine, with which versions, on which day."""

from __future__ import annotations

import compileall
import datetime
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import llmlaunch

RESULTS = Path(__file__).parent / "RESULTS.md"


def compiled() -> None:
    """Compile the package, as pip does when it installs it: not everybody lets a working copy keep its bytecode."""
    compileall.compile_dir(Path(llmlaunch.__file__).parent, quiet=1)


def machine() -> str:
    """One line about the machine: processor, cores, memory."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {gib:.0f} GiB"


def versions(*packages: str) -> str:
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def record(title: str, body: str, *packages: str, path: Path | None = None) -> None:
    """Print the section, and put it in RESULTS.md (or ``path``) in place of an older one with the same title."""
    path = path or RESULTS
    head = f"## {title}\n\n{datetime.date.today().isoformat()} · {machine()} · {versions(*packages)}\n\n"
    section = head + body.strip() + "\n"
    print(section)
    old = (
        path.read_text() if path.exists() else "# Results\n\nEach section is the last run of one benchmark.\n"
    )
    parts = old.split("\n## ")
    kept = [part for part in parts[1:] if part.split("\n", 1)[0] != title]
    kept.append(section.removeprefix("## "))
    path.write_text(
        parts[0].rstrip() + "\n\n" + "\n".join("## " + part.strip() + "\n" for part in sorted(kept))
    )
