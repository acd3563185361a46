"""Showing changes while they happen: plain lines in a pipe, a live table on a terminal."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, cast

from llmlaunch.cli.display import render, stdout
from llmlaunch.common.terminal_text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llmlaunch.cli.display.progress import StartProgress
    from llmlaunch.control.types import ComponentStatus, ProgressEvent


class _Tails:
    """The last lines of a component that died, shown once for each cause: five attempts that fail alike are not shown five times."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}

    def of(self, event: ProgressEvent) -> tuple[str, ...]:
        component = event.component
        if component.phase == "ready":
            self._causes.pop(component.name, None)
        if not event.log_tail or self._causes.get(component.name) == component.cause:
            return ()
        self._causes[component.name] = component.cause
        return tuple(map(visible, event.log_tail))


class PlainView:
    """One line per change; progress of a start at most once a second and component."""

    def __init__(self, out: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.out = out
        self._clock = clock
        self._last: dict[str, tuple[ComponentStatus, str, float]] = {}
        self._tails = _Tails()

    @contextlib.contextmanager
    def live(self, progress: StartProgress) -> Iterator[None]:
        """Nothing: a pipe has no live table."""
        yield

    def say(self, text: str = "", style: str = "") -> None:
        """Print ``text``, line by line."""
        for line in text.split("\n"):
            self.out(line)

    def change(self, event: ProgressEvent) -> None:
        """Show one change of a component."""
        component, line = event.component, render.change_line(event.component)
        now = self._clock()
        last = self._last.get(component.name)
        if last:
            before, last_line, at = last
            same_life = (before.phase, before.incarnation) == (component.phase, component.incarnation)
            if line == last_line or (same_life and component.phase == "starting" and now - at < 1):
                return
        self._last[component.name] = (component, line, now)
        self.say(line)
        for printed in self._tails.of(event):
            self.say(f"  | {printed}")


class TerminalView:
    """A table with a row for each component inside :meth:`live`, coloured lines otherwise."""

    def __init__(self) -> None:
        from llmlaunch.cli.display import tables

        self._console = tables.console(cast(IO[str], _DetachableStream(sys.stdout)))
        self._live: Any = None
        self._shown: dict[str, str] = {}
        self._tails = _Tails()

    @contextlib.contextmanager
    def live(self, progress: StartProgress) -> Iterator[None]:
        """Keep a table of all components below the printed lines as long as the block runs."""
        from rich.live import Live

        from llmlaunch.cli.display import tables

        def draw() -> RenderableType:
            return tables.live_table(list(progress.rows.values()), time.time())

        with Live(console=self._console, get_renderable=draw, refresh_per_second=10) as self._live:
            try:
                yield
            finally:
                self._live.refresh()
                self._live = None

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line above the table."""
        from rich.text import Text

        # Not print(style=…): that would colour the table below as well.
        self._console.print(Text(text, style=style), soft_wrap=True)

    def change(self, event: ProgressEvent) -> None:
        """Show one change of a component."""
        component = event.component
        style = render.PHASE_STYLE.get(component.phase, "")
        line = render.change_line(component)
        bad = component.phase in ("failed", "backoff")
        # While the table is shown, its rows say the rest.
        if (self._live is None or bad) and self._shown.get(component.name) != line:
            self.say(line, style)
        self._shown[component.name] = line
        for printed in self._tails.of(event):
            self.say(f"  | {printed}", "dim")


class _DetachableStream:
    """A terminal's stream on which writing does not fail when the terminal is closed: SIGHUP comes a little later."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _until_closed():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with _until_closed():
            self._stream.flush()


@contextlib.contextmanager
def _until_closed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        let_go_of_terminal()


def let_go_of_terminal() -> None:
    """Point stdout and stderr to /dev/null: the terminal was closed, and printing would fail before the deployment is down."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def view() -> PlainView | TerminalView:
    """The view that suits stdout."""
    return TerminalView() if stdout.on_terminal() else PlainView(_echo)


def _echo(line: str) -> None:
    """Print ``line``. On a full disk it is lost: that is no reason to take down what runs."""
    import typer

    from llmlaunch.cli.app import DISK_IS_FULL

    try:
        typer.echo(line)
    except OSError as error:
        if error.errno not in DISK_IS_FULL:
            raise
