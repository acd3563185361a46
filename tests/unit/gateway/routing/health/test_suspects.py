"""Histories of deaths: who is tried where, who is refused, and who never hears of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmlaunch.gateway.routing.health.suspects import (
    REFUSED_MOST_S,
    REFUSED_S,
    SUSPECTED_S,
    SUSPECTS_MOST,
    TRIAL_MOST_S,
    WAIT_FOR_EQUAL_S,
    WAIT_LEAST_S,
    WAIT_MOST_S,
    Suspects,
    key_of,
)

A, B, C = "a", "b", "c"
P, Q, R = key_of(b"poison"), key_of(b"innocent"), key_of(b"another")


def test_a_request_with_which_one_replica_died_is_tried_once_more_and_then_refused() -> None:
    known = Suspects()
    assert known.record_death(P, 6, A, sent_at=0.0, now=0.1) == 0
    assert not known.is_free(P)
    assert known.refused_for_s(P, 0.2) == 0
    known.trial_began(P, B, 0.2)
    assert known.record_death(P, 6, B, sent_at=0.2, now=0.3) == REFUSED_S
    known.trial_ended(P, B)
    assert known.refused_for_s(P, 100.3) == REFUSED_S - 100


def test_it_is_known_by_its_bytes_and_no_other_body_is_even_digested() -> None:
    known = Suspects()
    assert known.key_if_suspected(b"poison") == b""
    known.record_death(P, 6, A, 0.0, 0.1)
    assert known.key_if_suspected(b"poison") == P
    assert known.key_if_suspected(b"prison") == b""
    assert known.sizes == {6}


def test_a_whole_answer_clears_the_bytes_and_a_first_byte_does_not() -> None:
    known = Suspects()
    known.record_death(P, 6, A, 0.0, 0.1)
    known.trial_began(P, B, 0.2)
    known.answer_began(P)
    assert known.is_free(P)
    assert known.record_death(P, 6, B, 0.2, 0.9) == REFUSED_S  # it kills in the middle of its answer
    known = Suspects()
    known.record_death(P, 6, A, 0.0, 0.1)
    known.clear(P)
    assert (len(known), known.sizes) == (0, frozenset())
    assert known.record_death(P, 6, B, 0.2, 0.9) == 0


def test_a_death_counts_once_however_many_equal_requests_it_hit() -> None:
    known = Suspects()
    for _ in range(5):
        assert known.record_death(P, 6, A, sent_at=0.0, now=0.1) == 0
    # The same replica, up again, and a request that was sent since.
    assert known.record_death(P, 6, A, sent_at=3.0, now=3.1) == REFUSED_S


def test_the_refused_get_one_more_chance_later_and_are_refused_for_longer_each_time() -> None:
    known, now, terms = Suspects(), 0.0, []
    known.record_death(P, 6, A, now, now)
    for _ in range(6):
        now += 1
        assert known.refused_for_s(P, now) == 0
        terms.append(known.record_death(P, 6, A, now, now))
        assert known.refused_for_s(P, now + 1) > 0
        now += terms[-1]
    assert terms[:3] == [REFUSED_S, 2 * REFUSED_S, 4 * REFUSED_S]
    assert terms[-1] == REFUSED_MOST_S


def test_suspects_of_one_death_are_tried_on_different_replicas() -> None:
    known = Suspects()
    for key in (P, Q, R):
        known.record_death(key, 6, A, 0.0, 0.1)
    assert known.avoided(P, 0.0, 0.1) == frozenset()
    known.trial_began(P, B, 0.1)
    assert known.avoided(Q, 0.0, 0.1) == frozenset({B})
    known.trial_began(Q, C, 0.1)
    assert known.avoided(R, 0.0, 0.1) == frozenset({B, C})
    known.answer_began(Q)
    assert known.avoided(R, 0.0, 0.2) == frozenset({B})
    known.trial_ended(P, B)
    assert known.avoided(R, 0.0, 0.2) == frozenset()


def test_a_trial_is_over_when_the_suspect_has_lived_longer_than_the_first_replica_did() -> None:
    known = Suspects()
    known.record_death(P, 6, A, sent_at=0.0, now=1.0)
    known.record_death(Q, 6, A, sent_at=0.0, now=1.0)
    known.trial_began(P, B, 2.0)
    assert known.avoided(Q, 0.0, 3.4) == frozenset({B})
    assert known.avoided(Q, 0.0, 3.6) == frozenset()
    known.record_death(R, 6, C, sent_at=-100.0, now=1.0)
    known.trial_began(R, C, 4.0)
    assert known.avoided(Q, 0.0, 4.0 + TRIAL_MOST_S) == frozenset()


@pytest.mark.parametrize(("age", "longest"), [(0.1, WAIT_LEAST_S), (2.0, 4.0), (90.0, WAIT_MOST_S)])
def test_nobody_waits_much_longer_than_it_had_been_with_the_dead(age: float, longest: float) -> None:
    known = Suspects()
    known.record_death(P, 6, A, 100 - age, 100)
    known.record_death(Q, 6, A, 100 - age, 100)
    known.trial_began(P, B, 101)
    assert known.avoided(Q, longest - 0.1, 101) == frozenset({B})
    assert known.avoided(Q, longest, 101) == frozenset()


def test_equal_bytes_wait_for_the_first_of_them() -> None:
    known = Suspects()
    known.record_death(P, 6, A, 0.0, 0.1)
    known.trial_began(P, B, 0.1)
    assert known.avoided(P, 10.0, 10.0) is None
    assert known.avoided(P, WAIT_FOR_EQUAL_S, 40.0) == frozenset()
    known.answer_began(P)
    assert known.avoided(P, 0.0, 10.0) == frozenset()


@pytest.mark.parametrize("bystander_first", [True, False])
def test_the_second_death_clears_all_who_were_not_at_both(bystander_first: bool) -> None:
    known = Suspects()
    for key in (P, Q):
        known.record_death(key, 6, A, 0.0, 0.1)
    known.trial_began(P, B, 0.2)
    if bystander_first:
        known.record_death(R, 6, B, 0.15, 0.3)
    assert known.record_death(P, 6, B, 0.2, 0.3) > 0
    if not bystander_first:
        assert known.record_death(R, 6, B, 0.15, 0.301) == 0
    assert known.is_free(Q)
    assert known.is_free(R)
    assert len(known) == 1
    # What is sent to it once it is back can be a suspect again.
    known.record_death(R, 6, B, 5.0, 5.1)
    assert not known.is_free(R)


@pytest.mark.parametrize("order", [(P, Q), (Q, P)])
def test_of_two_that_were_at_both_deaths_neither_gets_to_a_third_replica(order: tuple[bytes, bytes]) -> None:
    known = Suspects()
    for key in (P, Q):
        known.record_death(key, 6, A, 0.0, 0.1)
        known.trial_began(key, B, 0.2)  # they had waited long enough
    for key in order:
        assert known.record_death(key, 6, B, 0.2, 0.3) > 0


def test_what_is_old_is_forgotten_and_there_is_a_bound() -> None:
    known = Suspects()
    known.record_death(P, 6, A, 0.0, 0.0)
    known.record_death(P, 6, A, 1.0, 1.0)
    for number in range(SUSPECTS_MOST + 10):
        known.record_death(key_of(str(number).encode()), number, A, 2.0, 2.0)
    assert len(known) == SUSPECTS_MOST
    assert known.refused_for_s(P, 3.0) > 0  # who is refused is forgotten last
    known.expire(2.0 + SUSPECTED_S)
    assert len(known) == 1
    known.expire(1.0 + REFUSED_S + SUSPECTED_S)
    assert (len(known), known.sizes) == (0, frozenset())


def test_other_replicas_make_their_own_experience() -> None:
    known = Suspects()
    known.note_replicas((A, B))
    known.record_death(P, 6, A, 0.0, 0.1)
    known.record_death(P, 6, B, 0.2, 0.3)
    known.replicas_changed(())  # all of them are starting again
    known.replicas_changed((B,))
    known.replicas_changed((B, C))
    assert known.refused_for_s(P, 1.0) > 0
    known.replicas_changed((C,))
    assert known.refused_for_s(P, 1.0) == 0


# -- a whole crowd


@dataclass
class Crowd:
    """Replicas that die of one request, some time after they got it, and gateways' way with the rest, at even steps."""

    kills_after: float
    answers_after: float
    replicas: list[str]
    known: Suspects = field(default_factory=Suspects)
    now: float = 0.0
    running: dict[bytes, tuple[str, float]] = field(default_factory=dict)
    waiting: dict[bytes, float] = field(default_factory=dict)
    answered: set[bytes] = field(default_factory=set)
    refused: set[bytes] = field(default_factory=set)
    deaths: int = 0

    def die(self, replica: str, draw: random.Random) -> None:
        self.deaths += 1
        self.replicas.remove(replica)
        victims = [(key, at) for key, (on, at) in self.running.items() if on == replica]
        draw.shuffle(victims)
        for key, at in victims:
            refused = self.known.record_death(key, 6, replica, at, self.now)
            del self.running[key]
            self.known.trial_ended(key, replica)
            if refused:
                self.refused.add(key)
            else:
                self.waiting[key] = self.now

    def step(self, draw: random.Random) -> None:
        self.now += 0.01
        for key, (replica, at) in list(self.running.items()):
            if key not in self.running:
                continue
            if key == P and self.now - at >= self.kills_after:
                self.die(replica, draw)
            elif key != P and self.now - at >= self.answers_after:
                self.known.answer_began(key)
                self.known.clear(key)
                self.known.trial_ended(key, replica)
                del self.running[key]
                self.answered.add(key)
        for key in sorted(self.waiting, key=self.known.age):
            avoided = self.known.avoided(key, self.now - self.waiting[key], self.now)
            free = [] if avoided is None else [r for r in self.replicas if r not in avoided]
            if free and not self.known.refused_for_s(key, self.now):
                replica = draw.choice(free)
                self.known.trial_began(key, replica, self.now)
                self.running[key] = (replica, self.now)
                del self.waiting[key]


@given(
    st.integers(0, 10**6), st.integers(0, 40), st.integers(2, 5), st.floats(0.01, 0.4), st.floats(0.01, 0.3)
)
def test_one_request_that_kills_soon_takes_two_replicas_and_nobody_with_it(
    seed: int, innocents: int, replicas: int, kills_after: float, answers_after: float
) -> None:
    # As many as can be tried one after the other before anybody has waited long enough.
    assume(innocents * (answers_after + 0.03) < (WAIT_LEAST_S - 0.5) * replicas)
    draw = random.Random(seed)
    crowd = Crowd(kills_after, answers_after, [f"r{n}" for n in range(replicas + 1)])
    keys = [P, *(key_of(b"innocent %d" % n) for n in range(innocents))]
    # All of them came to the same replica, in the last moments before it died.
    crowd.running = {key: ("r0", -draw.uniform(0, answers_after)) for key in keys}
    crowd.running[P] = ("r0", -draw.uniform(0, kills_after))
    while (crowd.running or crowd.waiting) and crowd.now < 60:
        crowd.step(draw)
    assert crowd.deaths == 2
    assert crowd.refused == {P}
    assert crowd.answered == set(keys) - {P}
    assert crowd.now < 1 + WAIT_MOST_S + 2 * answers_after


@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0.01, 20.0))
def test_a_death_that_no_request_caused_costs_all_of_them_a_bounded_wait(
    seed: int, count: int, answers_after: float
) -> None:
    draw = random.Random(seed)
    crowd = Crowd(1e9, answers_after, ["r0", "r1"])
    keys = [key_of(b"innocent %d" % n) for n in range(count)]
    crowd.running = {key: ("r0", -draw.uniform(0, answers_after)) for key in keys}
    crowd.die("r0", draw)
    while (crowd.running or crowd.waiting) and crowd.now < 60:
        crowd.step(draw)
        assert not crowd.waiting or crowd.now <= WAIT_MOST_S + 0.02
    assert crowd.answered == set(keys)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 30), st.floats(0.5, 20.0), st.floats(0.01, 30.0))
def test_a_slow_killer_takes_no_third_replica_either(
    seed: int, innocents: int, kills_after: float, answers_after: float
) -> None:
    """Those that are with it when it kills again may be refused with it; nobody else is."""
    draw = random.Random(seed)
    crowd = Crowd(kills_after, answers_after, ["r0", "r1", "r2", "r3"])
    keys = [P, *(key_of(b"innocent %d" % n) for n in range(innocents))]
    crowd.running = {key: ("r0", -draw.uniform(0, answers_after)) for key in keys}
    crowd.running[P] = ("r0", -draw.uniform(0, kills_after))
    while (crowd.running or crowd.waiting) and crowd.now < 120:
        crowd.step(draw)
    assert crowd.deaths == 2
    assert P in crowd.refused
    assert crowd.answered == set(keys) - crowd.refused
