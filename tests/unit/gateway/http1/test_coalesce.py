"""When events of streams are waited for, against a clock and a loop that are made up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.http1.coalesce import GATHER_S, SHORTEST_LOOK_S, TURNS, WORTH, Coalescer

FAST = 2 * WORTH / GATHER_S
"""Events a second that are worth it."""


class Loop:
    """Events come at a rate; each takes a while; every turn runs what was called for, then looks for events."""

    def __init__(self, work_s: float = 10e-6) -> None:
        self.time = 100.0
        self.slept: list[float] = []
        self.soon: deque[Callable[[], None]] = deque()
        self.coalescer = Coalescer(self.soon.append, lambda: self.time, self._sleep)
        self.found: list[int] = []
        self._work_s = work_s
        self._due = 0.0
        self._seen = self.time

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.time += seconds

    def run(self, seconds: float, rate: float) -> None:
        end = self.time + seconds
        while self.time < end:
            for _ in range(len(self.soon)):
                self.soon.popleft()()
            self._due += (self.time - self._seen) * rate
            self._seen = self.time
            if self._due < 1 and not self.soon:  # nothing to do: the loop waits for an event
                self.time = min(end, self.time + (1 - self._due) / rate + 1e-9 if rate else end)
                continue
            count, self._due = int(self._due), self._due % 1
            self.found.append(count)
            self.coalescer.passed += count
            self.time += 1e-6 + count * self._work_s


def test_few_events_never_wait() -> None:
    loop = Loop()
    for _ in range(50):
        loop.run(0.02, rate=0.8 * WORTH / GATHER_S)
        loop.coalescer.look()
    assert not loop.slept


def test_many_events_are_taken_up_together() -> None:
    loop = Loop()
    loop.run(0.02, FAST)
    assert set(loop.found) == {1}
    loop.coalescer.look()
    loop.found.clear()
    loop.run(0.02, FAST)
    assert max(loop.slept) <= GATHER_S + 1e-9
    assert sum(loop.found) / len(loop.found) > WORTH


def test_it_ends_soon_after_the_events_did() -> None:
    loop = Loop()
    loop.run(0.02, FAST)
    loop.coalescer.look()
    loop.run(0.02, FAST)
    assert loop.soon
    loop.slept.clear()
    loop.run(1.0, rate=0)
    assert not loop.soon
    assert sum(loop.slept) <= 2 * TURNS * GATHER_S
    loop.coalescer.look()
    loop.run(0.02, FAST)
    loop.coalescer.look()
    assert loop.soon, "it begins again"


def test_a_busy_loop_does_not_sleep() -> None:
    loop = Loop(work_s=1.05 / FAST)
    loop.run(0.05, FAST)
    loop.coalescer.look()
    loop.run(0.05, FAST)
    loop.slept.clear()
    loop.run(0.05, FAST)
    assert not loop.slept
    assert loop.soon


def test_a_moment_tells_no_rate() -> None:
    loop = Loop()
    loop.coalescer.passed = 1000
    loop.time += SHORTEST_LOOK_S / 2
    loop.coalescer.look()
    assert not loop.soon
    assert loop.coalescer.passed == 1000


@given(
    st.lists(
        st.tuples(st.floats(0.001, 0.05), st.floats(0, 50_000), st.floats(1e-6, 1e-4), st.booleans()),
        max_size=20,
    )
)
def test_no_event_waits_longer_than_promised(story: list[tuple[float, float, float, bool]]) -> None:
    loop = Loop()
    for seconds, rate, work_s, look in story:
        loop._work_s = work_s
        loop.run(seconds, rate)
        if look:
            loop.coalescer.look()
        assert len(loop.soon) <= 1
    assert all(seconds <= GATHER_S + 1e-9 for seconds in loop.slept)
    loop.run(1.0, rate=0)
    assert not loop.soon
