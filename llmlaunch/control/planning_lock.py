"""One plan at a time: who plans holds a lock until a supervisor has accepted the plan.

From then on others see it as promised (``llmlaunch/other_deployments.py``). Two that planned at the same moment would take the same free
ports and the same free memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator

from llmlaunch import paths
from llmlaunch.common import files

PATIENCE_S = 60.0
"""Whoever plans for longer hangs, or waits for a hub; a lock that keeps everybody out would be worse than two plans at once."""
_LOOK_EVERY_S = 0.05
_SAY_AFTER_S = 1.0


@contextlib.contextmanager
def planning_lock(waiting: Callable[[], None], patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Wait until no other ``up`` of this user plans, ``patience_s`` seconds at most, and keep others waiting until the end.

    ``waiting`` is called once if it takes long. Where no lock can be kept, nobody waits: starting a supervisor says what is wrong
    with the state folder.
    """
    try:
        paths.private_dir(paths.state_root())
        lock = files.open_kept(paths.state_root() / "planning.lock", os.O_RDWR)
    except OSError:
        yield
        return
    try:
        _take(lock, waiting, patience_s)
        yield
    finally:
        os.close(lock)


def _take(lock: int, waiting: Callable[[], None], patience_s: float) -> None:
    began, told = time.monotonic(), False
    while time.monotonic() - began < patience_s:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told and time.monotonic() - began > _SAY_AFTER_S:
                told = True
                waiting()
            time.sleep(_LOOK_EVERY_S)
        except OSError:  # a file system without locks
            return
        else:
            return
