"""One plan at a time: whoever plans holds a lock until a supervisor has accepted the plan.

From then on others see it as promised (``llmlaunch/other_deployments.py``). Two that planned at the same moment would take the same free
ports and the same free memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from llmlaunch import paths
from llmlaunch.common import file_lock

PATIENCE_S = 60.0
"""Seconds to wait for the lock. Whoever holds it for longer hangs, or waits for a hub: two plans at once are better than none."""
_SAY_AFTER_S = 1.0


@contextlib.contextmanager
def planning_lock(waiting: Callable[[], None], patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Wait until no other ``up`` of this user plans, ``patience_s`` seconds at most, and keep others waiting until the end.

    ``waiting`` is called once if it takes long. Where no lock can be kept, nobody waits: starting a supervisor says what is wrong
    with the state folder.
    """
    lock = None
    try:
        paths.private_dir(paths.state_root())
        lock = file_lock.acquire(
            paths.state_root() / "planning.lock", patience_s, waiting=waiting, waiting_after_s=_SAY_AFTER_S
        )
    except OSError:
        pass  # a lock that nobody gives back, or a file system without locks
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
