"""When one that ended is started again, and when no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.supervision.core.machine import step
from llmlaunch.supervision.core.restart import Policy, delay, retry_delay
from llmlaunch.supervision.core.types import (
    Commanded,
    Event,
    Exited,
    Phase,
    Probed,
    Record,
    Spawn,
    Spawned,
    SpawnFailed,
    Tick,
    Verb,
    Why,
)
from tests.unit.supervision.histories import POLICY, READY, SPEC, START, play, spec


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
        "4 failed starts in a row; the last one: exited with code 1 while starting: no such model"
    )
    assert play((began + 14.9, Tick()), record=record) == (record, [])
    record = fail_to_start(record, began + 15)
    assert (record.phase, record.deadline) == (Phase.FAILED, began + 15 + POLICY.later_retry_s)
    assert record.cause.text.startswith("5 failed starts in a row")
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


def stall(record: Record, now: float, **changes: Any) -> Record:
    """One more start that says nothing until its time is over."""
    life, over = record.incarnation + 1, now + 8
    history = (now, Tick()), (now, Tick()), (now, Spawned(life, 7)), (over, Tick()), (over, Exited(life, -15))
    return play(*history, record=record, spec=spec(**changes))[0]


def test_a_start_without_progress_is_tried_once_more_and_then_no_more() -> None:
    record = stall(Record(), 0.0)
    assert (record.phase, record.cause.why) == (Phase.BACKOFF, Why.START_TIMEOUT)
    record = stall(record, 20.0)
    assert (record.phase, record.deadline, record.incarnation) == (Phase.FAILED, None, 2)
    assert record.cause.permanent
    assert record.cause.text.startswith("twice not ready, and no progress for 8 s; not tried again")
    assert play((1e6, Tick()), record=record) == (record, [])
    told, commands = play((30.0, Commanded(Verb.RESTART)), (30.0, Tick()), record=record)
    assert (told.phase, commands) == (Phase.STARTING, [Spawn(3)])


def test_only_starts_in_a_row_without_progress_are_hopeless() -> None:
    record = fail_to_start(stall(Record(), 0.0), 20.0)
    record = stall(record, 40.0)
    assert record.phase is Phase.BACKOFF
    assert stall(record, 60.0).cause.permanent


def test_a_start_without_progress_of_one_that_was_ready_before_is_tried_like_any_other() -> None:
    record, _ = play(*READY, (2.0, Exited(1, -9)))
    for now in (20.0, 40.0):
        record = stall(record, now)
        assert record.phase is Phase.BACKOFF


def test_whoever_says_how_often_a_start_is_tried_is_obeyed() -> None:
    record = Record()
    for now in (0.0, 20.0):
        record = stall(record, now, restart_max=3)
        assert record.phase is Phase.BACKOFF


def test_what_the_log_says_of_a_start_without_progress_is_told() -> None:
    history = (0.0, Tick()), (0.0, Spawned(1, 7)), (8.0, Tick())
    record, _ = play(*history, (8.1, Exited(1, -15, "Rank 0 scheduler is dead.", is_error=True)))
    assert record.cause.text == "not ready, and no progress for 8 s; its log says: Rank 0 scheduler is dead."


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
    assert record.cause.text == "exited with code 0; not restarted (`restart: never`)"
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


def test_a_stable_run_forgives() -> None:
    failed = replace(Record(), phase=Phase.STARTING, incarnation=1, pid=7, failures=3)
    record, _ = play((0.0, Probed(1, True)), (9.9, Tick()), record=failed)
    assert record.failures == 3
    assert play((10.0, Tick()), record=record)[0].failures == 0


def test_delays_grow_to_the_cap_with_jitter() -> None:
    policy = Policy()
    assert [delay(policy, n, False, 0.0) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert delay(policy, 1, True, 0.5) == 0, "it has shown that it can run"
    assert 4 < delay(policy, 3, True, 0.9) <= 5
    assert delay(policy, 10_000, False, 0.999) == 60
