"""The single writer: takes events one by one, passes them to the core, and hands its commands to the effects.

Nobody else changes the slots. Effects, probes, users and signals enqueue; a method with a result (``apply``, ``command``)
enqueues a request and awaits the writer's answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from llmlaunch.control.types import ApplyResult
from llmlaunch.errors import ControlError
from llmlaunch.planning.types import Plan, ProcessSpec
from llmlaunch.supervision.core.machine import step
from llmlaunch.supervision.core.reconcile import (
    Slot,
    all_down,
    gate,
    needs_memory_reading,
    next_to_stop,
    reconcile,
    same_process,
    spec_kept,
)
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import (
    DOWN_PHASES,
    LIVE_PHASES,
    Command,
    Commanded,
    Drain,
    Event,
    Gate,
    Kill,
    Phase,
    Record,
    Spawn,
    Stage,
    Terminate,
    Tick,
    Verb,
)

_READING_AGE_S = 1.0
_READING_EVERY_S = 0.25
_MOST_S = 3600.0
_SUSPENDED_S = 2.0
"""If the loop wakes up so late, its process was suspended (SIGSTOP), or the machine is overloaded."""
_AFTER_A_BUG_S = 0.1
"""Pause after an exception, so that one that recurs does not make a busy loop."""
_T = TypeVar("_T")
log = logging.getLogger(__name__)
Post = Callable[[str, Event], None]


class Effects(Protocol):
    """What the loop can do. Methods do not wait: results are posted as events."""

    def attach(self, post: Post, memory: Callable[[Mapping[str, int] | None], None]) -> None:
        """Called once, first: where to post events, and free memory."""

    def spawn(self, spec: ProcessSpec, incarnation: int) -> None:
        """Answered by Spawned and Exited, or SpawnFailed."""

    def drain(self, spec: ProcessSpec, incarnation: int, grace_s: float) -> None:
        """Answered by Drained, after ``grace_s`` seconds at the latest."""

    def terminate(self, name: str, incarnation: int, grace_s: float) -> None:
        """Answered by Exited; the tree is killed after ``grace_s`` seconds."""

    def kill(self, name: str, incarnation: int) -> None:
        """Answered by Exited."""

    def read_memory(self) -> None:
        """Answered through ``memory``: free bytes by GPU UUID, None if unknown."""

    async def find_last_incarnations(self, names: Sequence[str]) -> None:
        """Look up what :meth:`last_incarnation` returns for ``names``. The only method that waits: for a disk."""

    def last_incarnation(self, name: str) -> int:
        """The highest incarnation of ``name`` so far."""
        ...

    def inherit(self, names: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start processes of ``names`` with ``environment``, plus that of their specs, from now on."""

    def follow(self, slots: Mapping[str, Slot], plan: Plan) -> None:
        """Called after every change, with the whole state."""


@dataclass(frozen=True, slots=True)
class _Request:
    action: Callable[[], object]
    answer: asyncio.Future[object]


class Supervisor:
    """Holds the components of one deployment. Starts empty; :meth:`apply` gives it a plan."""

    def __init__(
        self,
        deployment: str,
        effects: Effects,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.plan = Plan(deployment, ())
        self.slots: dict[str, Slot] = {}
        self.stopping = False
        self.on_change: Callable[[str, Slot], None] = lambda name, slot: None
        """Called by the writer when a component's record or spec changed."""
        self._effects = effects
        self._policy = policy
        self._clock = clock
        self._jitter = jitter
        self._force = False
        self._environment: Mapping[str, str] | None = None
        self._queue: asyncio.Queue[tuple[str, Event] | _Request | None] = asyncio.Queue()
        self._free: Mapping[str, int] | None = None
        self._labels: Mapping[str, str] = {}
        self._read_at = self._asked_at = self._gpus_changed_at = float("-inf")
        effects.attach(self.post, self._memory_read)

    # ── for everybody: enqueue ──────────────────────────────────────────────────────────────────────────────────────

    def post(self, name: str, event: Event) -> None:
        """Enqueue ``event`` of the component ``name``."""
        self._queue.put_nowait((name, event))

    async def apply(
        self, plan: Plan, restart_down: bool = True, environment: Mapping[str, str] | None = None
    ) -> ApplyResult:
        """Bring the deployment to ``plan``; returns when the changes have begun. Raises ControlError while it stops.

        ``environment`` is that of the client. What starts because of this plan inherits it; None: as before.
        """
        await self._effects.find_last_incarnations([spec.name for spec in plan.processes])
        return await self._ask(lambda: self.apply_now(plan, restart_down, environment))

    async def command(self, verb: Verb, names: tuple[str, ...]) -> tuple[str, ...]:
        """Command components by name. Raises ControlError, and does nothing, if one is unknown (code ``not_found``)."""
        return await self._ask(lambda: self.command_now(verb, names))

    def shutdown(self, force: bool = False) -> None:
        """Take everything down; :meth:`run` returns then. A second call with ``force`` kills what still stops."""
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.exception())
        self._queue.put_nowait(_Request(lambda: self.shutdown_now(force), future))

    async def _ask(self, action: Callable[[], _T]) -> _T:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Request(action, future))
        return await future  # type: ignore[return-value]

    def _memory_read(self, free: Mapping[str, int] | None) -> None:
        self._free, self._read_at = free, self._asked_at
        self._queue.put_nowait(None)

    # ── the writer ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Run until a shutdown is complete. An exception is logged, and the loop goes on."""
        while not (self.stopping and all_down(self.slots)):
            began, pause = self._clock(), self._until_next_tick()
            try:
                item = await asyncio.wait_for(self._queue.get(), pause)
            except TimeoutError:
                item = None
            self.extend_deadlines(self._clock() - began - pause)
            try:
                self.handle(item)
            except Exception:
                log.exception("cannot handle %r", item)
                await asyncio.sleep(_AFTER_A_BUG_S)

    def extend_deadlines(self, late_s: float) -> None:
        """Extend every deadline by ``late_s`` seconds, for which this process was suspended.

        It could receive no event in that time, and its components went on without it.
        """
        if late_s < _SUSPENDED_S:
            return
        log.warning("was suspended for %.0f s; all deadlines are extended by as much", late_s)
        for name, slot in self.slots.items():
            record = slot.record
            if record.deadline is not None:
                later = replace(record, deadline=record.deadline + late_s, stop_by=record.stop_by + late_s)
                self.slots[name] = replace(slot, record=later)

    def handle(self, item: tuple[str, Event] | _Request | None = None) -> None:
        """One turn of the writer: ``item``, then everything that time or ``item`` has made possible."""
        self._take(item)
        self._tick_all()
        self._continue_shutdown()
        self._effects.follow(self.slots, self.plan)

    def _take(self, item: tuple[str, Event] | _Request | None) -> None:
        if isinstance(item, _Request):
            try:
                result = item.action()
            except Exception as error:
                if not isinstance(error, ControlError):
                    log.exception("a request failed")
                if not item.answer.done():
                    item.answer.set_exception(error)
            else:
                if not item.answer.done():
                    item.answer.set_result(result)
        elif item is not None:
            self._step(*item)

    def _step(self, name: str, event: Event) -> None:
        slot = self.slots.get(name)
        if slot is None:
            return
        record, commands = step(slot.record, event, slot.spec, self._clock(), self._jitter(), self._policy)
        if record != slot.record:
            self._log(name, slot.record, record)
            if slot.spec.gpus and record.phase is not slot.record.phase:
                self._gpus_changed_at = self._clock()
            self._put(name, replace(slot, record=record))
        for command in commands:
            self._do(name, slot.spec, command)

    def _put(self, name: str, slot: Slot) -> None:
        if slot.record.phase not in LIVE_PHASES and slot.successor is not None:
            slot = replace(slot, spec=slot.successor, successor=None)
        if slot.leaving and slot.record.phase in DOWN_PHASES:
            self.slots.pop(name, None)
        else:
            self.slots[name] = slot
        try:
            self.on_change(name, slot)
        except Exception:
            # A failed report must not keep a command from being carried out.
            log.exception("cannot report a change of %s", name)

    def _do(self, name: str, spec: ProcessSpec, command: Command) -> None:
        match command:
            case Spawn(incarnation):
                self._effects.spawn(spec, incarnation)
            case Drain(incarnation, grace_s):
                self._effects.drain(spec, incarnation, grace_s)
            case Terminate(incarnation, grace_s):
                self._effects.terminate(name, incarnation, grace_s)
            case Kill(incarnation):
                self._effects.kill(name, incarnation)

    def _tick_all(self) -> None:
        # In plan order, one after the other: a start that this pass allows closes the gate for the next on its GPU.
        for name in list(self.slots):
            if self.slots[name].record.phase is not Phase.PENDING:
                self._step(name, Tick())
            if self.slots[name].record.phase is Phase.PENDING:
                self._step(name, Tick(self._gate(name)))

    def _gate(self, name: str) -> Gate:
        if self.stopping:
            return Gate(False, "the deployment is shutting down")
        spec = self.slots[name].spec
        verdict = gate(name, self.slots, None, self._labels)
        if not verdict.is_open or not needs_memory_reading(spec):
            return verdict
        now = self._clock()
        # Only a reading that began after the last change on any GPU says what is free for this one.
        if self._read_at < self._gpus_changed_at or now - self._read_at > _READING_AGE_S:
            if self._asked_at <= self._read_at or self._read_at < self._asked_at < now - 10 * _READING_AGE_S:
                self._asked_at = now
                self._effects.read_memory()
            waiting = self.slots[name].record
            return Gate(False, waiting.waiting or "reading GPU memory", timed=waiting.deadline is not None)
        return gate(name, self.slots, self._free, self._labels)

    def _until_next_tick(self) -> float:
        now = self._clock()
        pause = _MOST_S
        for slot in self.slots.values():
            if slot.record.deadline is not None:
                pause = min(pause, slot.record.deadline - now)
            if slot.record.phase is Phase.PENDING and needs_memory_reading(slot.spec):
                pause = min(pause, _READING_EVERY_S)
        return max(pause, 0.001)

    # ── what clients ask for; called by the writer ──────────────────────────────────────────────────────────────────

    def apply_now(
        self, plan: Plan, restart_down: bool, environment: Mapping[str, str] | None = None
    ) -> ApplyResult:
        """As :meth:`apply`, for the writer."""
        if self.stopping:
            raise ControlError(f"{plan.deployment!r} is shutting down", hint="try again when it is gone")
        changes = reconcile(plan.processes, self.slots, restart_down)
        before, self.plan = self.slots, plan
        self._labels = {gpu.uuid: gpu.label for gpu in plan.gpus}
        # Plan order, and what leaves at the end.
        wanted = {spec.name: spec for spec in plan.processes}
        self.slots = {n: before.get(n) or self._fresh(spec) for n, spec in wanted.items()}
        self.slots |= {n: slot for n, slot in before.items() if n not in wanted}
        for name, spec in wanted.items():
            slot = self.slots[name]
            if slot.record.phase not in LIVE_PHASES:
                slot = replace(slot, spec=spec, successor=None, leaving=False)
            elif same_process(slot.spec, spec):
                slot = replace(slot, spec=spec_kept(slot.spec, spec), successor=None, leaving=False)
            else:
                slot = replace(slot, successor=spec, leaving=False)
            self._put(name, slot)
        if environment is not None:
            self._environment = environment
            self._inherit([n for n in wanted if n in changes.restart or not self._lives(n)])
        for name in changes.start:
            self._step(name, Commanded(Verb.START))
        for name in changes.restart:
            self._step(name, Commanded(Verb.RESTART, reason="restarted because its plan changed"))
        for name in changes.remove:
            self.slots[name] = replace(self.slots[name], leaving=True)
            self._step(name, Commanded(Verb.STOP, reason="removed from the manifest"))
            if name in self.slots:
                self._put(name, self.slots[name])
        return ApplyResult(changes.start, changes.restart, changes.remove, changes.keep)

    def _lives(self, name: str) -> bool:
        return self.slots[name].record.phase in LIVE_PHASES

    def _inherit(self, names: Sequence[str]) -> None:
        """Have ``names`` started from here on with the environment of the last `up`.

        What runs unchanged keeps its own, for its next start, too: an `up` from another shell that changes nothing must not change it.
        """
        if self._environment is not None:
            self._effects.inherit(names, self._environment)

    def _fresh(self, spec: ProcessSpec) -> Slot:
        record = Record(incarnation=self._effects.last_incarnation(spec.name), since=self._clock())
        return Slot(record, spec)

    def command_now(self, verb: Verb, names: tuple[str, ...]) -> tuple[str, ...]:
        """As :meth:`command`, for the writer."""
        if self.stopping:
            raise ControlError("the deployment is shutting down", hint="try again when it is gone")
        for name in names:
            if name not in self.slots:
                known = ", ".join(self.slots) or "none"
                raise ControlError(
                    f"no such component: {name!r}", hint=f"there are: {known}", code="not_found"
                )
        if verb in (Verb.START, Verb.RESTART):
            self._inherit(names)
        for name in names:
            self._step(name, Commanded(verb))
        return names

    def shutdown_now(self, force: bool) -> None:
        """As :meth:`shutdown`, for the writer."""
        log.info("shutting everything down%s", ", by force" if force else "")
        self.stopping = True
        self._force = self._force or force

    def _continue_shutdown(self) -> None:
        if not self.stopping:
            return
        names = tuple(self.slots) if self._force else next_to_stop(self.slots)
        for name in names:
            record = self.slots[name].record
            if self._force and record.stage is not Stage.KILL:
                self._step(name, Commanded(Verb.KILL, reason="the deployment is shutting down"))
            elif record.wanted or record.phase in DOWN_PHASES - {Phase.STOPPED}:
                self._step(name, Commanded(Verb.STOP, drain=False, reason="the deployment is shutting down"))

    def _log(self, name: str, before: Record, after: Record) -> None:
        if before.phase is not after.phase:
            detail = after.cause.text or after.waiting
            log.info(
                "%s %d: %s → %s%s",
                name,
                after.incarnation,
                before.phase,
                after.phase,
                detail and f" ({detail})",
            )
