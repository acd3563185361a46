"""Histories of silence: who is asked, who is given up, and who is only slow."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.payload.model_field import asks_for_stream
from llmlaunch.gateway.routing.health.silence import (
    AGAIN_S,
    ALONE,
    BYTES_PER_S,
    DOUBT,
    SILENCE_S,
    SILENCE_UNKNOWN_S,
    WHOLE_S,
    AwaitedResponse,
    ReplicaSilence,
    SilenceVerdict,
    limit_s,
)
from llmlaunch.gateway.routing.route_table import RoutedReplica

VLLM = RoutedReplica(key="a", host="h", port=1, names=("m",), engine="vllm", max_concurrency=64)
COMMAND = RoutedReplica(key="b", host="h", port=2, names=("m",), engine="command")
QUICK = replace(COMMAND, request_timeout_s=2.0)
STREAM, WHOLE = AwaitedResponse(0.0, 0, speaks=True), AwaitedResponse(0.0, 0, speaks=False)


def limit(
    *waiting: AwaitedResponse, replica: RoutedReplica = VLLM, alone: bool = False, processes: int = 1
) -> float:
    return limit_s(waiting, replica, alone=alone, processes=processes)


def test_a_known_engine_has_less_time_than_one_that_is_not() -> None:
    assert limit(STREAM) == SILENCE_S
    assert limit(STREAM, replica=COMMAND) == SILENCE_UNKNOWN_S


def test_reading_long_prompts_takes_time_also_from_those_that_are_at_work() -> None:
    long = AwaitedResponse(0.0, 20_000, speaks=True)
    assert limit(long) == limit(STREAM, long) == SILENCE_S + 20_000 / BYTES_PER_S
    assert limit(replace(long, size=10_000_000)) == WHOLE_S


@pytest.mark.parametrize(
    ("requests", "cap", "engine", "processes", "certain"),
    [
        (1, 64, "vllm", 1, True), (8, 64, "vllm", 1, True), (9, 64, "vllm", 1, False), (1, 1, "vllm", 1, False),
        (1, 2, "vllm", 1, True), (3, 4, "llamacpp", 1, True), (4, 4, "llamacpp", 1, False), (1, 64, "vllm", 2, False),
    ],
)  # fmt: skip
def test_whole_answers_may_take_long_unless_our_question_has_a_slot_beside_them(
    requests: int, cap: int, engine: str, processes: int, certain: bool
) -> None:
    found = replace(VLLM, max_concurrency=cap, engine=engine)
    expected = SILENCE_S if certain else WHOLE_S
    assert limit(*[WHOLE] * requests, replica=found, processes=processes) == expected
    # A stream among them must go on in any case.
    assert limit(*[WHOLE] * requests, STREAM, replica=found, processes=processes) == SILENCE_S
    assert limit(WHOLE, replica=replace(found, max_concurrency=None)) == WHOLE_S


def test_who_is_alone_has_more_time() -> None:
    assert limit(STREAM, alone=True) == ALONE * SILENCE_S
    assert limit(STREAM, replica=COMMAND, alone=True) == WHOLE_S


def test_what_the_manifest_says_holds_as_it_is() -> None:
    for waiting in (STREAM, WHOLE, AwaitedResponse(0.0, 10**6, speaks=False)):
        assert limit(waiting, replica=QUICK) == limit(waiting, replica=QUICK, alone=True) == 2.0


@dataclass
class History:
    """One replica over time, looked at once a second."""

    replica: RoutedReplica = VLLM
    watch: ReplicaSilence = field(default_factory=ReplicaSilence)
    now: float = 0.0
    seen: list[tuple[float, SilenceVerdict]] = field(default_factory=list)

    def until(self, end: float, *waiting: AwaitedResponse) -> History:
        while self.now < end:
            self.now += 1
            verdict = self.watch.judge(waiting, self.replica, self.now, alone=False)
            if verdict is not SilenceVerdict.FINE:
                self.seen.append((self.now, verdict))
        return self


def test_a_frozen_engine_is_asked_first_and_given_up_when_it_does_not_answer() -> None:
    found = History().until(SILENCE_S - 1, STREAM)
    assert found.seen == [(DOUBT * SILENCE_S, SilenceVerdict.PROBE)]
    doubts = [found.watch.doubted]
    found.until(SILENCE_S, STREAM)
    assert found.seen[1:] == [(SILENCE_S, SilenceVerdict.SILENT)]
    assert found.watch.silent
    # Nobody is there any more; it is asked now and then, until it answers.
    found.until(SILENCE_S + 2 * AGAIN_S)
    assert [verdict for _, verdict in found.seen[2:]] == [SilenceVerdict.PROBE, SilenceVerdict.PROBE]
    found.watch.heard(found.now)
    doubts.append(found.watch.doubted)
    assert doubts == [True, False]
    assert found.until(found.now + 1000).seen[4:] == []


def test_one_that_answers_the_question_is_only_slow() -> None:
    found = History()
    for _ in range(20):
        found.until(found.now + DOUBT * SILENCE_S, STREAM)
        assert found.watch.doubted
        found.watch.heard(found.now)  # the question's answer
        assert not found.watch.doubted
    assert {verdict for _, verdict in found.seen} == {SilenceVerdict.PROBE}


def test_one_that_speaks_to_anybody_is_not_even_asked() -> None:
    found = History()
    for _ in range(1000):
        found.until(found.now + 1, STREAM, WHOLE)
        found.watch.heard(found.now)
    assert found.seen == []


def test_silence_without_requests_is_none() -> None:
    found = History().until(1000)
    found.until(1000 + DOUBT * SILENCE_S - 1, AwaitedResponse(1000.0, 0, speaks=True))
    assert found.seen == []


def test_a_doubt_ends_with_the_requests_that_raised_it() -> None:
    found = History().until(20, STREAM)
    assert found.watch.doubted
    found.until(21)
    assert not found.watch.doubted


def test_a_question_that_was_lost_is_asked_again_and_has_its_time() -> None:
    found = History().until(15, STREAM)
    found.watch.probe_lost()
    found.until(16, STREAM)
    assert found.seen == [(15.0, SilenceVerdict.PROBE), (16.0, SilenceVerdict.PROBE)]
    found.watch.probe_lost()
    found.now = SILENCE_S
    found.until(SILENCE_S + 1, STREAM)
    assert found.seen[-1] == (SILENCE_S + 1, SilenceVerdict.PROBE)
    found.until(SILENCE_S + DOUBT * SILENCE_S, STREAM)
    assert {verdict for _, verdict in found.seen} == {SilenceVerdict.PROBE}
    found.until(SILENCE_S + DOUBT * SILENCE_S + 1, STREAM)
    assert found.seen[-1] == (SILENCE_S + DOUBT * SILENCE_S + 1, SilenceVerdict.SILENT)


@given(
    st.lists(
        st.tuples(st.sampled_from(["second", "heard", "lost", "empty"]), st.integers(1, 30)), max_size=40
    )
)
def test_nobody_is_given_up_without_a_question_and_a_whole_limit_of_silence(
    history: list[tuple[str, int]],
) -> None:
    found = History()
    heard, asked = 0.0, None
    for what, count in history:
        if what == "heard":
            found.watch.heard(found.now)
            heard, asked = found.now, None
        elif what == "lost" and not found.watch.silent:
            found.watch.probe_lost()
            asked = None
        elif what == "empty":
            found.watch.judge((), found.replica, found.now, alone=False)
            if not found.watch.silent:
                asked = None
        for _ in range(count if what == "second" else 0):
            was_silent = found.watch.silent
            found.now += 1
            verdict = found.watch.judge((STREAM,), found.replica, found.now, alone=False)
            if verdict is SilenceVerdict.SILENT:
                assert asked is not None
                assert found.now - heard >= SILENCE_S
                assert found.now - asked >= DOUBT * SILENCE_S
            elif verdict is SilenceVerdict.PROBE and not was_silent:
                asked = found.now


@pytest.mark.parametrize(
    ("body", "streams"),
    [
        (b'{"stream": true}', True), (b'{"stream":true,"x":1}', True), (b'{"a":"\\"stream\\"","stream" : \n true}', True),
        (b'{"stream": false}', False), (b'{"stream_options": {}}', False), (b'{"stream": "true"}', False), (b"", False),
        (b'{"stream": truely}', False), (b'"stream"', False),
    ],
)  # fmt: skip
def test_whether_a_stream_was_asked_for_is_seen_in_the_bytes(body: bytes, streams: bool) -> None:
    assert asks_for_stream(body) is streams
