"""Wrong keys by the thousand, from one address and from many."""

from __future__ import annotations

from llmlaunch.gateway.limits.failed_keys import (
    ADDRESSES,
    DELAYED_MOST,
    DELAYED_PER_ADDRESS,
    FREE,
    LINES_MOST,
    LOG_EVERY_S,
    FailedKeys,
    WrongKeyAction,
)


def test_a_few_wrong_keys_are_answered_at_once_and_many_wait() -> None:
    noise = FailedKeys()
    actions = [noise.record("10.0.0.7", 0.0)[0] for _ in range(1000)]
    assert actions.count(WrongKeyAction.ANSWER) == FREE
    assert actions.count(WrongKeyAction.DELAY) == DELAYED_PER_ADDRESS
    assert actions[-1] is WrongKeyAction.CLOSE
    assert noise.record("10.0.0.8", 0.0)[0] is WrongKeyAction.ANSWER, "nobody else's trouble"
    for _ in range(DELAYED_PER_ADDRESS):
        noise.release("10.0.0.7")
    assert noise.record("10.0.0.7", 0.0) == (WrongKeyAction.DELAY, "10.0.0.7")
    noise.release("10.0.0.7")
    assert noise.record("10.0.0.7", 60.0)[0] is WrongKeyAction.ANSWER


def test_what_is_held_in_all_is_bounded() -> None:
    noise = FailedKeys()
    actions = [
        noise.record(f"10.0.0.{n}", 0.0)[0] for n in range(100) for _ in range(FREE + DELAYED_PER_ADDRESS)
    ]
    assert actions.count(WrongKeyAction.DELAY) == DELAYED_MOST


def test_an_ipv6_client_has_a_network_of_addresses() -> None:
    noise = FailedKeys()
    for n in range(FREE):
        assert noise.record(f"fd00::{n:x}", 0.0)[0] is WrongKeyAction.ANSWER
    assert noise.record("fd00::ffff", 0.0) == (WrongKeyAction.DELAY, "fd00::/64")
    assert noise.record("fd00:0:0:1::1", 0.0)[0] is WrongKeyAction.ANSWER
    noise.release("fd00::/64")


def test_the_log_gets_a_line_a_while_with_the_number() -> None:
    noise = FailedKeys()
    assert list(noise.lines(0.0)) == []
    for _ in range(FREE):
        noise.record("10.0.0.7", 0.0)
    assert list(noise.lines(0.0)) == []
    for second in range(180):
        for _ in range(1000):
            if noise.record("10.0.0.7", float(second))[0] is WrongKeyAction.DELAY:
                noise.release("10.0.0.7")
        lines = list(noise.lines(second + 0.5))
        assert bool(lines) == (second % int(LOG_EVERY_S) == 0), second
        if lines and second:
            assert lines[0].startswith("599")
            assert "10.0.0.7" in lines[0]


def test_a_flood_from_everywhere_fills_neither_memory_nor_the_log() -> None:
    noise = FailedKeys()
    for n in range(3 * ADDRESSES):
        for _ in range(FREE + 1):
            noise.record(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 0.0)
    assert len(noise._sources) == ADDRESSES + 1
    lines = list(noise.lines(1.0))
    assert len(lines) == LINES_MOST + 1
    assert f"{ADDRESSES + 1 - LINES_MOST} further addresses" in lines[-1]


def test_who_has_been_quiet_is_forgotten() -> None:
    noise = FailedKeys()
    noise.record("10.0.0.7", 0.0)
    list(noise.lines(1.0))
    assert noise._sources
    list(noise.lines(10.0))
    assert not noise._sources
