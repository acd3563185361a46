"""Tables on narrow terminals."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from llmlaunch.cli.display.responsive_table import ResponsiveTable


def shown(width: int) -> list[str]:
    rows = [["tiny-1", "0", "0", "http://127.0.0.1:21002"], ["api", "-", "0", "http://127.0.0.1:8000"]]
    cells = [[Text(cell) for cell in row] for row in rows]
    console = Console(file=io.StringIO(), width=width)
    table = ResponsiveTable(("NAME", "GPU", "RESTARTS", "ADDRESS"), cells, counts=("RESTARTS",))
    with console.capture() as printed:
        console.print(table)
    return [line.rstrip() for line in printed.get().splitlines()]


def test_the_gpu_with_index_0_is_shown_in_blocks_too() -> None:
    assert shown(36) == [
        "name       tiny-1",
        "  gpu      0",
        "  address  http://127.0.0.1:21002",
        "name       api",
        "  address  http://127.0.0.1:8000",
    ]


def test_a_column_that_says_nothing_goes_first() -> None:
    everything = 6 + 3 + 8 + 22 + 3 * 3
    assert shown(everything)[0].split() == ["name", "gpu", "restarts", "address"]
    assert shown(everything - 1)[0].split() == ["name", "gpu", "address"]


def test_no_cell_is_broken_at_any_width() -> None:
    for width in range(36, 80):
        assert any("http://127.0.0.1:21002" in line for line in shown(width)), width
