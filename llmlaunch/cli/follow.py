"""Reading components' log files, and following them across restarts."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmlaunch.cli.select import components, unknown_component
from llmlaunch.errors import LlmlaunchError, NotRunningError, UsageError
from llmlaunch.paths import DeploymentPaths

if TYPE_CHECKING:
    from llmlaunch.control.types import ComponentStatus

SUPERVISOR = "supervisor"
POLL_S = 0.1
_FILE = re.compile(r"(?P<component>.+)\.\d{6}\.log")


def sources(deployment: str, words: Sequence[str]) -> list[str]:
    """The components that ``words`` mean, whether the deployment runs or not; all of them without words.

    Raises UsageError for a word that means nothing, NotRunningError when there are neither components nor logs.
    """
    known = _running(deployment)
    on_disk = _on_disk(deployment)
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


def _on_disk(deployment: str) -> list[str]:
    folder = DeploymentPaths(deployment).logs
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted({match["component"] for f in files if (match := _FILE.fullmatch(f.name))})


def _files(deployment: str, component: str) -> list[Path]:
    from llmlaunch.supervision.logs import log_files

    if component == SUPERVISOR:
        return [path for path in [DeploymentPaths(deployment).supervisor_log] if path.exists()]
    return log_files(deployment, component)


@dataclass(slots=True)
class Tail:
    """One component's output, line by line, from one life into the next."""

    deployment: str
    component: str
    path: Path | None = None
    _offset: int = 0
    _rest: bytes = field(default=b"")

    def start(self, lines: int | None, *, previous: bool, final: bool) -> list[str]:
        """What there is now, at most the last ``lines``; with ``final`` also a last line that is not whole.

        Raises UsageError when there is no earlier life.
        """
        files = _files(self.deployment, self.component)
        if previous:
            if len(files) < 2:
                raise UsageError(f"{self.component} has no earlier life that left a log")
            self.path = files[-2]
        else:
            self.path = files[-1] if files else None
        found = self._read(final=final)
        return found if lines is None else found[len(found) - min(lines, len(found)) :]

    def more(self) -> list[str]:
        """What was printed since. The rest of a life that ended comes before the first line of the next."""
        found = self._read()
        files = _files(self.deployment, self.component)
        later = files if self.path is None else [f for f in files if f.name > self.path.name]
        for path in later:
            found += self._read(final=True)
            self.path, self._offset, self._rest = path, 0, b""
            found += self._read()
        return found

    def _read(self, *, final: bool = False) -> list[str]:
        if self.path is None:
            return []
        try:
            with self.path.open("rb") as log:
                log.seek(self._offset)
                data = log.read()
        except FileNotFoundError:  # pruned meanwhile
            data = b""
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if final and self._rest:
            whole, self._rest = [*whole, self._rest], b""
        return [line.decode(errors="replace").rstrip("\r") for line in whole]


def show(
    deployment: str,
    names: Sequence[str],
    *,
    lines: int | None,
    previous: bool,
    follow: bool,
    out: Callable[[str], None],
) -> None:
    """Print what ``names`` printed; with ``follow`` until the deployment is down (or Ctrl-C).

    Of several, ``previous`` leaves out those that had no earlier life. Raises UsageError when none had one.
    """
    if previous and len(names) > 1:
        names = [name for name in names if len(_files(deployment, name)) > 1]
        if not names:
            raise UsageError("none of these has an earlier life that left a log")
    tails = [Tail(deployment, name) for name in names]
    width = max(map(len, names), default=0)

    def put(tail: Tail, found: Sequence[str]) -> None:
        for line in found:
            out(f"{tail.component.ljust(width)} | {line}" if len(tails) > 1 else line)

    follow = follow and not previous
    for tail in tails:
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
