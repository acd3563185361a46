"""Carries out the loop's commands: starts, drains and ends processes, and posts the results as events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmlaunch import paths
from llmlaunch.common import variables
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.common.terminal_text import visible
from llmlaunch.errors import PortTakenError, StartError
from llmlaunch.manifest.types import EngineName
from llmlaunch.models.sources import huggingface_cache
from llmlaunch.planning.environment import child_environment
from llmlaunch.planning.types import Plan, ProcessSpec
from llmlaunch.supervision.component_probes import ComponentProbes
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import (
    Drained,
    Exited,
    Spawned,
    SpawnFailed,
    Why,
)
from llmlaunch.supervision.credentials import credentials
from llmlaunch.supervision.file_threads import FileThreads
from llmlaunch.supervision.logs import component_logs
from llmlaunch.supervision.logs.causes import excerpt, find_cause, last_line
from llmlaunch.supervision.loop import Post
from llmlaunch.supervision.processes import cgroups
from llmlaunch.supervision.processes.oom import LOOK_EVERY_S, OomCount
from llmlaunch.supervision.processes.spawn import (
    CannotExecute,
    ProcessTree,
    start_under_shim,
    wait_for_port,
)
from llmlaunch.supervision.registrar import Registrar
from llmlaunch.supervision.running_processes import Key, RunningProcesses
from llmlaunch.supervision.vram_meter import VramMeter

_KEPT_LINES = 20
log = logging.getLogger(__name__)


class ProcessEffects:
    """Real processes of one deployment.

    ``run`` identifies them after a crash; their tokens and keys are derived from ``secret``. ``left`` are processes of an earlier
    supervisor that could not be killed.
    """

    def __init__(
        self,
        where: paths.DeploymentPaths,
        policy: Policy,
        run: str,
        secret: str,
        left: Iterable[ProcessId] = (),
    ) -> None:
        self._where = where
        self._run = run
        self._secret = secret
        self._cgroup = cgroups.own()
        self._workdir = ""
        self._private_env: frozenset[str] = frozenset()
        self._inherited: dict[str, Mapping[str, str]] = {}
        self._killed: set[Key] = set()
        self._draining: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._file_threads = FileThreads()
        self._incarnations: dict[str, int] = {}
        self._last_lines: dict[str, tuple[int, list[str]]] = {}
        self.running = RunningProcesses(where, run, left)
        self.vram = VramMeter(self.running)
        self.registrar = Registrar(secret)
        self._caches: dict[str, Path] = {}
        self._probes = ComponentProbes(
            where,
            policy,
            secret,
            self.running,
            lambda name, event: self._post(name, event),
            self._learn,
            self._downloaded,
        )
        self._post: Post = lambda name, event: None
        self._memory_read: Callable[[Mapping[str, int] | None], None] = lambda free: None

    def attach(self, post: Post, memory: Callable[[Mapping[str, int] | None], None]) -> None:
        """Where to post events, and what :meth:`read_memory` finds."""
        self._post, self._memory_read = post, memory

    # ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────

    def spawn(self, spec: ProcessSpec, incarnation: int) -> None:
        """Start ``spec`` under a shim. Posts Spawned and later Exited, or SpawnFailed."""
        self._incarnations[spec.name] = incarnation
        self._start_task(self._run_process(spec, incarnation))

    def drain(self, spec: ProcessSpec, incarnation: int, grace_s: float) -> None:
        """Wait up to ``grace_s`` seconds until no request is in flight. Posts Drained."""
        self._draining.add((spec.name, incarnation))
        self._start_task(self._drain(spec, incarnation, grace_s))

    def terminate(self, name: str, incarnation: int, grace_s: float) -> None:
        """Send the stop signal to the tree, and SIGKILL it after ``grace_s`` seconds."""
        self._draining.discard((name, incarnation))
        if tree := self.running.get((name, incarnation)):
            tree.terminate(grace_s)

    def kill(self, name: str, incarnation: int) -> None:
        """SIGKILL the tree, at once or as soon as it exists."""
        self._draining.discard((name, incarnation))
        self._killed.add((name, incarnation))
        if tree := self.running.get((name, incarnation)):
            tree.kill()

    def read_memory(self) -> None:
        """Read free GPU memory, and pass it on."""
        self._start_task(self._read_memory())

    async def find_last_incarnations(self, names: Sequence[str]) -> None:
        """Read from the logs on disk where the numbering of ``names`` goes on."""
        unknown = [name for name in names if name not in self._incarnations]

        def read() -> dict[str, int]:
            return {name: component_logs.last_incarnation(self._where.name, name) for name in unknown}

        none: dict[str, int] = {}
        if unknown:
            self._incarnations |= await self._file_threads.run("looking for earlier logs", read, none)

    def last_incarnation(self, name: str) -> int:
        """The highest incarnation of ``name`` that is known, 0 if there is none."""
        return self._incarnations.get(name, 0)

    def last_lines(self, name: str, incarnation: int) -> list[str]:
        """The last lines that an incarnation printed before it ended; empty if it has not, or a later one has."""
        number, lines = self._last_lines.get(name, (0, []))
        return lines if number == incarnation else []

    def inherit(self, names: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start ``names`` with ``environment`` from now on."""
        # In memory only: it holds secrets. Whoever starts the next supervisor sends another.
        self._inherited |= dict.fromkeys(names, environment)

    def follow(self, slots: Mapping[str, Slot], plan: Plan) -> None:
        """Bring probes, registrations and the state file to the state in ``slots``."""
        self._workdir, self._private_env = plan.workdir, frozenset(plan.private_env)
        self._probes.follow(slots)
        self.registrar.follow(slots, plan.served_names)
        self.running.save()

    async def close(self) -> None:
        """Release everything, once all components are down. The state file stays if a process could not be killed."""
        for task in self._tasks:
            task.cancel()
        self._probes.close()
        self.vram.close()
        await self.running.close()

    # ── one process's life ──────────────────────────────────────────────────────────────────────────────────────────

    async def _run_process(self, spec: ProcessSpec, incarnation: int) -> None:
        key = (spec.name, incarnation)
        try:
            tree = await self._start(spec, incarnation)
        except (StartError, PortTakenError) as error:
            why = Why.PORT if isinstance(error, PortTakenError) else Why.SPAWN
            permanent = isinstance(error, CannotExecute)
            await self._read_last_lines(spec, incarnation)
            self._post(spec.name, SpawnFailed(incarnation, error.message, permanent, why))
            return
        except Exception as error:
            log.exception("starting %s", spec.name)
            self._post(spec.name, SpawnFailed(incarnation, f"cannot start: {error}"))
            return
        oom = OomCount(tree.program.pid if tree.program else os.getpid())
        ended = asyncio.create_task(tree.ended())
        while not (await asyncio.wait({ended}, timeout=LOOK_EVERY_S))[0]:
            oom.look()
        code, left = ended.result()
        if left:
            log.error("%s %d: %d processes cannot be killed", spec.name, incarnation, left)
        self.running.discard(key)
        self._killed.discard(key)
        lacked = code != 0 and oom.rose()
        said, is_error = await self._read_last_lines(spec, incarnation)
        self._post(spec.name, Exited(incarnation, code, said, lacked, is_error))

    async def _start(self, spec: ProcessSpec, incarnation: int) -> ProcessTree:
        if taken := await asyncio.to_thread(wait_for_port, spec.host, spec.port):
            raise PortTakenError(taken)
        key = (spec.name, incarnation)
        identity = {
            variables.RUN: self._run,
            variables.DEPLOYMENT: self._where.name,
            variables.COMPONENT: spec.name,
            variables.INCARNATION: str(incarnation),
        }
        # Python buffers what it prints to a pipe: the reason of a crash would be lost, and progress would be late.
        inherited = child_environment(self._inherited.get(spec.name, os.environ), spec, self._private_env)
        env = {"PYTHONUNBUFFERED": "1", **inherited, **identity, **credentials(self._secret, spec)}
        if spec.engine != EngineName.COMMAND:
            # `python -m` would import a json.py or a tokenizers.py that lies beside the manifest.
            env.setdefault("PYTHONSAFEPATH", "1")
        self._caches[spec.name] = huggingface_cache.folder(env)
        env[variables.STATE_FILE] = str(self._where.state_file)
        life = f"{self._where.name}-{spec.name}-{incarnation}-{self._run[:8]}"
        target = component_logs.target(self._where, spec.name, incarnation, spec.log_max_bytes, spec.log_keep)
        with contextlib.ExitStack() as stack:
            output = await self._file_threads.run(f"opening the log of {spec.name}", target.__enter__, None)
            if output is None:
                raise StartError(
                    f"its log cannot be opened: the disk that holds {self._where.logs} does not respond"
                )
            stack.push(target)
            env[variables.CGROUP] = group = cgroups.make(self._cgroup, life)
            with contextlib.ExitStack() as on_failure:
                on_failure.callback(cgroups.remove, group)
                tree = start_under_shim(
                    spec.argv, env, self._folder(spec), output, self.running.shims, spec.stop_signal
                )
                on_failure.pop_all()
        self.running.add(key, tree)
        try:
            pid = await tree.started(spec.shown_argv[0])
        except StartError:
            self.running.discard(key)
            raise
        self.running.save()
        self._post(spec.name, Spawned(incarnation, pid))
        if key in self._killed:
            tree.kill()
        return tree

    def _downloaded(self, spec: ProcessSpec) -> int:
        """Bytes of its model in the hub's cache: whoever downloads may be outside of its process tree, as a container is. Blocks."""
        cache = self._caches.get(spec.name)
        return huggingface_cache.bytes_on_disk(spec.model.partition(":")[0], cache) if cache else 0

    def _folder(self, spec: ProcessSpec) -> str:
        """The working folder: its own, or the manifest's. Only a command may depend on that; the others start even if it is gone."""
        if spec.workdir:
            return spec.workdir
        folder = self._workdir or str(self._where.state)
        return (
            folder if spec.engine == EngineName.COMMAND or Path(folder).is_dir() else str(self._where.state)
        )

    async def _drain(self, spec: ProcessSpec, incarnation: int, grace_s: float) -> None:
        key = (spec.name, incarnation)
        await self.registrar.drain(spec.address, grace_s, lambda: key in self._draining)
        self._post(spec.name, Drained(incarnation))

    async def _read_last_lines(self, spec: ProcessSpec, incarnation: int) -> tuple[str, bool]:
        """Read the end of its log, for :meth:`last_lines`: the error that it tells or else its last line, and whether it is an error."""
        probes = (spec.ready_path, spec.live_path)

        def read() -> tuple[list[str], str, bool, bool]:
            rows = component_logs.last_rows(self._where.log(spec.name, incarnation))
            cause = find_cause(rows, probes)
            lines = [visible(row) for row in excerpt(rows, cause, _KEPT_LINES, probes)]
            said = cause.text if cause else last_line(rows, probes)
            return lines, said, cause is not None, component_logs.disk_is_full(self._where.logs)

        nothing: tuple[list[str], str, bool, bool] = ([], "", False, False)
        reading = self._file_threads.run(f"reading the log of {spec.name}", read, nothing)
        lines, said, is_error, full = await reading
        self._last_lines[spec.name] = incarnation, lines
        said = spec.hide(said)
        if full:
            # Its last lines may be lost, and this may be why it ended.
            said += f"{said and '; '}no space left on the disk that holds its logs ({self._where.logs})"
        return said, is_error

    async def _read_memory(self) -> None:
        self._memory_read(await self.vram.free())

    def _learn(self, spec: ProcessSpec, incarnation: int) -> None:
        if spec.learning_key and spec.gpus:
            self._start_task(self.vram.learn(spec, incarnation))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of the supervisor failed", exc_info=error)
