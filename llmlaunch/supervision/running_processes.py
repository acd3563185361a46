"""The process trees of one deployment, and the state file that names them for a supervisor that comes after a crash."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable

from llmlaunch import paths
from llmlaunch.common import files, process_identity
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.control import state_file
from llmlaunch.supervision.file_threads import LatestValueThread
from llmlaunch.supervision.processes import procs
from llmlaunch.supervision.processes.spawn import ProcessTree, Shims, reap_children

_YOUNG_S = 60.0
_LOOK_YOUNG_S, _LOOK_S = 1.0, 5.0
"""How often the descendants of a program are noted: a start makes many, later hardly one."""
_STRAYS_S = 5.0
Key = tuple[str, int]
"""A component's name and its incarnation."""
log = logging.getLogger(__name__)


class RunningProcesses:
    """``run`` identifies the processes after a crash. ``left`` are those of an earlier supervisor that could not be killed."""

    def __init__(self, where: paths.DeploymentPaths, run: str, left: Iterable[ProcessId] = ()) -> None:
        self._where = where
        self._run = run
        self._me = process_identity.identify(os.getpid())
        self._boot = process_identity.boot_id()
        self._trees: dict[Key, ProcessTree] = {}
        self._descendants: dict[Key, tuple[ProcessId, ...]] = {}
        self._left = set(left)
        self._written: state_file.SupervisorState | None = None
        self._writer = LatestValueThread(self._write)
        self.shims = Shims()

    def get(self, key: Key) -> ProcessTree | None:
        """The tree of one incarnation, as long as anything of it is alive."""
        return self._trees.get(key)

    def add(self, key: Key, tree: ProcessTree) -> None:
        """Note a tree as soon as its shim runs, in the state file, too."""
        self._trees[key] = tree
        self.save()

    def discard(self, key: Key) -> None:
        """Forget a tree that never came to be, or that has ended. What outlived SIGKILL stays in the state file."""
        self._left.update(self._descendants.pop(key, ()))
        self._trees.pop(key, None)
        self.save()

    def cpu_seconds(self, key: Key) -> float:
        """CPU time of the whole tree so far; 0 when there is none. Blocks: walks /proc."""
        tree = self._trees.get(key)
        return tree.cpu_seconds() if tree else 0.0

    def moved_bytes(self, key: Key) -> int:
        """What the whole tree has read and written so far; 0 when there is none. Blocks: walks /proc."""
        tree = self._trees.get(key)
        return tree.moved_bytes() if tree else 0

    def reap(self) -> None:
        """Collect every child that has ended; called at SIGCHLD."""
        reap_children(list(self._trees.values()), self.shims)

    async def note_descendants(self) -> None:
        """Keep what is below each program in the state file, until cancelled: a later supervisor may have to kill it."""
        while True:
            now = asyncio.get_running_loop().time()
            young = any(now - tree.began < _YOUNG_S for tree in self._trees.values())
            await asyncio.sleep(_LOOK_YOUNG_S if young or not self._trees else _LOOK_S)
            shims = {key: tree.shim_pid for key, tree in self._trees.items()}
            families = await asyncio.to_thread(procs.families, list(shims.values()))
            for key, pid in shims.items():
                if key in self._trees:
                    self._descendants[key] = tuple(sorted(families[pid], key=lambda process: process.pid))
            self.save()

    async def close(self) -> None:
        """Kill stray orphans, then remove the state file, unless something that it names is still alive."""
        await asyncio.to_thread(procs.kill_until_gone, self.shims.orphans, _STRAYS_S)
        self.save()
        written = await asyncio.to_thread(self._writer.finish)
        if written and not self._left:
            files.remove(self._where.state_file)
            files.remove(self._where.routes_file)

    def save(self) -> None:
        """Write the state file, in a thread, if it would say anything new."""
        if self._me is None:
            return
        kept = tuple(
            state_file.SupervisedProcess(
                n, i, tree.shim, tree.program, self._descendants.get((n, i), ()), tree.cgroup
            )
            for (n, i), tree in sorted(self._trees.items())
        )
        self._left = {process for process in self._left if process.alive}
        left = tuple(sorted(self._left, key=lambda process: process.pid))
        state = state_file.SupervisorState(self._run, self._me, kept, self._boot, left)
        if state != self._written:
            self._written = state
            self._writer.put(state)

    def _write(self, state: state_file.SupervisorState) -> None:
        try:
            state_file.write_state(self._where, state)
        except OSError as error:
            log.error("cannot write %s: %s", self._where.state_file, error)
