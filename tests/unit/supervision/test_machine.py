"""One component's life, event by event, and thousands of random ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.core.machine import step
from llmlaunch.supervision.core.restart import Policy, delay
from llmlaunch.supervision.core.types import (
    LIVE_PHASES,
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
    Stage,
    Terminate,
    Tick,
    Verb,
    Why,
)
from tests.unit.supervision.histories import POLICY, Broken, OneComponent, spec

HISTORIES = 2000


def play(
    *moments: tuple[float, Event], spec: ProcessSpec | None = None, record: Record | None = None
) -> tuple[Record, list[Command]]:
    """Feed events at their times; the last record, and every command."""
    record, commands = record or Record(), []
    for now, event in moments:
        record, new = step(record, event, spec or SPEC, now, 0.0, POLICY)
        commands += new
    return record, commands


SPEC = spec()
START = ((0.0, Tick()), (0.1, Spawned(1, 77)))
READY = (*START, (1.0, Probed(1, True)))


def test_from_pending_to_ready() -> None:
    record, commands = play(*READY)
    assert commands == [Spawn(1)]
    assert (record.phase, record.pid, record.since) == (Phase.READY, 77, 1.0)


def test_what_it_remarks_on_becoming_ready_is_of_this_process_alone() -> None:
    record, _ = play(*START, (1.0, Probed(1, True, "runs slowly")), (2.0, Probed(1, True)))
    assert record.remark == "runs slowly"
    record, _ = play((3.0, Exited(1, 1)), (9.0, Tick()), (9.1, Tick()), record=record)
    assert (record.phase, record.remark) == (Phase.STARTING, "")


def test_a_closed_gate_says_what_it_waits_for() -> None:
    record, commands = play((0.0, Tick(Gate(False, "waiting for controller"))))
    assert (record.phase, record.waiting, commands) == (Phase.PENDING, "waiting for controller", [])


def test_waiting_for_memory_is_bounded_and_fails_with_the_numbers() -> None:
    shut = Gate(False, "needs 5.0 GiB on GPU-1, which has 1.0 GiB free", timed=True)
    record, commands = play((0.0, Tick(shut)), (4.9, Tick(shut)))
    assert (record.phase, commands) == (Phase.PENDING, [])
    record, _ = play((5.1, Tick(shut)), record=record)
    assert (record.phase, record.cause.why) == (Phase.FAILED, Why.MEMORY)
    assert "needs 5.0 GiB on GPU-1, which has 1.0 GiB free" in record.cause.text
    record, commands = play((6.0, Commanded(Verb.START)), (6.1, Tick()), record=record)
    assert (record.phase, commands) == (Phase.STARTING, [Spawn(1)])


def test_a_default_wait_for_memory_ends_within_a_minute_and_a_half() -> None:
    shut, policy, now = Gate(False, "memory", timed=True), Policy(), 0.0
    record = Record()
    while record.phase is not Phase.FAILED:
        record, _ = step(record, Tick(shut), spec(), now, 0.5, policy)
        now += 0.25
        assert now < 100
    assert now > 60


def test_waiting_for_a_turn_does_not_use_up_the_wait_for_memory() -> None:
    shut, turn = Gate(False, "memory", timed=True), Gate(False, "waiting while a starts")
    record, _ = play(
        (0.0, Tick(shut)), (4.0, Tick(turn)), (20.0, Tick(turn)), (21.0, Tick(shut)), (25.0, Tick(shut))
    )
    assert record.phase is Phase.PENDING


def test_the_start_deadline_counts_from_the_last_progress() -> None:
    record, _ = play(*START, (7.0, Progressed(1, "40 %")), (14.0, Tick()))
    assert record.phase is Phase.STARTING
    record, commands = play((15.1, Tick()), record=record)
    assert (record.phase, record.cause.why) == (Phase.STOPPING, Why.START_TIMEOUT)
    assert record.cause.text == "not ready, and no sign of progress for 8 s; the last was: 40 %"
    assert commands == [Terminate(1, pytest.approx(POLICY.unhealthy_grace_s))]


def test_an_exit_while_starting_fails_at_once_with_its_last_words() -> None:
    record, _ = play(*START, (0.5, Exited(1, 1, "ValueError: no such model")))
    assert record.phase is Phase.BACKOFF
    assert record.cause.text == "exited with code 1 while starting: ValueError: no such model"
    assert record.deadline == 0.5 + 1.0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "was killed by SIGKILL"),
        (-64, "was killed by signal 64"),
        (0, "exited with code 0"),
        (None, "keeper"),
    ],
)
def test_the_exit_in_words(code: int | None, words: str) -> None:
    record, _ = play(*READY, (2.0, Exited(1, code)))
    assert words in record.cause.text


def test_the_last_line_of_one_that_was_killed_is_not_given_as_the_reason() -> None:
    record, _ = play(*READY, (2.0, Exited(1, -9, "INFO all is well")))
    assert record.cause.text == "was killed by SIGKILL; its last line: INFO all is well"


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({"component": Component.WORKER, "self_registering": True}, Phase.FAILED),
        ({"component": Component.CONTROLLER}, Phase.FAILED),
        ({"component": Component.WORKER, "engine": "command"}, Phase.BACKOFF),
    ],
)
def test_a_usage_error_is_final_for_our_own_components_alone(changes: dict[str, Any], phase: Phase) -> None:
    record, _ = play(*START, (0.5, Exited(1, 2, "no such flag")), spec=spec(**changes))
    assert record.phase is phase


def test_code_2_after_it_was_ready_is_an_ordinary_crash() -> None:
    record, _ = play(*READY, (2.0, Exited(1, 2)), spec=spec(self_registering=True))
    assert record.phase is Phase.BACKOFF


def test_three_failed_probes_in_a_row_make_it_unhealthy() -> None:
    bad = Probed(1, False, "status 500")
    record, commands = play(*READY, (2, bad), (3, bad), (4, Probed(1, True)), (5, bad), (6, bad))
    assert (record.phase, len(commands)) == (Phase.READY, 1)
    record, commands = play((7, bad), record=record)
    assert record.cause.text == "unhealthy: 3 probes of /health in a row failed (status 500)"
    assert commands == [Terminate(1, 2.0)]


def test_the_stages_of_a_stop() -> None:
    record, commands = play(*READY, (2.0, Commanded(Verb.STOP)))
    assert (record.stage, commands[-1]) == (Stage.DRAIN, Drain(1, 4.0))
    _, commands = play((3.0, Drained(1)), record=record)
    assert commands == [Terminate(1, 3.0)], "what is left of the grace"
    late, commands = play((6.0, Tick()), record=record)
    assert commands == [Terminate(1, 3.0)], "draining used the grace up; the process still gets a little"
    record, commands = play((9.1, Tick()), (11.2, Tick()), record=late)
    assert commands == [Kill(1), Kill(1)], "again and again"
    record, commands = play((12.0, Exited(1, -9)), record=record)
    assert (record.phase, commands, record.cause.text) == (Phase.STOPPED, [], "stopped by command")


@pytest.mark.parametrize("history", [(), READY, (*READY, (2.0, Commanded(Verb.RESTART)))])
def test_a_stop_says_why_it_came(history: tuple[tuple[float, Event], ...]) -> None:
    record, _ = play(*history, (3.0, Commanded(Verb.STOP, reason="removed from the manifest")))
    if history:
        assert record.phase is Phase.STOPPING
        assert record.cause.text == "removed from the manifest"
        record, _ = play((4.0, Exited(1, 0)), record=record)
    assert (record.phase, record.cause.text) == (Phase.STOPPED, "removed from the manifest")


def test_who_serves_nobody_is_not_drained() -> None:
    assert isinstance(play(*START, (0.5, Commanded(Verb.STOP)))[1][-1], Terminate)
    assert isinstance(
        play(*READY, (2, Commanded(Verb.STOP)), spec=spec(component=Component.API))[1][-1], Terminate
    )
    assert isinstance(play(*READY, (2, Commanded(Verb.STOP, drain=False)))[1][-1], Terminate)


def test_no_grace_means_kill() -> None:
    assert play(*READY, (2, Commanded(Verb.STOP)), spec=spec(stop_grace_s=0.0))[1][-1] == Kill(1)


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.KILL, Verb.RESTART])
def test_spawned_after_the_command_to_stop_is_ended(verb: Verb) -> None:
    """The case that random histories rarely meet: the process comes to be after nobody wants it any more."""
    record, commands = play((0.0, Tick()), (0.1, Commanded(verb)))
    assert record.phase is Phase.STOPPING
    before = len(commands)
    record, commands2 = play((0.2, Spawned(1, 77)), record=record)
    ended = commands[before:] + commands2
    assert isinstance(ended[-1], Kill if verb is Verb.KILL else Terminate)
    assert record.phase is Phase.STOPPING, "it lives until Exited"
    record, _ = play((0.3, Exited(1, -15)), record=record)
    assert record.phase is (Phase.PENDING if verb is Verb.RESTART else Phase.STOPPED)


def test_a_spawn_that_failed_after_the_command_to_stop() -> None:
    record, _ = play((0.0, Tick()), (0.1, Commanded(Verb.STOP)), (0.2, SpawnFailed(1, "gone")))
    assert (record.phase, record.cause.text) == (Phase.STOPPED, "stopped by command")


def test_too_many_failures_in_a_row_are_final_until_told_otherwise() -> None:
    record, now = Record(), 0.0
    for life in range(1, POLICY.max_failures + 1):
        record, _ = play((now, Tick()), (now, Tick()), (now, SpawnFailed(life, "port taken")), record=record)
        now += 100
    assert record.phase is Phase.FAILED
    assert record.cause.text == "gave up after 4 failures in a row; the last: port taken"
    assert play((now, Tick()), record=record)[0] == record
    record, commands = play((now, Commanded(Verb.START)), (now, Tick()), record=record)
    assert (record.phase, record.failures, commands) == (Phase.STARTING, 0, [Spawn(5)])


def test_a_stable_run_forgives() -> None:
    failed = replace(Record(), phase=Phase.STARTING, incarnation=1, pid=7, failures=3)
    record, _ = play((0.0, Probed(1, True)), (9.9, Tick()), record=failed)
    assert record.failures == 3
    assert play((10.0, Tick()), record=record)[0].failures == 0


def test_restart_while_it_stops_brings_it_back() -> None:
    stop = (2.0, Commanded(Verb.STOP))
    record, _ = play(*READY, stop, (2.1, Commanded(Verb.RESTART)), (3.0, Exited(1, 0)))
    assert (record.phase, record.failures, record.restarts) == (Phase.PENDING, 0, 0)


def test_events_of_older_incarnations_are_dropped() -> None:
    record, _ = play(*READY, (2, Exited(1, 1)), (2, Tick()), (2, Tick()), (2.1, Spawned(2, 78)))
    for stale in (
        Spawned(1, 77),
        SpawnFailed(1, ""),
        Exited(1, 0),
        Probed(1, True),
        Progressed(1, ""),
        Drained(1),
    ):
        assert play((3, stale), record=record) == (record, [])


def test_delays_grow_to_the_cap_with_jitter() -> None:
    policy = Policy()
    assert [delay(policy, n, False, 0.0) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert delay(policy, 1, True, 0.5) == 0, "it has shown that it can run"
    assert 4 < delay(policy, 3, True, 0.9) <= 5
    assert delay(policy, 10_000, False, 0.999) == 60


# ── histories ───────────────────────────────────────────────────────────────────────────────────────────────────────


def without_incarnation_check(record: Record, event: Event, *rest: Any) -> tuple[Record, tuple[Command, ...]]:
    """The machine as it would be if it believed every event."""
    if hasattr(event, "incarnation"):
        event = replace(event, incarnation=record.incarnation)
    return step(record, event, *rest)


def without_waiting_for_the_exit(
    record: Record, event: Event, *rest: Any
) -> tuple[Record, tuple[Command, ...]]:
    """The machine as it would be if it took the command for the deed."""
    after, commands = step(record, event, *rest)
    if any(isinstance(c, Kill) for c in commands):
        return step(after, Exited(after.incarnation, -9), *rest)
    return after, commands


def without_ending_late_spawns(
    record: Record, event: Event, *rest: Any
) -> tuple[Record, tuple[Command, ...]]:
    if isinstance(event, Spawned) and record.phase is Phase.STOPPING:
        return record, ()
    return step(record, event, *rest)


def test_thousands_of_histories_hold_the_invariants() -> None:
    """Never two live incarnations; after down, nothing alive."""
    for seed in range(HISTORIES):
        OneComponent(seed, step).run()


@pytest.mark.parametrize(
    "mutant", [without_incarnation_check, without_waiting_for_the_exit, without_ending_late_spawns]
)
def test_histories_catch_a_broken_machine(mutant: Any) -> None:
    def run_all() -> None:
        for seed in range(HISTORIES):
            OneComponent(seed, mutant).run()

    with pytest.raises(Broken):
        run_all()


EVENTS = st.one_of(
    st.builds(Spawned, st.integers(0, 3), st.integers(2, 99)),
    st.builds(SpawnFailed, st.integers(0, 3), st.just("why")),
    st.builds(Exited, st.integers(0, 3), st.sampled_from([None, 0, 1, 2, -9])),
    st.builds(Probed, st.integers(0, 3), st.booleans()),
    st.builds(Progressed, st.integers(0, 3), st.just("50 %")),
    st.builds(Drained, st.integers(0, 3)),
    st.builds(Commanded, st.sampled_from(Verb), st.booleans()),
    st.builds(Tick, st.builds(Gate, st.booleans(), st.just("x"), st.booleans())),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), EVENTS), max_size=40))
def test_any_sequence_of_events_leaves_a_record_that_makes_sense(moments: list[tuple[float, Event]]) -> None:
    record, now = Record(), 0.0
    for wait, event in moments:
        now += wait
        before = record
        record, commands = step(record, event, SPEC, now, 0.5, POLICY)
        assert record.incarnation in (before.incarnation, before.incarnation + 1)
        assert all(c.incarnation == record.incarnation for c in commands)
        assert record.phase in LIVE_PHASES or record.pid is None
        assert (record.stage is not Stage.NONE) == (record.phase is Phase.STOPPING)
        assert record.wanted or record.phase in (Phase.STOPPING, Phase.STOPPED)
        assert record.phase is before.phase or record.since == now
