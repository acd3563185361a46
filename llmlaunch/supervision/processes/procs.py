"""Reads process trees and environments from /proc, and kills whole trees."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from llmlaunch.common.process_identity import GONE, ProcessId, identify, stat_fields

_PAIR = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*=")


def descendants(root: int) -> list[int]:
    """Pids of everything alive below ``root``, without it."""
    return [process.pid for process in families([root])[root]]


def families(roots: Iterable[int]) -> dict[int, list[ProcessId]]:
    """Everything alive below each of ``roots``, which are not included, in one walk through /proc."""
    children = _children()
    return {root: _below(root, children) for root in roots}


def unknown_children(parent: int, known: Collection[int]) -> list[int]:
    """Pids of the live children of ``parent`` that are not ``known``, and of everything below these."""
    children = _children()
    own = [child.pid for child in children.get(parent, []) if child.pid not in known]
    return own + [process.pid for pid in own for process in _below(pid, children)]


def _children() -> dict[int, list[ProcessId]]:
    """Everything alive, by the pid of its parent."""
    children: dict[int, list[ProcessId]] = {}
    for pid in _pids():
        fields = stat_fields(pid)
        if fields and fields[0] not in GONE:
            children.setdefault(int(fields[1]), []).append(ProcessId(pid, int(fields[19])))
    return children


def _below(root: int, children: Mapping[int, list[ProcessId]]) -> list[ProcessId]:
    found: list[ProcessId] = []
    todo = [root]
    while todo:
        more = children.get(todo.pop(), [])
        found += more
        todo += [process.pid for process in more]
    return found


def cpu_seconds(root: int) -> float:
    """CPU time that ``root``, everything alive below it and what those have reaped took so far (``man 5 proc_pid_stat``)."""
    ticks = 0
    for pid in (root, *descendants(root)):
        if fields := stat_fields(pid):
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def moved_bytes(root: int) -> int:
    """Bytes that ``root``, everything alive below it and what those have reaped have read and written so far.

    Of a process the larger one of what it asked for and what came from the disk: memory-mapped files are not asked for, cached
    ones do not come from the disk (``man 5 proc_pid_io``). Processes of other users are left out.
    """
    moved = 0
    for pid in (root, *descendants(root)):
        with contextlib.suppress(OSError, ValueError):
            lines = Path(f"/proc/{pid}/io").read_text().splitlines()
            count = {key: int(value) for key, _, value in (line.partition(":") for line in lines)}
            moved += max(count["rchar"], count["read_bytes"]) + max(count["wchar"], count["write_bytes"])
    return moved


def environment(pid: int) -> dict[str, str]:
    """The environment that ``pid`` was started with; empty if it is gone or belongs to another user."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition("=") for item in raw.decode(errors="replace").split("\0") if item)
    return {key: value for key, _, value in pairs}


def is_another(pid: int, name: str, value: str) -> bool:
    """Whether the environment of ``pid`` proves that it was not started with ``name`` set to ``value``.

    One that is empty, or wiped by setproctitle, proves nothing.
    """
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    pairs = [item for item in raw.split(b"\0") if _PAIR.match(item)]
    return bool(pairs) and f"{name}={value}".encode() not in pairs


def with_environment(wanted: Mapping[str, str], pids: Iterable[int] | None = None) -> list[int]:
    """Live processes (of ``pids``, or of all) whose environment holds every ``wanted`` pair; never this process."""
    found = []
    for pid in _pids() if pids is None else pids:
        if pid == os.getpid():
            continue
        env = environment(pid)
        if env and all(env.get(key) == value for key, value in wanted.items()) and identify(pid):
            found.append(pid)
    return found


def kill(pids: Iterable[int]) -> None:
    """SIGKILL each of ``pids`` that exists and is ours."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_until_gone(find: Callable[[], list[int]], patience_s: float) -> list[int]:
    """SIGKILL what ``find`` returns until it returns nothing; what is left after ``patience_s`` seconds. Blocks."""
    end = time.monotonic() + patience_s
    while left := find():
        kill(left)
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    return left


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
