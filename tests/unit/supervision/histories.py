"""Random histories for one component: a small world that answers the machine's commands, late, badly or twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.core.machine import step
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import (
    Command,
    Commanded,
    Drain,
    Drained,
    Event,
    Exited,
    Gate,
    Kill,
    Phase,
    Probed,
    Progressed,
    Record,
    Spawn,
    Spawned,
    SpawnFailed,
    Terminate,
    Tick,
    Verb,
)

Step = Callable[[Record, Event, ProcessSpec, float, float, Policy], tuple[Record, tuple[Command, ...]]]
POLICY = Policy(
    first_delay_s=1,
    stable_s=10,
    max_failures=4,
    memory_wait_s=5,
    first_retry_s=15,
    later_retry_s=40,
    busy_limit_s=50,
)


def spec(name: str = "w", **changes: Any) -> ProcessSpec:
    values: dict[str, Any] = {
        "name": name,
        "component": Component.WORKER,
        "argv": ("serve", name),
        "env": {},
        "host": "127.0.0.1",
        "port": 1000,
        "address": "http://127.0.0.1:1000",
        "start_timeout_s": 8.0,
        "stop_grace_s": 4.0,
    }
    return ProcessSpec(**(values | changes))


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Process:
    terminated: bool = False
    killed: bool = False
    drained: bool | None = None
    silent: bool = False


@dataclass
class OneComponent:
    """``live`` are processes, ``making`` spawns that have not been answered yet."""

    seed: int
    step: Step
    record: Record = field(default_factory=Record)
    now: float = 0.0
    live: dict[int, Process] = field(default_factory=dict)
    making: dict[int, Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.spec = spec(
            component=self.chance.choice([Component.WORKER, Component.WORKER, Component.API]),
            restart_max=self.chance.choice([None, None, None, 0, 1, 2]),
            restart_delay_s=self.chance.choice([None, None, 3.0]),
        )
        self.deaf = self.chance.random() < 0.3
        self.old: list[Spawned | SpawnFailed | Exited | Probed | Progressed | Drained] = []

    def feed(self, event: Event) -> None:
        jitter, before = self.chance.random(), self.record
        self.record, commands = self.step(self.record, event, self.spec, self.now, jitter, POLICY)
        for command in commands:
            self.obey(command)
        if self.record.phase in (Phase.READY,) and self.record.incarnation not in self.live:
            raise Broken(f"seed {self.seed}: READY without a process")
        if before.last is not None and self.record.last is None:
            raise Broken(f"seed {self.seed}: forgot what happened last")
        if self.record.phase is Phase.FAILED and self.record.deadline is None:
            never = self.spec.restart_max == 0
            if not (never or (self.record.cause.permanent and not self.record.proven)):
                raise Broken(f"seed {self.seed}: FAILED for good: {self.record.cause}")

    def obey(self, command: Command) -> None:
        inc = command.incarnation
        match command:
            case Spawn():
                if self.live or self.making:
                    raise Broken(
                        f"seed {self.seed}: {inc} is spawned while {[*self.live, *self.making]} live"
                    )
                self.making[inc] = Process()
            case Drain() if inc in self.live:
                self.live[inc].drained = False
            case Terminate() if inc in self.live:
                self.live[inc].terminated = True
            case Kill():
                for processes in (self.live, self.making):
                    if inc in processes:
                        processes[inc].killed = True

    def answers(self, calm: bool) -> list[Event]:
        """What the world does in one moment; ``calm``: nothing breaks any more."""
        roll = self.chance.random
        events: list[Event] = []
        for inc, process in list(self.making.items()):
            if roll() < 0.5:
                del self.making[inc]
                if roll() < 0.15:
                    events.append(SpawnFailed(inc, "no such program", permanent=roll() < 0.2))
                else:
                    self.live[inc] = process
                    events.append(Spawned(inc, 1000 + inc))
        for inc, process in list(self.live.items()):
            obeys = process.terminated and not self.deaf and roll() < 0.5
            if process.killed or obeys or (not calm and roll() < 0.03):
                del self.live[inc]
                code = self.chance.choice([0, 1, 2, -9, None])
                events.append(Exited(inc, code, "last words", out_of_memory=roll() < 0.1))
                continue
            if process.drained is False and roll() < 0.4:
                process.drained = True
                events.append(Drained(inc))
            if roll() < 0.3:
                events.append(Progressed(inc, "shard"))
            if roll() < 0.2:
                process.silent = not process.silent
            if process.silent:
                cpu = self.chance.choice([None, 0.0, 1.0, 1.0])
                more = self.chance.choice([0, 0, 2])
                events.append(
                    Probed(inc, False, "no answer within 2 s", unanswered=True, cpu=cpu, answered=more)
                )
            else:
                events.append(Probed(inc, roll() < 0.8, "status 500"))
        if not calm:
            # Late and repeated messages of earlier lives, as a slow thread would post them.
            stale = [e for e in self.old if e.incarnation < self.record.incarnation]
            if stale and roll() < 0.3:
                events.append(self.chance.choice(stale))
            self.old = [*self.old, *(e for e in events if not isinstance(e, Commanded | Tick))][-20:]
        return events

    def run(self, moments: int = 150) -> None:
        """Live, then be told to stop; nothing may be alive afterwards."""
        for _ in range(moments):
            self.moment(calm=False)
            if self.chance.random() < 0.06:
                self.feed(Commanded(self.chance.choice(list(Verb)), drain=self.chance.random() < 0.7))
        self.feed(Commanded(Verb.STOP))
        for _ in range(80):
            self.moment(calm=True)
        if self.live or self.making or self.record.phase is not Phase.STOPPED:
            raise Broken(
                f"seed {self.seed}: after down {self.record.phase}, alive: {[*self.live, *self.making]}"
            )

    def moment(self, calm: bool) -> None:
        self.now += self.chance.choice([0.3, 1, 3])
        for event in self.answers(calm):
            self.feed(event)
        is_open = self.chance.random() < 0.9
        self.feed(Tick(Gate(is_open, "" if is_open else "memory", timed=self.chance.random() < 0.5)))


def play(
    *moments: tuple[float, Event], spec: ProcessSpec | None = None, record: Record | None = None
) -> tuple[Record, list[Command]]:
    """Feed events at their times; the last record, and every command."""
    record = record or Record()
    commands: list[Command] = []
    for now, event in moments:
        record, new = step(record, event, spec or SPEC, now, 0.0, POLICY)
        commands += new
    return record, commands


SPEC = spec()


START = ((0.0, Tick()), (0.1, Spawned(1, 77)))


READY = (*START, (1.0, Probed(1, True)))
