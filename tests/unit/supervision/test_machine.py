"""One component's life, event by event, and thousands of random ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.core.liveness import Patience
from llmlaunch.supervision.core.machine import step
from llmlaunch.supervision.core.restart import Policy, delay, retry_delay
from llmlaunch.supervision.core.types import (
    LIVE_PHASES,
    Cause,
    Command,
    Commanded,
    Death,
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
    record = record or Record()
    commands: list[Command] = []
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
    assert (record.phase, record.cause.why, record.deadline) == (Phase.FAILED, Why.MEMORY, 5.1 + 15)
    assert "needs 5.0 GiB on GPU-1, which has 1.0 GiB free" in record.cause.text
    told, commands = play((6.0, Commanded(Verb.START)), (6.1, Tick()), record=record)
    assert (told.phase, commands) == (Phase.STARTING, [Spawn(1)])
    record, commands = play((20.2, Tick()), (20.2, Tick()), record=record)
    assert (record.phase, commands) == (Phase.STARTING, [Spawn(1)]), "it looks again by itself"


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
    (command,) = commands
    assert isinstance(command, Terminate)
    assert command.incarnation == 1
    assert command.grace_s == pytest.approx(POLICY.unhealthy_grace_s)


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


def fail_to_start(record: Record, now: float, event: Event | None = None) -> Record:
    """One more start that fails, as soon as the record is due."""
    life = record.incarnation + 1
    ended = event or Exited(life, 1, "no such model")
    return play((now, Tick()), (now, Tick()), (now, Spawned(life, 7)), (now, ended), record=record)[0]


def test_too_many_failed_starts_in_a_row_are_tried_again_slowly() -> None:
    record, now = Record(), 0.0
    for _ in range(POLICY.max_failures):
        record = fail_to_start(record, now)
        now += 100
    began = now - 100
    assert (record.phase, record.deadline) == (Phase.FAILED, began + POLICY.first_retry_s)
    assert record.cause.text == (
        "4 failures in a row; the last: exited with code 1 while starting: no such model"
    )
    assert play((began + 14.9, Tick()), record=record) == (record, [])
    record = fail_to_start(record, began + 15)
    assert (record.phase, record.deadline) == (Phase.FAILED, began + 15 + POLICY.later_retry_s)
    assert record.cause.text.startswith("5 failures in a row")
    ready, _ = play(
        (began + 60, Tick()), (began + 60, Tick()), (began + 60, Spawned(6, 7)), (began + 61, Probed(6, True)),
        (began + 75, Tick()), record=record,
    )  # fmt: skip
    assert (ready.phase, ready.failures, ready.gave_up) == (Phase.READY, 0, 0)
    assert ready.restarts == 5


def test_a_command_tries_one_that_failed_at_once() -> None:
    record = Record()
    for i in range(POLICY.max_failures):
        record = fail_to_start(record, i * 100.0)
    now = POLICY.max_failures * 100.0 - 90
    for verb in (Verb.START, Verb.RESTART):
        again, commands = play((now, Commanded(verb)), (now, Tick()), record=record)
        assert (again.phase, again.failures, again.gave_up, commands) == (Phase.STARTING, 0, 0, [Spawn(5)])
        assert again.last == record.last, "what happened is not forgotten"


def test_where_nothing_could_be_started_a_try_is_never_more_than_a_minute_away() -> None:
    """A port that a stranger holds, a full disk, no descriptors: looking again costs nothing."""
    policy, record, now, waits = Policy(), Record(), 0.0, []
    for life in range(1, 12):
        for event in (Tick(), Tick(), SpawnFailed(life, "port 8000 is taken by nc", why=Why.PORT)):
            record, _ = step(record, event, SPEC, now, 0.0, policy)
        assert record.phase is (Phase.BACKOFF if life < policy.max_failures else Phase.FAILED)
        assert record.deadline is not None
        waits.append(record.deadline - now)
        now = record.deadline
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


def test_the_delays_of_failed_by_default() -> None:
    assert [retry_delay(Policy(), 5 + n, n, True, 0.9) for n in (1, 2, 3)] == [60, 300, 300]


@pytest.mark.parametrize(
    "event",
    [
        SpawnFailed(1, "the program 'vlm' was not found", permanent=True),
        Exited(1, 2, "no such option: --modle"),
    ],
)
def test_what_no_retry_mends_stays_down(event: Event) -> None:
    own = spec(self_registering=True)
    record, _ = play((0.0, Tick()), (0.1, Spawned(1, 7)), (0.2, event), spec=own)
    if isinstance(event, SpawnFailed):
        record, _ = play((0.0, Tick()), (0.2, event), spec=own)
    assert (record.phase, record.deadline) == (Phase.FAILED, None)
    assert play((1e6, Tick()), record=record, spec=own) == (record, [])


def test_who_was_ready_is_never_given_up() -> None:
    """One request that crashes it, sent once a second, must not end it for good."""
    record, now, waits = Record(), 0.0, []
    for life in range(1, 12):
        record, _ = play(
            (now, Tick()), (now, Tick()), (now, Spawned(life, 7)), (now + 1, Probed(life, True)), (now + 2, Exited(life, -11)),
            record=record,
        )  # fmt: skip
        assert record.phase is Phase.BACKOFF
        assert record.deadline is not None
        waits.append(record.deadline - now - 2)
        now = record.deadline
    assert waits == [0, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


def test_a_fault_that_is_permanent_by_nature_is_none_of_one_that_was_ready_before() -> None:
    """Its flags and files were right: somebody is changing them, and will be done."""
    own = spec(self_registering=True)
    record, _ = play(*READY, (2.0, Exited(1, -9)), spec=own)
    gone = SpawnFailed(2, "the program 'vllm' was not found", permanent=True)
    record, _ = play((2.0, Tick()), (2.0, Tick()), (2.1, gone), record=record, spec=own)
    assert record.phase is Phase.BACKOFF
    told, _ = play((3.0, Commanded(Verb.RESTART)), (3.0, Tick()), record=record, spec=own)
    told, _ = play((3.1, replace(gone, incarnation=3)), record=told, spec=own)
    assert (told.phase, told.deadline) == (Phase.FAILED, None), "whoever told it to start is there to see"


def test_restart_never() -> None:
    never = spec(restart_max=0)
    record, _ = play(*READY, (2.0, Exited(1, 0)), spec=never)
    assert (record.phase, record.deadline) == (Phase.FAILED, None)
    assert record.cause.text == "exited with code 0; `restart: never` leaves it down"
    record, commands = play((3.0, Commanded(Verb.RESTART)), (3.0, Tick()), record=record, spec=never)
    assert (record.phase, commands) == (Phase.STARTING, [Spawn(2)])


def test_restart_max_and_delay() -> None:
    patient = spec(restart_max=2, restart_delay_s=7.0)
    record, _ = play(*START, (1.0, Exited(1, 1)), spec=patient)
    assert record.phase is Phase.BACKOFF
    record, _ = play((2.0, Tick()), (2.0, Tick()), (2.5, SpawnFailed(2, "port")), record=record, spec=patient)
    assert (record.phase, record.deadline) == (Phase.FAILED, 9.5)
    record, _ = play((9.5, Tick()), (9.5, Tick()), (9.6, SpawnFailed(3, "port")), record=record, spec=patient)
    assert record.phase is Phase.FAILED
    assert record.deadline == pytest.approx(16.6)


# ── what happened last ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_last_death_is_remembered_after_a_recovery() -> None:
    record, _ = play(*READY, (2.0, Exited(1, -9, "INFO all is well", out_of_memory=True)))
    words = "was killed by SIGKILL, when the kernel killed a process for lack of memory; its last line: INFO all is well"
    assert record.last == Death(1, 2.0, Why.EXIT, words, -9, True, "INFO all is well")
    again, _ = play(
        (2.1, Tick()),
        (2.1, Tick()),
        (2.2, Spawned(2, 8)),
        (3.0, Probed(2, True)),
        (20, Tick()),
        record=record,
    )
    assert (again.phase, again.last, again.cause) == (Phase.READY, record.last, Cause())
    told, _ = play((21, Commanded(Verb.RESTART)), (22, Exited(2, 0)), record=again)
    assert told.last == record.last, "an end that somebody asked for is no failure"
    told, _ = play((22, Tick()), (22, Spawned(3, 9)), (23, Exited(3, 1)), record=told)
    assert told.last == Death(3, 23, Why.EXIT, "exited with code 1 while starting", 1)


def test_what_is_remembered_of_one_that_hung_is_why_it_was_ended() -> None:
    bad = Probed(1, False, "status 500")
    record, _ = play(*READY, (2, bad), (3, bad), (4, bad), (5, Exited(1, -15, "bye")))
    words = "unhealthy: 3 probes of /health in a row failed (status 500)"
    assert record.last == Death(1, 5, Why.UNHEALTHY, words, -15, False, "bye")


def test_a_start_that_could_not_be_made_is_remembered_too() -> None:
    record, _ = play((0.0, Tick()), (0.1, SpawnFailed(1, "port 80 is taken by nginx", why=Why.PORT)))
    assert record.last == Death(1, 0.1, Why.PORT, "port 80 is taken by nginx")


# ── liveness ────────────────────────────────────────────────────────────────────────────────────────────────────────


def silent(cpu: float | None) -> Probed:
    return Probed(1, False, "no answer within 10 s", unanswered=True, cpu=cpu)


def test_a_busy_process_that_does_not_answer_is_left_alone() -> None:
    record, commands = play(*READY, *((2.0 + i, silent(1.0)) for i in range(49)))
    assert (record.phase, commands) == (Phase.READY, [Spawn(1)])
    record, _ = play((51.0, Probed(1, True)), *((52.0 + i, silent(1.0)) for i in range(49)), record=record)
    assert (record.phase, record.unanswered_since) == (Phase.READY, 52.0)


def test_a_process_that_is_busy_for_ever_is_restarted_all_the_same() -> None:
    record, commands = play(*READY, *((2.0 + i, silent(1.0)) for i in range(51)))
    assert (record.phase, record.cause.why) == (Phase.STOPPING, Why.UNHEALTHY)
    assert record.cause.text == (
        "unhealthy: busy, but no probe of /health was answered for 50 s (no answer within 10 s)"
    )
    assert commands[-1] == Terminate(1, 2.0)


def test_a_busy_process_that_goes_on_answering_requests_is_well_however_long_its_probe_waits() -> None:
    serving = replace(silent(1.0), answered=3)
    record, _ = play(*READY, *((2.0 + 10 * i, serving if i % 4 else silent(1.0)) for i in range(60)))
    assert record.phase is Phase.READY
    idle = replace(silent(0.0), answered=3)
    record, _ = play(*((602.0 + i, idle) for i in range(3)), record=record)
    assert record.phase is Phase.STOPPING, (
        "answers that were on their way when it stopped are no sign of life"
    )


@pytest.mark.parametrize("cpu", [None, 0.0, 0.04])
def test_a_process_that_hangs_is_restarted_after_three_probes(cpu: float | None) -> None:
    record, _ = play(*READY, *((2.0 + i, silent(cpu)) for i in range(3)))
    assert (record.phase, record.cause.why) == (Phase.STOPPING, Why.UNHEALTHY)


def test_a_server_that_says_it_is_ill_is_believed_however_busy() -> None:
    bad = Probed(1, False, "status 500", cpu=8.0)
    assert play(*READY, (2, bad), (3, bad), (4, bad))[0].phase is Phase.STOPPING


def test_a_moment_of_work_starts_the_count_of_failed_probes_again_but_not_the_clock() -> None:
    idle, busy = silent(0.0), silent(1.0)
    record, _ = play(*READY, (2, idle), (4, idle), (6, busy), (8, idle), (10, idle), (12, busy))
    assert record.phase is Phase.READY
    record, _ = play((50, idle), (52.1, idle), record=record)
    assert "answered for 50 s" in record.cause.text


def test_how_many_probes_may_fail_is_the_components_own() -> None:
    patient = spec(probe_failures=5)
    record, _ = play(*READY, *((2.0 + i, silent(0.0)) for i in range(4)), spec=patient)
    assert record.phase is Phase.READY
    strict = spec(probe_failures=1)
    record, _ = play(*READY, (2.0, silent(0.0)), spec=strict)
    assert record.cause.text == "unhealthy: a probe of /health failed (no answer within 10 s)"


def test_who_waits_long_for_an_idle_one_waits_longer_for_a_busy_one() -> None:
    policy = Policy()
    assert Patience.of(spec(), policy) == Patience(5.0, 3, 300.0)
    assert Patience.of(spec(probe_timeout_s=60.0, probe_failures=5), policy) == Patience(60.0, 5, 620.0)


def test_a_start_that_takes_too_long_says_what_its_probe_came_to() -> None:
    record, commands = play(
        *START, (1.0, Probed(1, False, "connection refused")), (2.0, Probed(1, False, "status 503"))
    )
    assert (record.phase, commands) == (Phase.STARTING, [Spawn(1)])
    record, _ = play((8.1, Tick()), record=record)
    assert record.cause.text == (
        "not ready, and no sign of progress for 8 s; the last probe of /health: status 503"
    )
    record, _ = play((9.0, Exited(1, -15)), (11.0, Tick()), (11.0, Tick()), record=record)
    assert (record.phase, record.probe_said) == (Phase.STARTING, ""), "the next life has said nothing yet"


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
    if not isinstance(event, Commanded | Tick):
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
    st.builds(SpawnFailed, st.integers(0, 3), st.just("why"), st.booleans()),
    st.builds(Exited, st.integers(0, 3), st.sampled_from([None, 0, 1, 2, -9])),
    st.builds(
        Probed,
        st.integers(0, 3),
        st.booleans(),
        st.just(""),
        st.booleans(),
        st.sampled_from([None, 0.0, 1.0]),
    ),
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
        assert record.phase is not Phase.FAILED or (record.deadline is None) == record.cause.permanent
        assert record.last is not None or before.last is None
