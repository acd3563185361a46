"""Holds one process tree together, and takes it down when its owner dies, however that happens.

Run as ``python -I -S shim.py FOLDER NAME MOST KEEP STOP PROGRAM ARG…``; only the standard library, and of llmlaunch only the
files ``log_pipe`` and ``log_writer`` beside this one, ``prctl`` and ``variables`` in ``common``. The environment and
the working folder are the program's. FOLDER is a descriptor of the folder (-1: there is none) in which the program's
output becomes the log NAME, KEEP files of MOST bytes at most. STOP is the number of the signal that asks the tree to end.
Three more descriptors belong to the owner:

* 0, a pipe that the owner holds open: lines ``term SECONDS`` and ``kill``; end of file means that the owner is gone
* 1, a pipe for reports: ``pid N`` once the program runs, or ``fail ERRNO TEXT``; at the end ``exit CODE LEFT``, where CODE is
  negative for a signal and LEFT counts processes that not even SIGKILL could end
* 2, stderr of the shim itself until the log is open

How it keeps hold of a tree: it is a subreaper (``man 2 prctl``, PR_SET_CHILD_SUBREAPER), so a descendant whose parent died
becomes its own child, whatever session or group it moved to; walking /proc from here down finds all. The program gets
PR_SET_PDEATHSIG, should somebody kill the shim itself. Single-threaded, because that signal is tied to the thread that forks.
"""

import os
import select
import signal
import sys
import time

sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
sys.path.append(os.path.join(sys.path[-1], "..", "..", "common"))  # noqa: PTH118

from log_pipe import WATCH_S, LogPipe  # type: ignore[import-not-found]
from prctl import adopt_orphans, die_with_parent  # type: ignore[import-not-found]
from variables import CGROUP, RUN, STATE_FILE  # type: ignore[import-not-found]

ORPHAN_GRACE_S = 0.8  # the owner is gone: nobody waits for a response any more
LEFTOVER_GRACE_S = 1.0  # the program has ended and left some of its children behind
TRACKER_GRACE_S = 1.0  # all others are killed: Python's resource trackers remove the shared memory of these
KILL_PATIENCE_S = 15.0  # processes in uninterruptible sleep may outlast even SIGKILL
POLL_S = 0.02
KEPT = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE,
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip
IGNORED = signal.valid_signals() - KEPT  # whoever wants the program to end tells the supervisor
STATE_BYTES = 16 << 20


class Shim:
    """The shim's process: the program's parent, and a subreaper of everything below it."""

    def __init__(self, argv: list[str], log: LogPipe, stop: int) -> None:
        self.log = log
        self.stop = stop
        adopt_orphans()
        self.woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.cgroup = os.environ.pop(CGROUP, "")
        self.state_file = os.environ.pop(STATE_FILE, "")
        self.reports = os.dup(1)
        for number in (1, 2):
            os.dup2(log.sink, number)
        os.close(log.sink)
        self.input = b""
        self.orphaned = False
        self.code = 0
        self.child = self.start(argv)

    def report(self, line: str) -> None:
        """Send one line to the owner, if it still listens."""
        try:
            os.write(self.reports, line.encode() + b"\n")
        except OSError:
            pass  # nobody listens any more

    def start(self, argv: list[str]) -> int:
        """Fork and exec. The pipe closes at a successful exec, or carries the errno."""
        status, report_status = os.pipe2(os.O_CLOEXEC)
        owner = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self.exec_program(argv, owner)
            except BaseException as error:
                os.write(report_status, str(getattr(error, "errno", 0) or 0).encode())
            os._exit(127)
        os.close(report_status)
        failed = os.read(status, 16)
        os.close(status)
        if failed:
            os.waitpid(pid, 0)
            self.report(f"fail {failed.decode()} {os.strerror(int(failed))}")
            self.forget_group(self.cgroup)
            sys.exit(0)
        self.report(f"pid {pid}")
        return pid

    def exec_program(self, argv: list[str], owner: int) -> None:
        """Become the program, in the process that was forked for it. Returns only by raising OSError."""
        os.setsid()
        die_with_parent()
        if os.getppid() != owner:
            os._exit(127)  # the shim died before the line above
        signal.set_wakeup_fd(-1)
        for number in (*IGNORED, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if self.cgroup:
            self.write(f"{self.cgroup}/cgroup.procs", b"0")
        os.execvp(argv[0], argv)  # noqa: S606

    def reap(self) -> bool:
        """Collect everything that has ended, perhaps the program. True: there are no children, hence no descendants.

        The log's writer is a child, too: it has to finish before.

        Only this proves the end: a walk through /proc misses a process whose parent dies while it walks.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self.log.writer:
                self.log.writer = 0
            if pid == self.child:
                self.child, self.code = 0, os.waitstatus_to_exitcode(status)

    def wait(self, timeout: float) -> list[str]:
        """Sleep until something happens, at most ``timeout`` seconds; the owner's commands, and ``gone`` when it has died."""
        watched = [self.woken]
        if self.input is not None:
            watched.append(0)
        if self.log.stuck:
            watched.append(self.log.source)
        try:
            ready, _, _ = select.select(watched, [], [], timeout)
        except InterruptedError:
            ready = []
        if self.woken in ready:
            os.read(self.woken, 512)
        self.reap()
        self.log.watch()
        if 0 not in ready:
            return []
        data = os.read(0, 512)
        *lines, self.input = (self.input + data).split(b"\n")
        if not data:
            self.input, self.orphaned = None, True  # type: ignore[assignment]
            return ["gone"]
        return [line.decode() for line in lines]

    def run(self) -> None:
        """Until nothing is left of the tree: wait, end it as commanded, kill what remains, report."""
        killing = False
        deadline: float | None = None
        while self.child and deadline is None:
            deadline, killing = self.carry_out(self.wait(WATCH_S), deadline, killing)
        if deadline is None:
            deadline = self.terminate(LEFTOVER_GRACE_S)
        since = None
        left: list[int] = []
        while not self.reap():
            left = self.descendants(os.getpid())
            if not left:
                self.log.finish()
                if self.log.writer_is_stuck:
                    break
            now = time.monotonic()
            if killing or now >= deadline:
                killing, since = True, since or now
                spared = self.trackers(left) if now - since < TRACKER_GRACE_S else set()
                if not spared:
                    self.kill_group(self.cgroup)
                self.send(signal.SIGKILL, [pid for pid in left if pid not in spared])
                if now - since > KILL_PATIENCE_S:
                    break
            new, killing = self.carry_out(self.wait(POLL_S), deadline, killing)
            deadline = min(deadline, new or deadline)
        else:
            left = []
        if killing:
            self.kill_group(self.cgroup)
        self.forget_group(self.cgroup)
        self.report(f"exit {self.code if not self.child else -signal.SIGKILL} {len(left)}")
        if self.orphaned:
            self.kill_orphaned_trees()

    @staticmethod
    def trackers(tree: list[int]) -> set[int]:
        """Those of ``tree`` that end by themselves, once they have removed what the processes that they serve left in /dev/shm.

        Source: CPython's multiprocessing/resource_tracker.py, which ignores SIGTERM and waits for the end of its pipe.
        """
        found = set()
        for pid in tree:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as words:  # noqa: PTH123
                    if b"multiprocessing.resource_tracker" in words.read():
                        found.add(pid)
            except OSError:
                pass  # it has ended
        return found

    def kill_group(self, cgroup: str) -> None:
        """SIGKILL everything in the control group, if there is one."""
        if cgroup:
            self.write(f"{cgroup}/cgroup.kill", b"1")

    @staticmethod
    def forget_group(cgroup: str) -> None:
        """Remove the control group, unless something is still alive in it."""
        try:
            if cgroup:
                os.rmdir(cgroup)  # noqa: PTH106
        except OSError:
            pass  # something lives on in it

    @staticmethod
    def write(file: str, data: bytes) -> None:
        """Write to a file of the kernel's, if it exists."""
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError:
            pass

    def kill_orphaned_trees(self) -> None:
        """Kill the trees of other shims that were killed together with the owner: nobody else would.

        The state file names what is below each shim (``control/state_file.py``).
        """
        import json  # takes longer than all other imports together, and is needed here alone

        try:
            descriptor = os.open(self.state_file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:  # noqa: PTH123
                state = json.loads(file.read(STATE_BYTES))
            if state["run"] != os.environ[RUN]:
                return
            kept = [k for k in state["processes"] if not self.alive(k["shim"])]
            orphans = [p for k in kept for p in (k["program"], *k["descendants"]) if p]
            for k in kept:
                self.kill_group(k["cgroup"])
            until = time.monotonic() + KILL_PATIENCE_S
            while (roots := [p["pid"] for p in orphans if self.alive(p)]) and time.monotonic() < until:
                self.send(signal.SIGKILL, [pid for root in roots for pid in (root, *self.descendants(root))])
                time.sleep(POLL_S)
            for k in kept:
                self.forget_group(k["cgroup"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            pass  # there is nobody to tell

    @staticmethod
    def alive(process: dict[str, int]) -> bool:
        """Whether it still is the same process, by its start time (``man 5 proc_pid_stat``), and not a zombie."""
        try:
            with open(f"/proc/{process['pid']}/stat", "rb") as stat:  # noqa: PTH123
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            return False
        return fields[0] not in (b"Z", b"X") and int(fields[19]) == process["started"]

    def carry_out(
        self, commands: list[str], deadline: float | None, killing: bool
    ) -> tuple[float | None, bool]:
        """Carry out the owner's commands; the new deadline of the tree, and whether to kill now."""
        for command in commands:
            word, _, value = command.partition(" ")
            if word == "kill":
                deadline, killing = time.monotonic(), True
            elif word in ("term", "gone"):
                deadline = self.terminate(ORPHAN_GRACE_S if word == "gone" else float(value))
        return deadline, killing

    def terminate(self, grace: float) -> float:
        """Send the stop signal to the tree, and wake what is suspended; the time until which to wait for its end."""
        tree = self.descendants(os.getpid())
        self.send(self.stop, tree)
        self.send(signal.SIGCONT, tree)
        return time.monotonic() + grace

    @staticmethod
    def send(number: int, tree: list[int]) -> None:
        """Send a signal to every process of ``tree`` that still exists."""
        for pid in tree:
            try:
                os.kill(pid, number)
            except OSError:
                pass  # it has exited, or belongs to another user now

    def descendants(self, root: int) -> list[int]:
        """Pids of all processes below ``root``, except the log's writer."""
        children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):  # noqa: PTH208  # pathlib would double the time to start
            if not name.isdigit():
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                    state, parent = stat.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            if state not in (b"Z", b"X") and int(name) != self.log.writer:
                children.setdefault(int(parent), []).append(int(name))
        found, todo = [], [root]
        while todo:
            more = children.get(todo.pop(), [])
            found += more
            todo += more
        return found


def main(folder: str, name: str, most: str, keep: str, stop: str, *argv: str) -> None:
    """Run a shim with the arguments of its command line."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if int(folder) >= 0:
        os.set_inheritable(int(folder), False)
    Shim(list(argv), LogPipe(int(folder), name, int(most), int(keep)), int(stop)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
