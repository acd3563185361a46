"""Which silence is a fault: busy processes, slow answers, probes that fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmlaunch.supervision.core.liveness import ProbeLimits
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import (
    Exited,
    Phase,
    Probed,
    Spawn,
    Terminate,
    Tick,
    Why,
)
from tests.unit.supervision.histories import READY, START, play, spec


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
        "unhealthy: busy, but no probe of /health has been answered for 50 s (no answer within 10 s)"
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
    assert ProbeLimits.of(spec(), policy) == ProbeLimits(5.0, 3, 300.0)
    assert ProbeLimits.of(spec(probe_timeout_s=60.0, probe_failures=5), policy) == ProbeLimits(60.0, 5, 620.0)


def test_a_start_that_takes_too_long_says_what_its_probe_came_to() -> None:
    record, commands = play(
        *START, (1.0, Probed(1, False, "connection refused")), (2.0, Probed(1, False, "status 503"))
    )
    assert (record.phase, commands) == (Phase.STARTING, [Spawn(1)])
    record, _ = play((8.1, Tick()), record=record)
    assert record.cause.text == ("not ready, and no progress for 8 s; last probe of /health: status 503")
    record, _ = play((9.0, Exited(1, -15)), (11.0, Tick()), (11.0, Tick()), record=record)
    assert (record.phase, record.last_probe) == (Phase.STARTING, ""), "the next life has said nothing yet"
