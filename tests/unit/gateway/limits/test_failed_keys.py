"""Wrong keys by the thousand, from one address and from many."""

from __future__ import annotations

from llmlaunch.gateway.limits.failed_keys import (
    ADDRESSES,
    FREE,
    HELD_ALL,
    HELD_EACH,
    LINES,
    TELL_S,
    FailedKeys,
    KeyVerdict,
)


def test_a_few_wrong_keys_are_answered_at_once_and_many_wait() -> None:
    noise = FailedKeys()
    verdicts = [noise.strike("10.0.0.7", 0.0)[0] for _ in range(1000)]
    assert verdicts.count(KeyVerdict.ANSWER) == FREE
    assert verdicts.count(KeyVerdict.HOLD) == HELD_EACH
    assert verdicts[-1] is KeyVerdict.CLOSE
    assert noise.strike("10.0.0.8", 0.0)[0] is KeyVerdict.ANSWER, "nobody else's trouble"
    for _ in range(HELD_EACH):
        noise.release("10.0.0.7")
    assert noise.strike("10.0.0.7", 0.0) == (KeyVerdict.HOLD, "10.0.0.7")
    noise.release("10.0.0.7")
    assert noise.strike("10.0.0.7", 60.0)[0] is KeyVerdict.ANSWER


def test_what_is_held_in_all_is_bounded() -> None:
    noise = FailedKeys()
    verdicts = [noise.strike(f"10.0.0.{n}", 0.0)[0] for n in range(100) for _ in range(FREE + HELD_EACH)]
    assert verdicts.count(KeyVerdict.HOLD) == HELD_ALL


def test_an_ipv6_client_has_a_network_of_addresses() -> None:
    noise = FailedKeys()
    for n in range(FREE):
        assert noise.strike(f"fd00::{n:x}", 0.0)[0] is KeyVerdict.ANSWER
    assert noise.strike("fd00::ffff", 0.0) == (KeyVerdict.HOLD, "fd00::/64")
    assert noise.strike("fd00:0:0:1::1", 0.0)[0] is KeyVerdict.ANSWER
    noise.release("fd00::/64")


def test_the_log_gets_a_line_a_while_with_the_number() -> None:
    noise = FailedKeys()
    assert list(noise.lines(0.0)) == []
    for _ in range(FREE):
        noise.strike("10.0.0.7", 0.0)
    assert list(noise.lines(0.0)) == []
    for second in range(180):
        for _ in range(1000):
            if noise.strike("10.0.0.7", float(second))[0] is KeyVerdict.HOLD:
                noise.release("10.0.0.7")
        lines = list(noise.lines(second + 0.5))
        assert bool(lines) == (second % int(TELL_S) == 0), second
        if lines and second:
            assert lines[0].startswith("599")
            assert "10.0.0.7" in lines[0]


def test_a_flood_from_everywhere_fills_neither_memory_nor_the_log() -> None:
    noise = FailedKeys()
    for n in range(3 * ADDRESSES):
        for _ in range(FREE + 1):
            noise.strike(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 0.0)
    assert len(noise._sources) == ADDRESSES + 1
    lines = list(noise.lines(1.0))
    assert len(lines) == LINES + 1
    assert f"{ADDRESSES + 1 - LINES} further addresses" in lines[-1]


def test_who_has_been_quiet_is_forgotten() -> None:
    noise = FailedKeys()
    noise.strike("10.0.0.7", 0.0)
    list(noise.lines(1.0))
    assert noise._sources
    list(noise.lines(10.0))
    assert not noise._sources
