"""The loop's commands, done: shims, probes, registrations, GPU memory, the state file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmlaunch import paths
from llmlaunch.common import files, process_identity, variables
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.control import state_file
from llmlaunch.errors import PortTakenError, StartError
from llmlaunch.manifest.types import EngineName
from llmlaunch.planning.environment import child_environment
from llmlaunch.planning.types import Plan, ProcessSpec
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import (
    Drained,
    Exited,
    Phase,
    Probed,
    Progressed,
    Spawned,
    SpawnFailed,
    Why,
)
from llmlaunch.supervision.credentials import credentials, key_of
from llmlaunch.supervision.file_threads import FileThreads, LatestValueThread
from llmlaunch.supervision.gpu import gpu_memory, measured_vram
from llmlaunch.supervision.health.answer_counts import AnswerCounts
from llmlaunch.supervision.health.probe import ProcessProbe
from llmlaunch.supervision.logs import component_logs
from llmlaunch.supervision.loop import Post
from llmlaunch.supervision.processes import cgroups, procs
from llmlaunch.supervision.processes.oom import LOOK_EVERY_S, OomCount
from llmlaunch.supervision.processes.spawn import (
    CannotExecute,
    ProcessTree,
    Shims,
    reap_children,
    start_under_shim,
    wait_for_port,
)
from llmlaunch.supervision.registrar import Registrar

_LEARN_AFTER_S = (3.0, 60.0)
"""When a replica's VRAM is measured: once it is ready, and again when it has served."""
_YOUNG_S = 60.0
_LOOK_YOUNG_S, _LOOK_S = 1.0, 5.0
"""How often the processes below a program are noted: a start makes many, later hardly one."""
_STRAYS_S = 5.0
_LAST_LINES = 20
_Key = tuple[str, int]
_Probing = tuple[str, str, float | None]
log = logging.getLogger(__name__)


class ProcessEffects:
    """Real processes of one deployment. ``run`` identifies them after a crash; what lets them into the controller is
    derived from ``secret``. ``left`` are processes of an earlier supervisor that could not be ended.
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
        self._policy = policy
        self._run = run
        self._secret = secret
        self._me = process_identity.identify(os.getpid())
        self._boot = process_identity.boot_id()
        self._cgroup = cgroups.own()
        self._workdir = ""
        self._private_env: frozenset[str] = frozenset()
        self._inherited: dict[str, Mapping[str, str]] = {}
        self._trees: dict[_Key, ProcessTree] = {}
        self._shims = Shims()
        self._families: dict[_Key, tuple[ProcessId, ...]] = {}
        self._left = set(left)
        self._killed: set[_Key] = set()
        self._draining: set[_Key] = set()
        self._watches: dict[_Key, tuple[_Probing, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._written: state_file.SupervisorState | None = None
        self._writer = LatestValueThread(self._write_state)
        self._beside = FileThreads()
        self._numbers: dict[str, int] = {}
        self._words: dict[str, tuple[int, list[str]]] = {}
        self._answered = AnswerCounts()
        self.memory = gpu_memory.GpuMemory()
        self.registrar = Registrar(secret)
        self._post: Post = lambda name, event: None
        self._memory_read: Callable[[Mapping[str, int] | None], None] = lambda free: None

    def attach(self, post: Post, memory: Callable[[Mapping[str, int] | None], None]) -> None:
        self._post, self._memory_read = post, memory

    # ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────

    def spawn(self, spec: ProcessSpec, incarnation: int) -> None:
        self._numbers[spec.name] = incarnation
        self._go(self._live(spec, incarnation))

    def drain(self, spec: ProcessSpec, incarnation: int, grace_s: float) -> None:
        self._draining.add((spec.name, incarnation))
        self._go(self._drain(spec, incarnation, grace_s))

    def terminate(self, name: str, incarnation: int, grace_s: float) -> None:
        self._draining.discard((name, incarnation))
        if tree := self._trees.get((name, incarnation)):
            tree.terminate(grace_s)

    def kill(self, name: str, incarnation: int) -> None:
        self._draining.discard((name, incarnation))
        self._killed.add((name, incarnation))
        if tree := self._trees.get((name, incarnation)):
            tree.kill()

    def read_memory(self) -> None:
        self._go(self._read_memory())

    async def look_up(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in self._numbers]

        def read() -> dict[str, int]:
            return {name: component_logs.last_incarnation(self._where.name, name) for name in unknown}

        none: dict[str, int] = {}
        if unknown:
            self._numbers |= await self._beside.run("looking for earlier logs", read, none)

    def last_incarnation(self, name: str) -> int:
        return self._numbers.get(name, 0)

    def last_words(self, name: str, incarnation: int) -> list[str]:
        """The last lines of a process that has ended, as they were read then."""
        number, lines = self._words.get(name, (0, []))
        return lines if number == incarnation else []

    def inherit(self, names: Sequence[str], environment: Mapping[str, str]) -> None:
        # In memory alone: it holds secrets. Who restarts a supervisor brings its own.
        self._inherited |= dict.fromkeys(names, environment)

    def follow(self, slots: Mapping[str, Slot], plan: Plan) -> None:
        self._workdir, self._private_env = plan.workdir, frozenset(plan.private_env)
        self._answered.follow(slots)
        self._follow_probes(slots)
        self.registrar.follow(slots, plan.served_names)
        self._keep_state()

    # ── for the daemon ──────────────────────────────────────────────────────────────────────────────────────────────

    def reap(self) -> None:
        reap_children(list(self._trees.values()), self._shims)

    async def vram_used(self, slots: Mapping[str, Slot]) -> dict[str, int | None]:
        """Bytes that NVML sees in use, by component; only those with GPUs."""
        trees = {n: self._trees.get((n, s.record.incarnation)) for n, s in slots.items() if s.spec.gpus}
        live = {name: tree for name, tree in trees.items() if tree}
        if not live:
            return {}
        pids = await asyncio.to_thread(lambda: {name: tree.pids() for name, tree in live.items()})
        return gpu_memory.used_by_tree(await self.memory.sample(), pids)

    async def remember_families(self) -> None:
        """Keep in the state file what is below each program, until cancelled: a later supervisor may have to end it."""
        while True:
            now = asyncio.get_running_loop().time()
            young = any(now - tree.began < _YOUNG_S for tree in self._trees.values())
            await asyncio.sleep(_LOOK_YOUNG_S if young or not self._trees else _LOOK_S)
            shims = {key: tree.shim_pid for key, tree in self._trees.items()}
            families = await asyncio.to_thread(procs.families, list(shims.values()))
            for key, pid in shims.items():
                if key in self._trees:
                    self._families[key] = tuple(sorted(families[pid], key=lambda process: process.pid))
            self._keep_state()

    async def close(self) -> None:
        """After everything is down. The state file stays as long as something of it lives nevertheless."""
        for task in [*self._tasks, *(watch for _, watch in self._watches.values())]:
            task.cancel()
        self.memory.close()
        await asyncio.to_thread(procs.kill_until_gone, self._shims.strays, _STRAYS_S)
        self._keep_state()
        written = await asyncio.to_thread(self._writer.finish)
        if written and not self._left:
            files.remove(self._where.state_file)
            files.remove(self._where.routes_file)

    # ── one process's life ──────────────────────────────────────────────────────────────────────────────────────────

    async def _live(self, spec: ProcessSpec, incarnation: int) -> None:
        key = (spec.name, incarnation)
        try:
            tree = await self._start(spec, incarnation)
        except (StartError, PortTakenError) as error:
            why = Why.PORT if isinstance(error, PortTakenError) else Why.SPAWN
            permanent = isinstance(error, CannotExecute)
            await self._listen_to_last_words(spec.name, incarnation)
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
        self._left.update(self._families.pop(key, ()))
        self._trees.pop(key, None)
        self._killed.discard(key)
        self._keep_state()
        lacked = code != 0 and oom.rose()
        last_line = spec.hide(await self._listen_to_last_words(spec.name, incarnation))
        self._post(spec.name, Exited(incarnation, code, last_line, lacked))

    async def _start(self, spec: ProcessSpec, incarnation: int) -> ProcessTree:
        if taken := await asyncio.to_thread(wait_for_port, spec.host, spec.port):
            raise PortTakenError(taken)
        key = (spec.name, incarnation)
        marks = {
            variables.RUN: self._run,
            variables.DEPLOYMENT: self._where.name,
            variables.COMPONENT: spec.name,
            variables.INCARNATION: str(incarnation),
        }
        # Python buffers what it prints to a file: the reason of a crash would be lost, and progress come late.
        inherited = child_environment(self._inherited.get(spec.name, os.environ), spec, self._private_env)
        env = {"PYTHONUNBUFFERED": "1", **inherited, **marks, **credentials(self._secret, spec)}
        if spec.engine != EngineName.COMMAND:
            # `python -m` would import a json.py or a tokenizers.py that lies beside the manifest.
            env.setdefault("PYTHONSAFEPATH", "1")
        env[variables.STATE_FILE] = str(self._where.state_file)
        life = f"{self._where.name}-{spec.name}-{incarnation}-{self._run[:8]}"
        target = component_logs.target(self._where, spec.name, incarnation, spec.log_max_bytes, spec.log_keep)
        with contextlib.ExitStack() as stack:
            output = await self._beside.run(f"opening the log of {spec.name}", target.__enter__, None)
            if output is None:
                raise StartError(
                    f"its log cannot be opened: the disk that holds {self._where.logs} does not respond"
                )
            stack.push(target)
            env[variables.CGROUP] = group = cgroups.make(self._cgroup, life)
            with contextlib.ExitStack() as on_failure:
                on_failure.callback(cgroups.remove, group)
                tree = start_under_shim(spec.argv, env, self._folder(spec), output, self._shims)
                on_failure.pop_all()
        self._trees[key] = tree
        self._keep_state()
        try:
            pid = await tree.started(spec.shown_argv[0])
        except StartError:
            self._trees.pop(key, None)
            raise
        self._keep_state()
        self._post(spec.name, Spawned(incarnation, pid))
        if key in self._killed:
            tree.kill()
        return tree

    def _folder(self, spec: ProcessSpec) -> str:
        """Where it runs: the manifest's folder. Only a command may need that one; the others serve on when it is gone."""
        folder = self._workdir or str(self._where.state)
        return (
            folder if spec.engine == EngineName.COMMAND or Path(folder).is_dir() else str(self._where.state)
        )

    async def _drain(self, spec: ProcessSpec, incarnation: int, grace_s: float) -> None:
        key = (spec.name, incarnation)
        await self.registrar.drain(spec.address, grace_s, lambda: key in self._draining)
        self._post(spec.name, Drained(incarnation))

    async def _listen_to_last_words(self, name: str, incarnation: int) -> str:
        """Read the end of its log, for :meth:`last_words`; the last line."""

        def read() -> tuple[list[str], bool]:
            return component_logs.tail(
                self._where.log(name, incarnation), _LAST_LINES
            ), component_logs.disk_is_full(self._where.logs)

        nothing: tuple[list[str], bool] = ([], False)
        lines, full = await self._beside.run(f"reading the log of {name}", read, nothing)
        self._words[name] = incarnation, lines
        said = next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
        if full:
            # What it had to say may be lost with it, and it may have died of this.
            said += f"{said and '; '}no space left on the disk that holds its logs ({self._where.logs})"
        return said

    # ── what follows the state ──────────────────────────────────────────────────────────────────────────────────────

    def _follow_probes(self, slots: Mapping[str, Slot]) -> None:
        wanted = {
            (name, slot.record.incarnation): slot
            for name, slot in slots.items()
            if slot.record.pid is not None and slot.record.phase in (Phase.STARTING, Phase.READY)
        }
        for key, (how, task) in list(self._watches.items()):
            # A plan may change how a process is probed, and leave it running.
            if key not in wanted or how != _probing(wanted[key].spec):
                task.cancel()
                del self._watches[key]
        for key, slot in wanted.items():
            if key not in self._watches:
                self._watches[key] = _probing(slot.spec), asyncio.create_task(self._watch(slot))

    async def _watch(self, slot: Slot) -> None:
        name, incarnation = slot.spec.name, slot.record.incarnation
        learned = False

        def emit(event: Probed | Progressed) -> None:
            nonlocal learned
            if isinstance(event, Probed) and event.ok and not learned:
                learned = True
                if slot.spec.learning_key and slot.spec.gpus:
                    self._go(self._learn(slot.spec, incarnation))
            self._post(name, event)

        log_file = self._where.log(name, incarnation)
        ready = slot.record.phase is Phase.READY

        def cpu_seconds() -> float:
            tree = self._trees.get((name, incarnation))
            return tree.cpu_seconds() if tree else 0.0

        async def answered() -> int | None:
            return await self._answered.by(slot.spec)

        key = key_of(self._secret, slot.spec)
        watch = ProcessProbe(slot.spec, incarnation, log_file, self._policy, emit, cpu_seconds, answered, key)
        await watch.run(ready)

    async def _read_memory(self) -> None:
        inventory = await self.memory.sample(fresh=True)
        self._memory_read(gpu_memory.free_bytes(inventory) if inventory.gpus else None)

    async def _learn(self, spec: ProcessSpec, incarnation: int) -> None:
        most, waited = 0, 0.0
        for at in _LEARN_AFTER_S:
            await asyncio.sleep(at - waited)
            waited = at
            tree = self._trees.get((spec.name, incarnation))
            if tree is None:
                return
            pids = await asyncio.to_thread(tree.pids)
            used = gpu_memory.used_bytes(await self.memory.sample(fresh=True), pids)
            if used and used > most:
                most = used
                await asyncio.to_thread(measured_vram.record_measurement, spec.learning_key, used)

    def _keep_state(self) -> None:
        if self._me is None:
            return
        kept = tuple(
            state_file.SupervisedProcess(
                n, i, tree.shim, tree.program, self._families.get((n, i), ()), tree.cgroup
            )
            for (n, i), tree in sorted(self._trees.items())
        )
        self._left = {process for process in self._left if process.alive}
        left = tuple(sorted(self._left, key=lambda process: process.pid))
        state = state_file.SupervisorState(self._run, self._me, kept, self._boot, left)
        if state != self._written:
            self._written = state
            self._writer.put(state)

    def _write_state(self, state: state_file.SupervisorState) -> None:
        try:
            state_file.write_state(self._where, state)
        except OSError as error:
            log.error("cannot write %s: %s", self._where.state_file, error)

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of the supervisor failed", exc_info=error)


def _probing(spec: ProcessSpec) -> _Probing:
    return spec.ready_path, spec.live_path, spec.probe_timeout_s
