"""Reading components' logs, and following them across restarts.

Logs are read block by block: what is shown takes no more memory than a block and a line, whatever their size.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmlaunch.cli.deploy.select import components, unknown_component
from llmlaunch.common.terminal_text import visible
from llmlaunch.errors import LlmlaunchError, NotRunningError, UsageError
from llmlaunch.paths import DeploymentPaths, refuse_foreign

if TYPE_CHECKING:
    from llmlaunch.control.types import ComponentStatus
    from llmlaunch.supervision.logs.log_stream import LogStream

SUPERVISOR = "supervisor"
POLL_S = 0.1
LINE_BYTES = 1 << 20
"""A line that is longer is shown as several."""


def sources(deployment: str, words: Sequence[str]) -> list[str]:
    """The components that ``words`` mean, whether the deployment runs or not; all of them without words.

    Raises UsageError for a word that means nothing, NotRunningError when there are neither components nor logs.
    """
    from llmlaunch.supervision.logs import component_logs

    refuse_foreign(DeploymentPaths(deployment).logs)
    known = _running(deployment)
    on_disk = component_logs.components(deployment)
    if not known and not on_disk:
        raise NotRunningError(
            f"{deployment!r} is not running and left no logs", hint="`llmlaunch status` looks for what runs"
        )
    names = [c.name for c in known] + [name for name in on_disk if name not in {c.name for c in known}]
    if not words:
        return [c.name for c in known] or names
    chosen: list[str] = []
    for word in words:
        chosen += [name for name in _meant(word, names, known) if name not in chosen]
    return chosen


def _meant(word: str, names: Sequence[str], known: Sequence[ComponentStatus]) -> list[str]:
    if word == SUPERVISOR or word in names:
        return [word]
    with contextlib.suppress(UsageError):
        return components([word], known)
    # Down: only file names are left, and replicas are named MODEL-1, MODEL-2 …
    replica = re.compile(re.escape(word.lower()) + r"-\d+")
    found = [name for name in names if replica.fullmatch(name)]
    if not found:
        models = {model for c in known for model in c.names}
        raise unknown_component(word, {*names, *models, SUPERVISOR})
    return found


def _running(deployment: str) -> tuple[ComponentStatus, ...]:
    from llmlaunch.control.client import ControlClient

    try:
        return ControlClient.connect(deployment).status().components
    except LlmlaunchError:
        return ()


def _lives(deployment: str, component: str) -> list[Path]:
    from llmlaunch.supervision.logs.component_logs import log_files

    if component == SUPERVISOR:
        return [DeploymentPaths(deployment).supervisor_log]
    return log_files(deployment, component)


class Lines:
    """Splits bytes into lines, without their line ends.

    A carriage return ends a line as well, so that the states of a progress bar stand one below the other, and nothing is
    overwritten by what came later; ``raw`` leaves it where it is.
    """

    def __init__(self, raw: bool = False) -> None:
        self._raw = raw
        self._rest = b""

    def of(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        found = [part for line in whole for part in self._parts(line)]
        if not self._raw:
            # The last carriage return may be half of a line's end.
            at = self._rest.rstrip(b"\r").rfind(b"\r") + 1
            found += filter(None, self._rest[:at].split(b"\r"))
            self._rest = self._rest[at:]
        if len(self._rest) > LINE_BYTES:
            found += self.last()
        return found

    def last(self) -> list[bytes]:
        """The last line, if it has no line end."""
        rest, self._rest = self._rest, b""
        return self._parts(rest) if rest else []

    def _parts(self, line: bytes) -> list[bytes]:
        if self._raw or b"\r" not in line:
            return [line]
        return [part for part in line.split(b"\r") if part] or [b""]


class Tail:
    """One component's output, line by line, across its restarts."""

    def __init__(self, deployment: str, component: str, raw: bool = False) -> None:
        self.component = component
        self._deployment = deployment
        self._raw = raw
        self._stream: LogStream | None = None
        self._lines = Lines(raw)

    def start(self, lines: int | None, *, previous: bool, final: bool) -> Iterator[bytes]:
        """What there is now, at most the last ``lines``; with ``final`` also a last line that is not whole.

        Raises UsageError when there is no earlier life.
        """
        lives = _lives(self._deployment, self.component)
        if previous and len(lives) < 2:
            raise UsageError(f"{self.component} has no log of an earlier life")
        path = lives[-2 if previous else -1] if lives else None
        if lines is None:
            self._begin(path)
            yield from self._read(final=final)
            return
        # A line of a file may be several to be shown, so they are counted before they are shown.
        self._begin(path, lines)
        count = sum(1 for _ in self._read(final=final))
        self._begin(path, lines)
        for number, line in enumerate(self._read(final=final), lines - count):
            if final and number >= lines:
                return  # printed since they were counted; a log may grow as fast as it is read
            if number >= 0:
                yield line

    def more(self) -> Iterator[bytes]:
        """What was printed since. The rest of a life that ended comes before the first line of the next."""
        lives = _lives(self._deployment, self.component)
        yield from self._read()
        here = self._stream.path if self._stream else None
        for path in lives:
            if here is None or path.name > here.name:
                yield from self._read(final=True)
                self._begin(path)
                yield from self._read()

    def close(self) -> None:
        """Close the file that is being read."""
        if self._stream:
            self._stream.close()

    def _begin(self, path: Path | None, lines: int | None = None) -> None:
        from llmlaunch.supervision.logs.log_stream import LogStream

        self.close()
        self._stream, self._lines = LogStream(path) if path else None, Lines(self._raw)
        if self._stream and lines is not None:
            with self._readable():
                self._stream.skip_to_last_lines(lines)

    def _read(self, *, final: bool = False) -> Iterator[bytes]:
        if self._stream is None:
            return
        with self._readable():
            while data := self._stream.read():
                yield from self._lines.of(data)
        if final:
            yield from self._lines.last()

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Raises LlmlaunchError for what cannot be read."""
        from llmlaunch.common import files

        try:
            yield
        except (OSError, files.UnusableFileError) as error:
            path = self._stream.path if self._stream else ""
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise LlmlaunchError(f"{path} cannot be read: {why}") from None


def show(
    deployment: str,
    names: Sequence[str],
    *,
    lines: int | None,
    previous: bool,
    follow: bool,
    raw: bool = False,
    out: Callable[[str | bytes], None],
) -> None:
    """Print what ``names`` printed; with ``follow`` until the deployment is down (or Ctrl-C). ``raw``: as it was printed.

    Of several, ``previous`` leaves out those that had no earlier life. Raises UsageError when none had one, and LlmlaunchError
    for a log that cannot be read.
    """
    if previous and len(names) > 1:
        names = [name for name in names if len(_lives(deployment, name)) > 1]
        if not names:
            raise UsageError("none of these has a log of an earlier life")
    tails = [Tail(deployment, name, raw) for name in names]
    width = max(map(len, names), default=0)

    def put(tail: Tail, found: Iterator[bytes]) -> None:
        prefix = f"{tail.component.ljust(width)} | " if len(tails) > 1 else ""
        for line in found:
            if raw:
                out(prefix.encode() + line)
            else:
                out(prefix + visible(line.decode(errors="replace")))

    follow = follow and not previous
    with contextlib.ExitStack() as until_the_end:
        for tail in tails:
            until_the_end.callback(tail.close)
            put(tail, tail.start(lines, previous=previous, final=not follow))
        while follow:
            alive = _alive(deployment)
            for tail in tails:
                put(tail, tail.more())
            if not alive:
                return
            time.sleep(POLL_S)


def _alive(deployment: str) -> bool:
    from llmlaunch.control.client import ControlClient

    try:
        ControlClient.connect(deployment)
    except NotRunningError:
        return False
    return True
