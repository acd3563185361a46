"""Thousands of random lives, and machines that are broken on purpose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.supervision.core.machine import step
from llmlaunch.supervision.core.types import (
    LIVE_PHASES,
    Command,
    Commanded,
    Drained,
    Event,
    Exited,
    Gate,
    Kill,
    Phase,
    Probed,
    Progressed,
    Record,
    Spawned,
    SpawnFailed,
    Stage,
    Tick,
    Verb,
)
from tests.unit.supervision.histories import POLICY, SPEC, Broken, OneComponent

HISTORIES = 2000


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
