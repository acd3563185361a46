"""Bytes of a log become lines on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.cli.display.log_tail import LINE_BYTES, Lines


def test_a_reader_takes_little_memory_whatever_the_size_of_a_log() -> None:
    """Lines that never end are cut, and nothing else is kept."""
    lines = Lines()
    found = [part for _ in range(64) for part in lines.of(b"x" * (LINE_BYTES // 16))]
    assert [len(part) for part in found] == [LINE_BYTES + LINE_BYTES // 16] * 3
    assert lines.of(b"\r" * 4 * LINE_BYTES) == [b"x" * (13 * LINE_BYTES // 16)]
    assert lines.last() == []


@pytest.mark.parametrize("raw", [False, True])
def test_what_carriage_returns_overwrite_is_shown(raw: bool) -> None:
    lines = Lines(raw)
    pieces = [b"one\r", b"\ntwo: fail", b"ed\rtwo: fine\n\r10%", b"\r20%\r", b"\n\r\r\n\nend\r"]
    found = [line for piece in pieces for line in lines.of(piece)] + lines.last()
    if raw:
        assert b"\n".join(found) == b"".join(pieces)
    else:
        assert found == [b"one", b"two: failed", b"two: fine", b"10%", b"20%", b"", b"", b"end"]


@given(st.lists(st.binary(max_size=20)))
def test_lines_do_not_depend_on_how_the_bytes_come(pieces: list[bytes]) -> None:
    def split(pieces: list[bytes], raw: bool) -> list[bytes]:
        lines = Lines(raw)
        return [line for piece in pieces for line in lines.of(piece)] + lines.last()

    whole = b"".join(pieces)
    assert split(pieces, False) == split([whole], False)
    assert not [line for line in split(pieces, False) if b"\r" in line or b"\n" in line]
    assert b"\n".join(split(pieces, True)) == whole.removesuffix(b"\n")
