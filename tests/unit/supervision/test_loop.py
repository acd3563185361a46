"""The whole supervisor without a process: random plans, commands and misfortunes over several components and two GPUs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from llmlaunch.errors import ControlError
from llmlaunch.planning.types import Component, Plan, ProcessSpec
from llmlaunch.supervision import loop as loop_module
from llmlaunch.supervision.core.reconcile import Slot, all_down
from llmlaunch.supervision.core.types import (
    Drained,
    Event,
    Exited,
    Gate,
    Phase,
    Probed,
    Spawned,
    SpawnFailed,
    Verb,
)
from llmlaunch.supervision.loop import Post, Supervisor
from tests.unit.supervision.histories import POLICY, Broken, spec

HISTORIES = 150
GPU_BYTES = 100


@dataclass
class Process:
    spec: ProcessSpec
    pid: int = 0
    ready: bool = False
    terminated: bool = False
    killed: bool = False
    draining: bool = False


@dataclass
class World:
    """Effects that only note what was asked, and a machine that checks what may never happen."""

    seed: int
    processes: dict[tuple[str, int], Process] = field(default_factory=dict)
    ghosts: dict[str, int] = field(default_factory=lambda: {"GPU-0": 0, "GPU-1": 0})
    """Memory that the driver has not given back yet."""
    asked: int = 0
    inherited: dict[str, Mapping[str, str]] = field(default_factory=dict)
    post: Post = lambda name, event: None
    memory: Callable[[Mapping[str, int] | None], None] = lambda free: None
    supervisor: Supervisor | None = None

    def attach(self, post: Post, memory: Callable[[Mapping[str, int] | None], None]) -> None:
        self.post, self.memory = post, memory

    def fail(self, words: str) -> None:
        raise Broken(f"seed {self.seed}: {words}")

    def spawn(self, spec: ProcessSpec, incarnation: int) -> None:
        slots = self.supervisor.slots if self.supervisor else {}
        for (name, _), process in self.processes.items():
            other = process.spec
            if name == spec.name:
                self.fail(f"two lives of {name}")
            if other.port == spec.port:
                self.fail(f"{spec.name} starts on the port of {name}")
            if not process.ready and set(other.gpus) & set(spec.gpus):
                self.fail(f"{spec.name} and {name} load on one GPU")
        for need in spec.needs:
            if need in slots and slots[need].record.phase is not Phase.READY:
                self.fail(f"{spec.name} starts without {need}")
        for uuid, bytes_needed in zip(spec.gpus, spec.vram_per_gpu, strict=True):
            if self.free()[uuid] < bytes_needed:
                self.fail(f"{spec.name} does not fit on {uuid}")
        self.processes[spec.name, incarnation] = Process(spec)

    def drain(self, spec: ProcessSpec, incarnation: int, grace_s: float) -> None:
        if process := self.processes.get((spec.name, incarnation)):
            process.draining = True

    def terminate(self, name: str, incarnation: int, grace_s: float) -> None:
        if process := self.processes.get((name, incarnation)):
            process.terminated = True

    def kill(self, name: str, incarnation: int) -> None:
        if process := self.processes.get((name, incarnation)):
            process.killed = True

    def read_memory(self) -> None:
        self.asked += 1

    async def find_last_incarnations(self, names: Sequence[str]) -> None:
        pass

    def last_incarnation(self, name: str) -> int:
        return 0

    def inherit(self, names: Sequence[str], environment: Mapping[str, str]) -> None:
        self.inherited |= dict.fromkeys(names, environment)

    def follow(self, slots: Mapping[str, Slot], plan: Plan) -> None:
        pass

    def free(self) -> dict[str, int]:
        free = {uuid: GPU_BYTES - ghost for uuid, ghost in self.ghosts.items()}
        for process in self.processes.values():
            for uuid, used in zip(process.spec.gpus, process.spec.vram_per_gpu, strict=True):
                free[uuid] -= used if process.pid else 0
        return free


def specs(chance: random.Random) -> tuple[ProcessSpec, ...]:
    """A plan that a planner could have made: a controller, workers that fit, a gateway."""
    version = ("serve", str(chance.randrange(2)))
    found = [spec("controller", component=Component.CONTROLLER, port=1, argv=version)]
    free = {"GPU-0": GPU_BYTES, "GPU-1": GPU_BYTES}
    for i in range(chance.randrange(1, 5)):
        size = chance.choice([0, 30, 60])
        uuid = chance.choice(list(free))
        gpus = (uuid,) if size and free[uuid] >= size else ()
        if gpus:
            free[uuid] -= size
        found.append(
            spec(f"w{i}", port=10 + chance.randrange(3) * 10 + i, gpus=gpus, vram_per_gpu=(size,) * len(gpus),
                 needs=("controller",) if chance.random() < 0.5 else (), argv=("serve", str(chance.randrange(2))))
        )  # fmt: skip
    found.append(spec("api", component=Component.API, port=2, needs=("controller",)))
    return tuple(found)


class History:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.world = World(seed)
        self.items: list[tuple[str, object]] = []
        self.supervisor = Supervisor(
            "lab", self.world, POLICY, clock=lambda: self.now, jitter=self.chance.random
        )
        self.world.supervisor = self.supervisor

    def run(self, moments: int = 80) -> None:
        chance, supervisor = self.chance, self.supervisor
        supervisor.apply_now(Plan("lab", specs(chance)), True)
        for _ in range(moments):
            self.moment(calm=False)
            if chance.random() < 0.06:
                supervisor.apply_now(Plan("lab", specs(chance)), chance.random() < 0.5)
            if chance.random() < 0.06:
                names = chance.sample(list(supervisor.slots), min(2, len(supervisor.slots)))
                supervisor.command_now(chance.choice([Verb.START, Verb.STOP, Verb.RESTART]), tuple(names))
        supervisor.shutdown_now(force=chance.random() < 0.3)
        for _ in range(120):
            self.moment(calm=True)
        if self.world.processes or not all_down(supervisor.slots):
            phases = {name: slot.record.phase for name, slot in supervisor.slots.items()}
            self.world.fail(f"after down: {list(self.world.processes)} live, {phases}")

    def moment(self, calm: bool) -> None:
        world, roll = self.world, self.chance.random
        self.now += self.chance.choice([0.3, 1, 3])
        for (name, inc), process in list(world.processes.items()):
            if not process.pid:
                if roll() < 0.6:
                    if roll() < 0.1:
                        del world.processes[name, inc]
                        self.say(name, SpawnFailed(inc, "no such program"))
                    else:
                        process.pid = 1000 + inc
                        self.say(name, Spawned(inc, process.pid))
            elif process.killed or (process.terminated and roll() < 0.5) or (not calm and roll() < 0.03):
                del world.processes[name, inc]
                for uuid, used in zip(process.spec.gpus, process.spec.vram_per_gpu, strict=True):
                    world.ghosts[uuid] += used
                self.say(name, Exited(inc, self.chance.choice([0, 1, -9])))
            else:
                process.ready = process.ready or roll() < 0.4
                self.say(name, Probed(inc, process.ready and roll() < 0.95))
                if process.draining and roll() < 0.5:
                    self.say(name, Drained(inc))
        world.ghosts = {uuid: ghost if roll() < 0.6 else 0 for uuid, ghost in world.ghosts.items()}
        if world.asked and roll() < 0.7:
            world.asked = 0
            world.memory(world.free())
        self.supervisor.handle()

    def say(self, name: str, event: Event) -> None:
        self.supervisor.handle((name, event))


def test_random_deployments_hold_the_invariants() -> None:
    """One life at a time, one load a GPU, never more memory than is free, needs first, ports apart; after down, nothing."""
    for seed in range(HISTORIES):
        History(seed).run()


def test_a_supervisor_that_trusts_old_readings_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Supervisor._memory_read

    def keep_first(self: Supervisor, free: Mapping[str, int] | None) -> None:
        original(self, self._free or free)

    monkeypatch.setattr(Supervisor, "_memory_read", keep_first)
    with pytest.raises(Broken, match="does not fit"):
        test_random_deployments_hold_the_invariants()


def test_a_supervisor_without_gates_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "gate", lambda *_: Gate(True))
    with pytest.raises(Broken):
        test_random_deployments_hold_the_invariants()


def test_a_loop_that_meets_a_bug_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """One item that cannot be handled must not end the supervision of all the others."""

    async def run() -> None:
        world = World(0)
        supervisor = Supervisor("lab", world, POLICY)
        task = asyncio.create_task(supervisor.run())
        monkeypatch.setattr(world, "last_incarnation", lambda name: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(supervisor.apply(Plan("lab", (spec("a"),))), 5)
        monkeypatch.setattr(world, "last_incarnation", lambda name: 7)

        def broken(name: str, slot: Slot) -> None:
            raise OSError("the journal cannot be written")

        supervisor.on_change = broken
        await asyncio.wait_for(supervisor.apply(Plan("lab", (spec("a"),))), 5)
        await asyncio.wait_for(supervisor.command(Verb.RESTART, ("a",)), 5)
        assert list(world.processes) == [("a", 8)], "the numbering goes on, and the command was carried out"
        with pytest.raises(ControlError, match="no such component: 'b'"):
            await asyncio.wait_for(supervisor.command(Verb.STOP, ("b",)), 5)
        supervisor.shutdown()
        supervisor.post("a", SpawnFailed(8, "gone"))
        await asyncio.wait_for(task, 5)

    asyncio.run(run())


def test_memory_that_does_not_come_back_is_a_failure_with_the_numbers() -> None:
    history = History(1)
    world, supervisor = history.world, history.supervisor
    big = spec("big", gpus=("GPU-0",), vram_per_gpu=(60,))
    world.ghosts["GPU-0"] = 70
    supervisor.apply_now(Plan("lab", (big,)), True)
    for _ in range(40):
        history.now += 0.3
        supervisor.handle()
        world.memory(world.free())
        supervisor.handle()
    record = supervisor.slots["big"].record
    assert record.incarnation == 0
    assert record.phase is Phase.FAILED
    assert "needs 0 MiB on GPU-0, which has 0 MiB free" in record.cause.text
    world.ghosts["GPU-0"] = 0
    supervisor.command_now(Verb.START, ("big",))
    for _ in range(60):
        history.now += 0.3
        supervisor.handle()
        world.memory(world.free())
        supervisor.handle()
    assert supervisor.slots["big"].record.incarnation == 1


def test_a_machine_without_nvml_waits_for_nothing() -> None:
    history = History(1)
    big = spec("big", gpus=("GPU-0",), vram_per_gpu=(60,))
    history.supervisor.apply_now(Plan("lab", (big,)), True)
    history.supervisor.handle()
    assert history.world.asked == 1
    history.world.memory(None)
    history.supervisor.handle()
    assert ("big", 1) in history.world.processes


def test_a_changed_spec_starts_only_after_the_old_process_is_gone() -> None:
    history = History(2)
    supervisor, world = history.supervisor, history.world
    old = spec("w")
    new = replace(old, argv=("serve", "new"))
    supervisor.apply_now(Plan("lab", (old,)), True)
    supervisor.handle()
    history.say("w", Spawned(1, 5))
    history.say("w", Probed(1, True))
    assert supervisor.apply_now(Plan("lab", (new,)), True).restarted == ("w",)
    supervisor.handle()
    assert [p.spec for p in world.processes.values()] == [old]
    del world.processes["w", 1]
    history.say("w", Exited(1, 0))
    assert [p.spec for p in world.processes.values()] == [new]
    assert supervisor.slots["w"].record.restarts == 0


def test_what_starts_inherits_the_environment_of_the_up_that_starts_it() -> None:
    """What runs unchanged keeps its own, for its next start too, until somebody asks for a restart."""
    history = History(3)
    supervisor, world = history.supervisor, history.world
    well, broken, changed = spec("well", port=11), spec("broken", port=12), spec("changed", port=13)
    supervisor.apply_now(Plan("lab", (well, broken, changed)), True, {"SHELL": "1"})
    supervisor.handle()
    for name in ("well", "changed"):
        history.say(name, Spawned(1, 5))
        history.say(name, Probed(1, True))
    history.say("broken", SpawnFailed(1, "no such program"))
    del world.processes["broken", 1]
    assert {name: env["SHELL"] for name, env in world.inherited.items()} == {
        "well": "1",
        "broken": "1",
        "changed": "1",
    }

    changed = replace(changed, argv=("serve", "new"))
    added = spec("added", port=14)
    supervisor.apply_now(Plan("lab", (well, broken, changed, added)), True, {"SHELL": "2"})
    wanted = {"well": "1", "broken": "2", "changed": "2", "added": "2"}
    assert {name: env["SHELL"] for name, env in world.inherited.items()} == wanted
    supervisor.command_now(Verb.RESTART, ("well",))
    assert world.inherited["well"] == {"SHELL": "2"}


def test_a_plan_without_an_environment_leaves_them_as_they_are() -> None:
    history = History(3)
    history.supervisor.apply_now(Plan("lab", (spec("a"),)), True)
    history.supervisor.command_now(Verb.RESTART, ("a",))
    assert history.world.inherited == {}


def test_a_start_that_went_on_while_the_supervisor_was_stopped_is_not_given_up() -> None:
    history = History(3)
    supervisor, world = history.supervisor, history.world
    slow = replace(spec("w"), start_timeout_s=10.0)
    supervisor.apply_now(Plan("lab", (slow,)), True)
    supervisor.handle()
    history.say("w", Spawned(1, 5))
    history.now += 60.0
    supervisor.extend_deadlines(55.0)
    supervisor.handle()
    phases = [supervisor.slots["w"].record.phase]
    history.now += 6.0
    supervisor.extend_deadlines(0.5)
    supervisor.handle()
    phases.append(supervisor.slots["w"].record.phase)
    assert phases == [Phase.STARTING, Phase.STOPPING], "its own ten seconds are over"
    assert ("w", 1) in world.processes
