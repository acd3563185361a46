"""Starts one process under the shim, and follows it until nothing is left of its tree."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llmlaunch.common import process_identity, variables
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.errors import StartError
from llmlaunch.supervision.logs.component_logs import LogTarget
from llmlaunch.supervision.processes import cgroups, procs

SHIM = Path(__file__).with_name("shim.py")
_REPORT_S = 15.0
_PORT_S = 0.5
"""How long a port may take to become free: the kernel closes a dead process's sockets shortly after its end."""

_OF_THE_PROGRAM = frozenset({errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.E2BIG,
                             errno.ENAMETOOLONG, errno.EINVAL})  # fmt: skip
"""Errors of ``execve`` that are the program's fault, and not temporary as ENOMEM, EMFILE and ETXTBSY are."""


class CannotExecute(StartError):
    """The program itself is at fault, and no retry can fix it."""


class Shims:
    """The shims among this process's children: every other child is an orphan of a shim that was killed.

    Environments cannot tell them apart: vLLM and SGLang wipe theirs when they set their titles (setproctitle). Children that this
    process had before are left alone: a supervisor has none, but a program that embeds one may.
    """

    def __init__(self) -> None:
        self._pids = set(procs.unknown_children(os.getpid(), ()))
        self._starting = threading.Lock()

    def start(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Call ``start``, and note the shim that it has started."""
        with self._starting:  # nobody may list the children between its creation and the next line
            popen = start()
            self._pids.add(popen.pid)
        return popen

    def discard(self, pid: int) -> None:
        """Forget a shim that was reaped."""
        self._pids.discard(pid)

    def orphans(self) -> list[int]:
        """Pids of orphans and of what is below them. Walks /proc; for any thread."""
        with self._starting:
            return procs.unknown_children(os.getpid(), self._pids)


class ProcessTree:
    """A program and everything below it. All methods are for the event loop's thread.

    ``program`` is known once :meth:`started` returned; ``began`` is in seconds of the loop's clock. ``shim`` is reaped here;
    see :func:`reap_children`.
    """

    def __init__(self, popen: subprocess.Popen[bytes], shims: Shims, cgroup: str) -> None:
        self._popen = popen
        self.cgroup = cgroup
        self._shims = shims
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._buffer = b""
        if popen.stdin is None or popen.stdout is None:
            raise ValueError("a shim needs pipes for its commands and reports")
        self._commands, self._output = popen.stdin, popen.stdout
        self._reports = popen.stdout.fileno()
        os.set_blocking(self._reports, False)
        asyncio.get_running_loop().add_reader(self._reports, self._on_report)
        self.shim = process_identity.identify(popen.pid) or ProcessId(popen.pid, 0)
        self.program: ProcessId | None = None
        self.began = asyncio.get_running_loop().time()

    async def started(self, program: str) -> int:
        """The program's pid. Raises StartError with the reason when it could not be executed."""
        try:
            line = await asyncio.wait_for(self._lines.get(), _REPORT_S)
        except TimeoutError:
            await self._abandon()
            raise StartError(f"{program!r} could not be started within {_REPORT_S:g} s") from None
        word, _, rest = (line or "").partition(" ")
        if word != "pid":
            await self._abandon()
            if word == "fail":
                raise _exec_error(program, rest)
            raise StartError("its shim exited at once")
        self.program = process_identity.identify(int(rest)) or ProcessId(int(rest), 0)
        return int(rest)

    async def ended(self) -> tuple[int | None, int]:
        """Wait until nothing is left: the exit code (None if the shim was killed), and how many processes cannot be killed."""
        code, left = None, 0
        line = await self._lines.get()
        if line is not None:
            _, code_text, left_text = line.split()
            code, left = int(code_text), int(left_text)
            await self._lines.get()
        else:
            # The shim was killed, and the program with it. Its descendants become children of this process, a subreaper.
            left = len(await asyncio.to_thread(self._sweep))
        self.close()
        return code, left

    def terminate(self, grace_s: float) -> None:
        """Tell the shim to send the stop signal to the tree, and to SIGKILL it after ``grace_s`` seconds."""
        self._tell(f"term {grace_s:.3f}")

    def kill(self) -> None:
        """Tell the shim to SIGKILL the tree."""
        self._tell("kill")

    def pids(self) -> list[int]:
        """The program and its descendants, alive now. Walks /proc."""
        return procs.descendants(self._popen.pid)

    def cpu_seconds(self) -> float:
        """CPU time that the whole tree has used so far. Walks /proc."""
        return procs.cpu_seconds(self._popen.pid)

    def moved_bytes(self) -> int:
        """What the whole tree has read and written so far. Walks /proc."""
        return procs.moved_bytes(self._popen.pid)

    def poll(self) -> None:
        """Reap the shim if it has ended."""
        if self._popen.poll() is not None:
            self._shims.discard(self._popen.pid)

    @property
    def shim_pid(self) -> int:
        """The pid of the shim, which is the root of the tree."""
        return self._popen.pid

    def close(self) -> None:
        """Release pipes and control group, once nothing is left of the tree."""
        asyncio.get_running_loop().remove_reader(self._reports)
        for pipe in (self._commands, self._output):
            with contextlib.suppress(OSError):
                pipe.close()
        cgroups.remove(self.cgroup)
        self.poll()
        if self._popen.returncode is None:
            self._popen.returncode = 0  # it is about to end, and reap_children collects it then

    def _sweep(self) -> list[int]:
        end = time.monotonic() + _REPORT_S
        # Its pipe closes before its children are reparented; a zombie has none left.
        while self.shim.alive and time.monotonic() < end:
            time.sleep(0.005)
        cgroups.kill(self.cgroup)
        return procs.kill_until_gone(self._shims.orphans, _REPORT_S)

    async def _abandon(self) -> None:
        self._popen.kill()
        await asyncio.to_thread(self._popen.wait)
        await asyncio.to_thread(self._sweep)
        self.close()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._commands.write(line.encode() + b"\n")

    def _on_report(self) -> None:
        try:
            data = os.read(self._reports, 4096)
        except BlockingIOError:
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._lines.put_nowait(line.decode())
        if not data:
            asyncio.get_running_loop().remove_reader(self._reports)
            self._lines.put_nowait(None)


def start_under_shim(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    log: LogTarget,
    shims: Shims,
    stop_signal: str = "SIGTERM",
) -> ProcessTree:
    """Start ``argv`` under a shim, which is added to ``shims``. Its stdout and stderr go to ``log``; ``stop_signal`` asks it to end.

    Raises StartError if the shim itself cannot be started.
    """
    if not Path(cwd).is_dir():
        raise StartError(f"the working folder no longer exists: {cwd}")
    try:
        popen = shims.start(
            lambda: subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(SHIM),
                    *log.arguments,
                    str(signal.Signals[stop_signal].value),
                    *argv,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=log.descriptors,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                bufsize=0,
            )
        )
    except (OSError, ValueError) as error:
        raise StartError(f"its shim could not be started: {error}") from None
    return ProcessTree(popen, shims, env.get(variables.CGROUP, ""))


def wait_for_port(host: str, port: int) -> str:
    """Empty if a server could listen there, else why not, with the process that does. Blocks for half a second at most."""
    from llmlaunch.hardware.ports import bind_problem, can_bind, holder_of

    end = time.monotonic() + _PORT_S
    while not can_bind(host, port):
        if time.monotonic() > end:
            wrong = bind_problem(host)
            return (
                f"host {host} {wrong}"
                if wrong
                else f"port {port} on {host} is taken by {holder_of(host, port)}"
            )
        time.sleep(0.05)
    return ""


def reap_children(trees: Sequence[ProcessTree], shims: Shims) -> None:
    """Collect every ended child of this process, the orphans of killed shims included; call at SIGCHLD."""
    known = {tree.shim_pid: tree for tree in trees}
    while True:
        try:
            # Look first (WNOWAIT): a Popen has to reap its own child itself.
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if info is None:
            return
        if info.si_pid in known:
            known[info.si_pid].poll()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(info.si_pid, os.WNOHANG)
            shims.discard(info.si_pid)


def _exec_error(program: str, rest: str) -> StartError:
    number, _, words = rest.partition(" ")
    code = int(number) if number.isdigit() else 0
    kind = CannotExecute if code in _OF_THE_PROGRAM else StartError
    if code == errno.ENOENT:
        return kind(f"the program {program!r} was not found, or the interpreter in its first line was not")
    if code == errno.EACCES:
        return kind(f"the program {program!r} cannot be executed: permission denied")
    return kind(f"the program {program!r} cannot be executed: {words.lower() or 'unknown error'}")
