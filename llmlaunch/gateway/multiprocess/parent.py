"""Several processes as one gateway on one port: the parent forks them, replaces those that die or hang, and stops them
together.

Each process has its own listening socket, and the kernel distributes connections over the sockets (SO_REUSEPORT, man 7
socket). The parent keeps the sockets open too, so connections to a process that died wait for its successor instead of
being reset. The processes share memory for counters (``shared_counters``) and for deaths of replicas (``death_ledger``),
and nothing else: each follows the controller by itself.

A process that hangs would keep its share of new connections waiting, and a probe of the port may well reach another
process. So each process counts the turns of its event loop, and the parent kills one whose count stands still
(``loop_liveness``). The processes watch the parent in the same way (``ParentWatch``): they serve without it, but without
it no process is replaced or stopped.

The processes are forked, not started: they share the imported modules, start within about 20 ms, and errors in the
options or the port were reported before, once. The parent has no threads and no event loop that a fork could break.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from llmlaunch import http_server as serve
from llmlaunch.common import backoff, signals
from llmlaunch.common.prctl import die_with_parent
from llmlaunch.errors import UsageError
from llmlaunch.gateway.multiprocess.death_ledger import DeathLedger
from llmlaunch.gateway.multiprocess.loop_liveness import SAMPLE_S, STOPPED, LoopLiveness, ProcessSample, read
from llmlaunch.gateway.multiprocess.shared_counters import ProcessGroup, SharedCounters

log = logging.getLogger(__name__)

STOP = signal.SIGUSR1
"""The parent sends it to a process that shall finish its requests and exit. It is not SIGTERM or SIGINT, which a
supervisor or a terminal may have sent to all processes already: a second SIGINT would end a process at once."""
KILL_AFTER_S = 2.0
"""Seconds after the grace period when a process that has not exited is killed. Less than a supervisor waits for the
gateway (``planning.specs.WRAP_UP_S``)."""
STABLE_AFTER_S = 10.0
"""A process that ran for this many seconds is replaced at once, another one after a delay that doubles."""
RESTART_DELAY_S, MAX_RESTART_DELAY_S = 0.1, 5.0
"""The first and the longest of these delays, in seconds."""
START_TRIES = 3
"""Failed starts of one process after which the gateway gives up, if not all processes have served yet."""

Serve = Callable[[socket.socket, ProcessGroup, Callable[[], None]], int]
"""Serves on the socket as one process of the group; calls the last argument once it serves; returns the exit code."""


def sample_of(pid: int) -> ProcessSample | None:
    """What the kernel reports of a process; None if it reports nothing."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  # a file of the kernel's, read once a second
            return read(file.read(), os.sysconf("SC_CLK_TCK"))
    except OSError:
        return None


class ParentWatch:
    """Watches the parent from one of its processes."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._parent = os.getppid()
        self._liveness = LoopLiveness()
        self._others = {index: LoopLiveness() for index in range(group.size) if index != group.index}
        self._reported = False

    def observe(self, now: float) -> bool:
        """Whether connections are lost: both the parent and a process that it would replace hang. Call it once a second.

        A parent that was stopped by a signal is sent SIGCONT.
        """
        sample = sample_of(self._parent)
        why = self._liveness.observe(self._group.own.parent_beat, sample, now)
        lost = [
            liveness.observe(self._group.counters[index].beat, None, now)
            for index, liveness in self._others.items()
        ]
        if why and not self._reported:
            log.error(
                "the parent of the gateway's processes (pid %d) hangs: %s; processes that fail are not replaced",
                self._parent,
                why,
            )
        elif self._reported and not why:
            log.info("the parent of the gateway's processes is back")
        self._reported = bool(why)
        if why and sample is not None and sample.state in STOPPED:
            with contextlib.suppress(OSError):
                os.kill(self._parent, signal.SIGCONT)
        return bool(why) and any(lost)


def listeners(first: socket.socket, count: int) -> list[socket.socket]:
    """``first`` and more sockets that listen on its address, ``count`` in all. Raises UsageError if that is not possible.

    ``first`` was bound without SO_REUSEPORT, which proves that no other program has the port: with the option, two
    gateways would share it silently.
    """
    found = [first]
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            sock = socket.socket(first.family, first.type, first.proto)
            found.append(sock)
            for level, option in (
                (socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_REUSEPORT),
                (socket.IPPROTO_TCP, socket.TCP_NODELAY),
            ):  # fmt: skip
                sock.setsockopt(level, option, 1)
            if first.family == socket.AF_INET6:
                only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            sock.bind(first.getsockname())
            sock.listen(socket.SOMAXCONN)
            sock.setblocking(False)
    except OSError as error:
        for sock in found[1:]:
            sock.close()
        raise UsageError(
            f"{count} processes cannot share port {first.getsockname()[1]}: {error.strerror}",
            hint="run one: leave --processes out",
        ) from error
    return found


@dataclass(slots=True)
class ChildProcess:
    """The process with one index: the running one, or the next one to start."""

    index: int
    pid: int = 0
    """0: it is not running."""
    since: float = 0.0
    """When it was started, in seconds of the monotonic clock."""
    restart_at: float = 0.0
    """When to start it if it is not running, on the same clock."""
    failures: int = 0
    """How often in a row it ran for less than STABLE_AFTER_S."""
    liveness: LoopLiveness = field(default_factory=LoopLiveness)


@dataclass(frozen=True, slots=True)
class ProcessNotices:
    """Callbacks for the end of a process. Each gets the counters of that process."""

    exited: Callable[[SharedCounters], None]
    """It exited although it was not stopped."""
    hung: Callable[[SharedCounters], None]
    """It hung and is killed."""
    ended: Callable[[SharedCounters], None]
    """It exited after it was stopped."""


class ParentProcess:
    """The parent of the gateway's processes. Call :meth:`run` in the main thread of a process without other threads."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        serve: Serve,
        grace_s: float,
        on_started: Callable[[], None],
        notices: ProcessNotices,
    ) -> None:
        """``grace_s``: the grace period of ``serve`` in seconds. ``on_started`` is called once all processes serve."""
        self._notices = notices
        self._sockets = sockets
        self._serve = serve
        self._grace_s = grace_s
        self._on_started = on_started
        self._counters = tuple(SharedCounters() for _ in sockets)
        self._ledger = DeathLedger(len(sockets))
        self._children = [ChildProcess(index) for index in range(len(sockets))]
        self._served: set[int] | None = set()
        """The indexes of the processes that have served; None once all have."""
        self._code: int | None = None
        """The exit code of a gateway that is stopping; None: it is not."""
        self._kill_at = 0.0
        self._sample_at = 0.0
        self._ending = signals.not_ignored(signals.ENDING)
        self._handled = (*self._ending, signal.SIGCHLD, *signals.unhandled())

    def run(self) -> int:
        """Run until a signal stops it; return 130 for SIGINT, else 0. Returns 1 if a process cannot start."""
        self._wakeup_read, self._wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._started_read, self._started_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wakeup_write)
        for number in self._handled:
            signal.signal(number, lambda *_: None)  # its number is read from the wakeup descriptor
        while self._code is None or any(child.pid for child in self._children):
            now = time.monotonic()
            self._start_due(now)
            ready, _, _ = select.select((self._wakeup_read, self._started_read), (), (), self._timeout(now))
            if self._started_read in ready:
                self._note_started(os.read(self._started_read, 512))
            if self._wakeup_read in ready:
                self._signalled(os.read(self._wakeup_read, 512))
            self._reap()
            self._kill_hung()
            if self._code is not None and time.monotonic() > self._kill_at:
                self._send(signal.SIGKILL)
        return self._code

    def _timeout(self, now: float) -> float:
        """Seconds until something is due."""
        due = [self._sample_at]
        if self._code is not None:
            due.append(max(self._kill_at, now + 0.05))
        else:
            due += [child.restart_at for child in self._children if not child.pid]
        return max(0.0, min(due) - now)

    def _start_due(self, now: float) -> None:
        for child in self._children:
            if self._code is None and not child.pid and child.restart_at <= now:
                self._start(child, now)

    def _start(self, child: ChildProcess, now: float) -> None:
        parent = os.getpid()
        # Signals to the child must wait until it has handlers of its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._handled)
        try:
            child.pid = os.fork()
        except OSError as error:
            log.error("cannot start a process: %s", error.strerror)
            child.restart_at = now + MAX_RESTART_DELAY_S
            return
        finally:
            if child.pid or os.getpid() == parent:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handled)
        if child.pid == 0:
            self._run_child(child.index, parent)
        child.since = now
        child.liveness = LoopLiveness()

    def _run_child(self, index: int, parent: int) -> NoReturn:
        """Run as the child ``index``, in the new process."""
        code = 1
        try:
            die_with_parent()
            if os.getppid() != parent:
                os._exit(1)  # the parent died before the line above
            signal.set_wakeup_fd(-1)
            for number in self._handled:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handled)
            for descriptor in (self._wakeup_read, self._wakeup_write, self._started_read):
                os.close(descriptor)
            for other, sock in enumerate(self._sockets):
                if other != index:
                    sock.close()
            group = ProcessGroup(self._counters, index, self._ledger.for_process(index))
            code = self._serve(self._sockets[index], group, lambda: self._report_started(index))
        except BaseException:
            log.exception("a process of the gateway failed")
        finally:
            logging.shutdown()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)

    def _report_started(self, index: int) -> None:
        with contextlib.suppress(OSError):
            os.write(self._started_write, bytes((index,)))

    def _note_started(self, indexes: bytes) -> None:
        if self._served is None:
            return
        self._served.update(indexes)
        if len(self._served) == len(self._children):
            self._served = None
            self._on_started()

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number in self._ending and self._code is None:
                self._end(130 if number == signal.SIGINT else 0)
            elif number not in (*self._ending, signal.SIGCHLD):
                serve.note(number)

    def _end(self, code: int) -> None:
        self._code = code
        self._kill_at = time.monotonic() + self._grace_s + KILL_AFTER_S
        for number in set(self._ending) & set(signals.FROM_A_KEYBOARD):
            signal.signal(
                number, signal.SIG_DFL
            )  # a second one ends the parent at once, and its children with it
        for sock in self._sockets:
            sock.close()
        self._send(STOP)

    def _send(self, number: int) -> None:
        for child in self._children:
            if child.pid:
                os.kill(
                    child.pid, number
                )  # a child that is not reaped keeps its pid: it cannot be another process

    def _kill_hung(self) -> None:
        """Kill processes that hang, about once a second; :meth:`_reap` then has them replaced."""
        now = time.monotonic()
        if now < self._sample_at:
            return
        self._sample_at = now + SAMPLE_S
        for child in self._children:
            counters = self._counters[child.index]
            counters.parent_beat += 1.0
            if not child.pid or not (why := child.liveness.observe(counters.beat, sample_of(child.pid), now)):
                continue
            log.error("process %d of the gateway (pid %d) hangs: %s; killing it", child.index, child.pid, why)
            self._notices.hung(counters)
            child.liveness = LoopLiveness()
            os.kill(child.pid, signal.SIGKILL)

    def _reap(self) -> None:
        for child in self._children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.pid = 0
                self._ended(child, pid, os.waitstatus_to_exitcode(status))

    def _ended(self, child: ChildProcess, pid: int, code: int) -> None:
        if self._code is not None:
            self._notices.ended(self._counters[child.index])
            return
        self._notices.exited(self._counters[child.index])
        now = time.monotonic()
        child.failures = child.failures + 1 if now - child.since < STABLE_AFTER_S else 0
        pause = backoff.delay(child.failures, RESTART_DELAY_S, MAX_RESTART_DELAY_S) if child.failures else 0.0
        child.restart_at = now + pause
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if self._served is not None and child.index not in self._served and child.failures >= START_TRIES:
            log.error("process %d of the gateway (pid %d) cannot start: %s", child.index, pid, how)
            self._end(1)
            return
        log.warning(
            "process %d of the gateway (pid %d) ended with %s; starting another one", child.index, pid, how
        )
