"""Lines of the access log, and that whoever reads them holds up nobody."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.observe.access_log import WAITING_MOST, AccessLog, line
from tests.support.waiting import wait_until

EMPTY: dict[str, Any] = {
    "at": 0.0, "request_id": b"", "trace_id": "", "client": "", "key": "", "method": b"GET", "path": "/p", "model": "", "replica": "",
    "status": 200, "tokens": None, "first_byte_s": None, "duration_s": 0.0, "attempts": 0,
}  # fmt: skip


@given(
    st.binary(max_size=20), st.text(max_size=20), st.text(max_size=300), st.none() | st.tuples(*[st.integers(0, 10**15)] * 2),
    st.none() | st.floats(0, 1e6), st.integers(0, 3),
)  # fmt: skip
def test_a_line_is_json_whatever_it_tells(
    request_id: bytes,
    key: str,
    model: str,
    tokens: tuple[int, int] | None,
    first: float | None,
    attempts: int,
) -> None:
    told = {"request_id": request_id, "key": key, "model": model, "tokens": tokens, "first_byte_s": first}
    text = line(**{**EMPTY, **told, "attempts": attempts})
    assert text.isascii()
    assert "\n" not in text
    value = json.loads(text)
    assert value["request_id"].encode("latin-1") == request_id
    assert (value.get("key", ""), value.get("model", "")) == (key, model[:200])
    assert (value.get("prompt_tokens"), value.get("completion_tokens")) == (tokens or (None, None))
    assert value.get("first_byte_s") == (None if first is None else pytest.approx(first, abs=1e-6))
    assert value.get("attempts", 0) == attempts


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1763712345.9996, "2025-11-21T08:05:45.999Z"),
        (1763712346, "2025-11-21T08:05:46.000Z"),
    ],
)
def test_times_are_told_to_the_millisecond(at: float, text: str) -> None:
    assert json.loads(line(**{**EMPTY, "at": at}))["time"] == text


# -- writing


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


def never() -> None:
    """Lines are flushed by hand here."""


def drain(descriptor: int, until: bytes) -> bytes:
    found = b""
    while not found.endswith(until):
        found += os.read(descriptor, 1 << 16)
    return found


def test_lines_are_written_together_and_in_order(pipe: tuple[int, int]) -> None:
    asked: list[int] = []
    log = AccessLog(pipe[1], lambda: asked.append(1))
    for n in range(3):
        log.add(str(n))
    assert asked == [1]
    log.flush()
    log.flush()
    assert drain(pipe[0], b"2\n") == b"0\n1\n2\n"
    log.add("last")
    log.close(5)
    assert drain(pipe[0], b"last\n") == b"last\n"
    assert asked == [1, 1]


def test_a_pipe_that_nobody_reads_holds_up_nobody(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    log = AccessLog(pipe[1], never)
    text = "x" * 999
    count = 2 * WAITING_MOST // 1000
    for n in range(count):
        log.add(f"{n:06d} {text}")
    log.flush()
    assert caplog.text.count("lines are dropped from here on") == 1
    log.add("a last one")  # nothing is taken on before what waits has gone
    log.close(0.01)
    assert "its last lines are dropped" in caplog.text
    numbers = [int(part[:6]) for part in os.read(pipe[0], 1 << 20).splitlines()[:-1]]
    assert numbers == list(range(len(numbers)))
    os.close(pipe[0])
    log.close(10)  # the thread ends before its descriptor is closed


def test_every_line_is_written_or_counted_as_lost(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    log = AccessLog(pipe[1], never)
    text, added = "x" * 9999, 0
    while "dropped from here on" not in caplog.text:
        log.add(text)
        added += 1
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(pipe[0], 1 << 16), b"")))
    reader.start()

    def taken_on() -> bool:
        nonlocal added
        log.add(text)
        added += 1
        log.flush()
        return "lines of the access log were dropped" in caplog.text

    wait_until(taken_on)
    log.close(10)
    os.close(pipe[1])
    reader.join(10)
    lost = [int(r.getMessage().split()[0]) for r in caplog.records if "lines of the access" in r.getMessage()]
    arrived = b"".join(got).splitlines()
    assert set(arrived) == {text.encode()}
    assert len(arrived) + sum(lost) == added


def test_a_reader_that_is_gone_is_told_once(pipe: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    os.close(pipe[0])
    log = AccessLog(pipe[1], never)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.add("x")
            log.flush()
        log.close(5)
    assert caplog.text.count("cannot write the access log") == 1


def test_a_file_gets_everything(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as stream:
        log = AccessLog(stream.fileno(), never)
        for n in range(20_000):
            log.add(str(n))
        log.close(10)
    assert [int(text) for text in file.read_text().split()] == list(range(20_000))
