"""A table that stays readable on a narrow terminal: it drops columns, and finally shows each row as a block."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

_GAP = 3
"""Between columns: the padding of both and the border, which is blank."""
_INDENT = 2
_FOLDED = 24
"""Cells that a column needs at least which may be folded."""
_NOTHING = {"", "-"}


@dataclass(frozen=True, slots=True)
class ResponsiveTable:
    """Rows of cells under ``header``, in as many columns as the width allows. The first column names its row.

    ``right``: titles of columns whose cells end at the right. ``folds``: of columns that may be broken over lines.
    ``spare``: of columns that are left out first, in this order, when there is not enough room. ``counts``: of columns in which a 0
    says nothing; elsewhere it is the name of a GPU.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Text]]
    right: Collection[str] = ()
    folds: Collection[str] = ()
    spare: Sequence[str] = ()
    counts: Collection[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        titles = self._visible_columns(options.max_width)
        yield self._table(titles) if titles else self._blocks()

    def _visible_columns(self, width: int) -> list[str]:
        """The titles of the columns to show; none when a table cannot show what matters."""
        titles = list(self.header)
        empty = [title for title in titles[1:] if title not in self.folds and self._is_empty(title)]
        for title in (*empty, *self.spare):
            if self._width(titles) <= width:
                break
            if title in titles:
                titles.remove(title)
        return titles if self._width(titles) <= width else []

    def _cells(self, title: str) -> list[Text]:
        index = self.header.index(title)
        return [row[index] for row in self.rows]

    def _is_empty(self, title: str) -> bool:
        return all(self._is_blank(title, cell) for cell in self._cells(title))

    def _is_blank(self, title: str, cell: Text) -> bool:
        return cell.plain in _NOTHING or (cell.plain == "0" and title in self.counts)

    def _width(self, titles: Sequence[str]) -> int:
        widths = []
        for title in titles:
            longest = max((cell.cell_len for cell in self._cells(title)), default=0)
            widths.append(max(len(title), min(longest, _FOLDED) if title in self.folds else longest))
        return sum(widths) + _GAP * (len(widths) - 1)

    def _table(self, titles: Sequence[str]) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        for title in titles:
            table.add_column(
                title.lower(),
                justify="right" if title in self.right else "left",
                no_wrap=title not in self.folds,
                overflow="fold",
            )
        shown = [title in titles for title in self.header]
        for row in self.rows:
            table.add_row(*compress(row, shown))
        return table

    def _blocks(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=None, pad_edge=False, show_header=False, padding=(0, _INDENT, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for row in self.rows:
            grid.add_row(Text(self.header[0].lower(), style="dim"), row[0])
            for title, cell in zip(self.header[1:], row[1:], strict=True):
                if not self._is_blank(title, cell):
                    grid.add_row(Text(f"  {title.lower()}", style="dim"), cell)
        return grid
