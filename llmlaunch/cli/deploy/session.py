"""A running deployment as one terminal follows it: its events, and the signals to this process, in one queue."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llmlaunch.errors import DeadlineError, LlmlaunchError

if TYPE_CHECKING:
    from types import FrameType

    from llmlaunch.cli.display.progress import StartProgress
    from llmlaunch.control.client import ControlClient
    from llmlaunch.control.types import ProgressEvent


class Interrupted(Exception):
    """A signal asked this process to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        r"""130 for Ctrl-C and 131 for Ctrl-\, as shells expect; a SIGTERM or a closed terminal is an ordinary end."""
        return 128 + self.signum if self.signum in (signal.SIGINT, signal.SIGQUIT) else 0


class SupervisorGone(Exception):
    """The supervisor does not answer any more: it ended, or it died."""


@dataclass(frozen=True, slots=True)
class _Signalled:
    signum: int


@dataclass(frozen=True, slots=True)
class _Ended:
    pass


class View(Protocol):
    """Where changes are shown."""

    def change(self, event: ProgressEvent) -> None:
        """Show one change of a component."""


class Session:
    """Feeds ``progress`` and ``view`` from the supervisor behind ``client``. Call :meth:`open` once, after ``apply``."""

    def __init__(self, client: ControlClient, progress: StartProgress, view: View, *, since: int = 0) -> None:
        self.client = client
        self.progress = progress
        self.view = view
        self._since = since  # the number of an event: earlier ones are history that nobody here asked for
        self._supervisor = 0
        self._inbox: queue.SimpleQueue[ProgressEvent | _Signalled | _Ended] = queue.SimpleQueue()

    def open(self) -> None:
        """Read the current state, and listen for changes from here on."""
        report = self.client.status()
        self._supervisor = report.supervisor.pid
        self.progress.seed(report)
        threading.Thread(target=self._listen, name="events", daemon=True).start()

    def _listen(self) -> None:
        seen = self._since
        while True:
            try:
                for event in self.client.events(since=seen):
                    seen = event.seq
                    self._inbox.put(event)
            except (LlmlaunchError, OSError):
                pass
            if not self._lives_on():
                self._inbox.put(_Ended())
                return
            time.sleep(0.1)

    def _lives_on(self) -> bool:
        """Whether the same supervisor still runs: a stream may break without it, and a new supervisor restarts the numbering."""
        from llmlaunch.control.connection import NotAnsweringError

        try:
            return self.client.status().supervisor.pid == self._supervisor
        except NotAnsweringError:
            return True
        except (LlmlaunchError, OSError):
            return False

    def interrupt(self, signum: int, _frame: FrameType | None = None) -> None:
        """A signal handler. SimpleQueue may be used in one: its ``put`` never blocks on a lock that we hold."""
        self._inbox.put(_Signalled(signum))

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Have the signals that ask for an end raise :class:`Interrupted` out of :meth:`step`, instead of anywhere.

        What is ignored stays so: under ``nohup`` a deployment outlives its terminal.
        """
        from llmlaunch.common import signals

        kinds = signals.not_ignored(signals.ENDING)
        before = {kind: signal.signal(kind, self.interrupt) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def step(self, timeout_s: float) -> None:
        """Wait for one thing to happen, at most ``timeout_s`` seconds, and take it in.

        Raises Interrupted and SupervisorGone.
        """
        try:
            item = self._inbox.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return
        if isinstance(item, _Signalled):
            raise Interrupted(item.signum)
        if isinstance(item, _Ended):
            self._inbox.put(item)  # it stays true for whoever asks next
            raise SupervisorGone
        self.progress.take(item)
        self.view.change(item)

    def wait(self, done: Callable[[], bool], deadline: float | None, waiting_for: Callable[[], str]) -> None:
        """Step until ``done()``. ``deadline`` is a time of the monotonic clock.

        Raises DeadlineError with ``waiting_for()`` in its message; Interrupted and SupervisorGone as :meth:`step`.
        """
        while not done():
            left = 0.5 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise DeadlineError(f"timed out; {waiting_for()}")
            self.step(min(left, 0.5))
