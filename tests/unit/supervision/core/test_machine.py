"""One component's life, event by event, and thousands of random ones."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.planning.types import Component
from llmlaunch.supervision.core.machine import step
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import (
    Cause,
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
from tests.unit.supervision.histories import POLICY, READY, START, play, spec


def test_from_pending_to_ready() -> None:
    record, commands = play(*READY)
    assert commands == [Spawn(1)]
    assert (record.phase, record.pid, record.since) == (Phase.READY, 77, 1.0)


def test_what_it_remarks_on_becoming_ready_is_of_this_process_alone() -> None:
    record, _ = play(*START, (1.0, Probed(1, True, "runs slowly")), (2.0, Probed(1, True)))
    assert record.note == "runs slowly"
    record, _ = play((3.0, Exited(1, 1)), (9.0, Tick()), (9.1, Tick()), record=record)
    assert (record.phase, record.note) == (Phase.STARTING, "")


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
    assert record.cause.text == "not ready, and no progress for 8 s; last progress: 40 %"
    (command,) = commands
    assert isinstance(command, Terminate)
    assert command.incarnation == 1
    assert command.grace_s == pytest.approx(POLICY.unhealthy_grace_s)


def test_counted_bytes_extend_a_start_and_are_shown_until_the_engine_says_more() -> None:
    read = Progressed(1, "30 MiB read and written so far", counted=True)
    record, _ = play(*START, (7.0, read))
    assert (record.progress, record.deadline) == ("30 MiB read and written so far", 15.0)
    record, _ = play((8.0, Progressed(1, "40 %")), (9.0, read), record=record)
    assert (record.progress, record.deadline) == ("40 %", 17.0)


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
        (None, "along with its shim"),
    ],
)
def test_the_exit_in_words(code: int | None, words: str) -> None:
    record, _ = play(*READY, (2.0, Exited(1, code)))
    assert words in record.cause.text


def test_the_last_line_of_one_that_was_killed_is_not_given_as_the_reason() -> None:
    record, _ = play(*READY, (2.0, Exited(1, -9, "INFO all is well")))
    assert record.cause.text == "was killed by SIGKILL; its last line: INFO all is well"
    record, _ = play(*READY, (2.0, Exited(1, -6, "GGML_ASSERT(n > 0) failed", is_error=True)))
    assert record.cause.text == "was killed by SIGABRT; its log says: GGML_ASSERT(n > 0) failed"


@pytest.mark.parametrize(
    "changes",
    [
        {"component": Component.WORKER, "self_registering": True},
        {"component": Component.CONTROLLER},
        {"component": Component.WORKER, "engine": "vllm"},
        {"component": Component.WORKER, "engine": "command"},
    ],
    ids=["worker", "controller", "vllm", "command"],
)
@pytest.mark.parametrize(
    ("code", "phase"), [(2, Phase.FAILED), (126, Phase.FAILED), (127, Phase.FAILED), (1, Phase.BACKOFF)]
)
def test_a_usage_error_or_a_missing_program_is_final(
    changes: dict[str, Any], code: int, phase: Phase
) -> None:
    record, _ = play(*START, (0.5, Exited(1, code, "no such flag")), spec=spec(**changes))
    assert (record.phase, record.cause.permanent) == (phase, phase is Phase.FAILED)


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


def test_the_last_death_is_remembered_after_a_recovery() -> None:
    record, _ = play(*READY, (2.0, Exited(1, -9, "INFO all is well", out_of_memory=True)))
    words = "was killed by SIGKILL; the kernel's OOM killer was at work at the time; its last line: INFO all is well"
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
