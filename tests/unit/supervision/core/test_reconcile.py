"""What a new plan means, who may start, and who stops first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.core.reconcile import (
    Changes,
    Slot,
    all_down,
    gate,
    next_to_stop,
    reconcile,
    same_process,
    spec_kept,
)
from llmlaunch.supervision.core.types import Phase, Record
from tests.unit.supervision.histories import spec


def slot(name: str, phase: Phase = Phase.READY, wanted: bool = True, **changes: Any) -> Slot:
    return Slot(Record(phase=phase, wanted=wanted, incarnation=1), spec(name, **changes))


def slots(*found: Slot) -> dict[str, Slot]:
    return {s.spec.name: s for s in found}


A, B = spec("a"), spec("b", port=2)


@pytest.mark.parametrize(
    ("held", "wanted", "restart_down", "changes"),
    [
        ([], [A, B], True, Changes(start=("a", "b"))),
        ([slot("a")], [A, B], True, Changes(start=("b",), keep=("a",))),
        ([slot("a"), slot("b", port=2)], [A], True, Changes(remove=("b",), keep=("a",))),
        ([slot("a")], [replace(A, argv=("new",))], False, Changes(restart=("a",))),
        ([slot("a", Phase.BACKOFF)], [replace(A, argv=("new",))], False, Changes(restart=("a",))),
        ([slot("a", Phase.STOPPED, False)], [A], True, Changes(start=("a",))),
        ([slot("a", Phase.STOPPED, False)], [A], False, Changes(keep=("a",))),
        ([slot("a", Phase.STOPPED, False)], [replace(A, argv=("new",))], False, Changes(keep=("a",))),
        ([slot("a", Phase.FAILED)], [A], True, Changes(start=("a",))),
        ([slot("a", Phase.FAILED)], [A], False, Changes(keep=("a",))),
        ([slot("a", Phase.FAILED)], [replace(A, argv=("new",))], False, Changes(start=("a",))),
        ([slot("a", Phase.STOPPING, False)], [A], True, Changes(start=("a",))),
        ([slot("a", Phase.STOPPING, True)], [A], True, Changes(keep=("a",))),
    ],
)
def test_reconcile(held: list[Slot], wanted: list[ProcessSpec], restart_down: bool, changes: Changes) -> None:
    assert reconcile(wanted, slots(*held), restart_down) == changes


def test_what_left_the_plan_and_comes_back_while_it_stops() -> None:
    leaving = replace(slot("a", Phase.STOPPING, False), leaving=True)
    assert reconcile([A], slots(leaving), False) == Changes(start=("a",))
    assert reconcile([], slots(leaving), False) == Changes(), "it is on its way already"


def test_a_second_change_is_held_against_the_first_one() -> None:
    changing = replace(slot("a", Phase.STOPPING), successor=replace(A, argv=("new",)))
    assert reconcile([replace(A, argv=("new",))], slots(changing), False) == Changes(keep=("a",))
    assert reconcile([A], slots(changing), False) == Changes(restart=("a",))


FELT: dict[str, Any] = {
    "argv": ("x",), "env": {"A": "1"}, "host": "::1", "port": 9, "address": "http://h", "model": "m", "names": ("n",),
    "engine": "vllm", "gpus": ("GPU-1",), "mask": "", "self_registering": True,
    "component": Component.API, "env_pass": ("A",), "env_only": True, "own_env": ("A",),
    "key_variable": "K", "prefix": 1, "workdir": "/srv", "stop_signal": "SIGINT", "path_first": "/opt/vllm/bin", "own_python": True,
}  # fmt: skip
NOT_FELT: dict[str, Any] = {
    "reason": "other", "engine_reason": "other", "engine_auto": True,
    "vram_bytes": 3, "vram_per_gpu": (3,), "start_timeout_s": 9.0, "stop_grace_s": 9.0,
    "needs": ("b",), "progress_patterns": ("x",), "max_concurrency": 3, "secret_env": ("A",), "argv_shown": ("x",), "learning_key": "k",
    "kind": "embed", "ready_path": "/r", "live_path": "", "probe_timeout_s": 9.0, "probe_failures": 9, "restart_max": 0,
    "restart_delay_s": 9.0, "log_max_bytes": 3, "log_keep": 3, "request_timeout_s": 9.0,
    "max_model_len": 9, "engine_model": "org/m",
    "api_keys_file": "keys.txt", "api_keys_variable": "KEYS",
}  # fmt: skip


def test_every_field_is_either_felt_by_the_process_or_not() -> None:
    assert {*FELT, *NOT_FELT, "name"} == set(ProcessSpec.__slots__)
    assert all(not same_process(A, replace(A, **{key: value})) for key, value in FELT.items())
    assert all(same_process(A, replace(A, **{key: value})) for key, value in NOT_FELT.items())


def test_a_gateway_goes_on_when_a_model_wants_more_time_to_stop() -> None:
    def api(grace: str, stop_grace_s: float, *more: str) -> ProcessSpec:
        argv = ("llmlaunch", "api", "--stop-grace", grace, *more)
        return replace(A, component=Component.API, argv=argv, stop_grace_s=stop_grace_s)

    short, long = api("10", 13.0), api("60", 63.0)
    assert same_process(short, long)
    assert not same_process(short, api("10", 13.0, "--access-log"))
    assert same_process(replace(short, argv=("llmlaunch", "api")), short), "of a version without the flag"
    # It was told its grace when it started, and needs that long.
    assert spec_kept(long, short) == replace(short, stop_grace_s=63.0)
    assert spec_kept(short, long) == long
    # What a command of the user's calls so is the user's.
    mine = replace(short, component=Component.WORKER)
    assert not same_process(mine, replace(mine, argv=long.argv))
    assert spec_kept(replace(mine, stop_grace_s=63.0), mine) == mine


def test_gates_say_what_they_wait_for() -> None:
    pending = slot("w", Phase.PENDING, needs=("controller", "not-in-the-plan"), gpus=("GPU-0",), port=5)
    controller = slot("controller", Phase.STARTING, port=1)
    assert gate("w", slots(pending, controller), None).reason == "waiting for controller"
    ready = slot("controller", Phase.READY, port=1)
    assert gate("w", slots(pending, ready), None).is_open
    for phase, words in ((Phase.STARTING, "starts on"), (Phase.STOPPING, "leaves")):
        other = slot("o", phase, gpus=("GPU-0", "GPU-1"), port=6)
        assert gate("w", slots(pending, ready, other), None).reason == f"waiting while o {words} GPU-0"
    for phase in (Phase.READY, Phase.PENDING, Phase.BACKOFF, Phase.STOPPED):
        assert gate("w", slots(pending, ready, slot("o", phase, gpus=("GPU-0",), port=6)), None).is_open
    gives_up = slot("o", Phase.STOPPING, port=5)
    assert (
        gate("w", slots(pending, ready, gives_up), None).reason
        == "waiting for port 5, which o is about to release"
    )


def test_memory_gates() -> None:
    gib = 1 << 30
    pending = slot("w", Phase.PENDING, gpus=("GPU-0", "GPU-1"), vram_per_gpu=(2 * gib, 2 * gib))
    shut = gate("w", slots(pending), {"GPU-0": 2 * gib, "GPU-1": gib})
    assert (shut.is_open, shut.timed, shut.reason) == (
        False,
        True,
        "waiting for VRAM: needs 2.0 GiB on GPU-1, which has 1.0 GiB free",
    )
    named = gate("w", slots(pending), {"GPU-0": 2 * gib, "GPU-1": gib}, {"GPU-1": "GPU 1"})
    assert named.reason == "waiting for VRAM: needs 2.0 GiB on GPU 1, which has 1.0 GiB free"
    assert gate("w", slots(pending), {"GPU-0": 2 * gib, "GPU-1": 2 * gib}).is_open
    assert gate("w", slots(pending), {"GPU-0": 2 * gib}).is_open, "nobody can tell about the other"
    assert gate("w", slots(pending), None).is_open


def test_gateways_stop_first() -> None:
    api, api2 = slot("api", component=Component.API), slot("api2", Phase.STOPPING, component=Component.API)
    rest = [slot("controller", component=Component.CONTROLLER), slot("w"), slot("x", Phase.STOPPED)]
    assert next_to_stop(slots(*rest, api, api2)) == ("api", "api2")
    assert next_to_stop(slots(*rest)) == ("controller", "w")
    assert not all_down(slots(*rest))
    assert all_down(slots(slot("a", Phase.STOPPED), slot("b", Phase.FAILED)))
    assert all_down({})
