"""Packed bodies: what becomes of them, and that they cannot grow beyond what is taken from them."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.common import content_coding
from llmlaunch.common.content_coding import (
    FREE_BYTES,
    MAX_FRAMES,
    MAX_RATIO,
    PIECE_BYTES,
    BadCodingError,
    BombError,
    coding_of,
    unpack,
)

TEXT = b'{"model": "m"}' * 40_000
RANDOM = random.Random(0).randbytes(600_000)
"""What does not shrink: the decompressor gets more input than one piece of output needs."""
zstd = content_coding._zstd()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": ("gzip", gzip.compress(TEXT), TEXT),
    "gzip of what does not shrink": ("gzip", gzip.compress(RANDOM), RANDOM),
    "several members": ("gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:]), TEXT),
    "deflate": ("deflate", zlib.compress(TEXT), TEXT),
    "deflate without its wrapper": ("deflate", raw_deflate(TEXT), TEXT),
    "zstd": ("zstd", zstd.compress(TEXT), TEXT),
    "zstd of what does not shrink": ("zstd", zstd.compress(RANDOM), RANDOM),
    "several frames": ("zstd", zstd.compress(RANDOM) + zstd.compress(TEXT), RANDOM + TEXT),
    "a frame to skip": ("zstd", b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + zstd.compress(TEXT), TEXT),
}
SEVERAL = {"several members", "several frames", "a frame to skip"}


@pytest.mark.parametrize("name", PACKED)
def test_what_was_packed_is_unpacked_in_small_pieces(name: str) -> None:
    coding, body, text = PACKED[name]
    pieces = list(unpack(body, coding))
    assert b"".join(pieces) == text
    assert max(map(len, pieces)) <= PIECE_BYTES


@pytest.mark.parametrize("name", PACKED)
@given(cut=st.floats(0, 0.99), junk=st.binary(min_size=1, max_size=20))
def test_a_damaged_body_is_an_error(name: str, cut: float, junk: bytes) -> None:
    coding, body, _ = PACKED[name]
    if name not in SEVERAL:  # each of them is a body of its own
        with pytest.raises(BadCodingError):
            list(unpack(body[: int(len(body) * cut)], coding))
    with pytest.raises(BadCodingError):
        list(unpack(b"\xff\xff" + junk, coding))


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_junk_after_a_body_is_an_error(name: str) -> None:
    coding, body, _ = PACKED[name]
    with pytest.raises(BadCodingError):
        list(unpack(body + b"\xff\xffjunk", coding))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_unpacked_only_as_far_as_somebody_takes_it_and_its_size_allows(coding: str) -> None:
    zeros = bytes(64 << 20)
    bomb = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}[coding](zeros)
    pieces = unpack(bomb, coding)
    assert len(next(pieces)) <= PIECE_BYTES
    taken: list[int] = []
    with pytest.raises(BombError, match=f"{MAX_RATIO} times"):
        taken.extend(map(len, pieces))
    assert sum(taken) <= max(FREE_BYTES, MAX_RATIO * len(bomb))


def test_a_short_body_may_repeat_one_word() -> None:
    text = b"word " * (FREE_BYTES // 5)
    assert b"".join(unpack(zstd.compress(text), "zstd")) == text


@pytest.mark.parametrize("empty", [gzip.compress(b""), zstd.compress(b"")], ids=["gzip", "zstd"])
def test_a_body_of_countless_empty_parts_is_refused(empty: bytes) -> None:
    coding = "gzip" if empty.startswith(b"\x1f") else "zstd"
    assert not b"".join(unpack(empty * MAX_FRAMES, coding))
    with pytest.raises(BadCodingError, match=f"{MAX_FRAMES} parts"):
        list(unpack(empty * 100 * MAX_FRAMES, coding))


def test_a_window_that_takes_much_memory_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    with pytest.raises(BadCodingError):
        list(unpack(packer.compress(TEXT) + packer.flush(), "zstd"))


@pytest.mark.parametrize(
    ("field", "coding"),
    [("", ""), ("identity", ""), ("GZIP", "gzip"), (" x-gzip ", "gzip"), ("deflate", "deflate"), ("zstd", "zstd"),
     ("br", None), ("gzip, gzip", None), ("x", None)],
)  # fmt: skip
def test_the_coding_that_a_field_names(field: str, coding: str | None) -> None:
    assert coding_of(field) == coding


def test_a_start_imports_no_zstd() -> None:
    code = (
        "import sys, llmlaunch.cli.app, llmlaunch.gateway.app; print([n for n in sys.modules if 'zstd' in n])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
