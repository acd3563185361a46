"""Packed bodies: what becomes of them, and that they cannot grow beyond what is taken from them."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.common.content_coding import PIECE_BYTES, BadCodingError, coding_of, supported, unpack

TEXT = b'{"model": "m"}' * 40_000


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "several members": ("gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "deflate without its wrapper": ("deflate", raw_deflate(TEXT)),
}


@pytest.mark.parametrize("name", PACKED)
def test_what_was_packed_is_unpacked_in_small_pieces(name: str) -> None:
    coding, body = PACKED[name]
    pieces = list(unpack(body, coding))
    assert b"".join(pieces) == TEXT
    assert max(map(len, pieces)) <= PIECE_BYTES


@pytest.mark.parametrize("name", PACKED)
@given(cut=st.floats(0, 0.99), junk=st.binary(min_size=1, max_size=20))
def test_a_damaged_body_is_an_error(name: str, cut: float, junk: bytes) -> None:
    coding, body = PACKED[name]
    if name != "several members":  # each of them is a body of its own
        with pytest.raises(BadCodingError):
            list(unpack(body[: int(len(body) * cut)], coding))
    with pytest.raises(BadCodingError):
        list(unpack(b"\xff\xff" + junk, coding))


def test_a_bomb_is_unpacked_only_as_far_as_somebody_takes_it() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    pieces = unpack(bomb, "gzip")
    assert len(next(pieces)) == PIECE_BYTES
    pieces.close()  # type: ignore[attr-defined]


def test_zstd_is_unpacked_where_it_can_be() -> None:
    if "zstd" not in supported():
        assert coding_of("zstd") is None
        return
    zstandard = pytest.importorskip("zstandard")
    body = zstandard.ZstdCompressor().compress(TEXT)
    assert b"".join(unpack(body + body, "zstd")) == TEXT + TEXT
    assert (
        len(next(iter(unpack(zstandard.ZstdCompressor().compress(bytes(64 << 20)), "zstd")))) == PIECE_BYTES
    )
    for damaged in (b"", b"junk" * 5):
        with pytest.raises(BadCodingError):
            list(unpack(damaged, "zstd"))


@pytest.mark.parametrize(
    ("field", "coding"),
    [("", ""), ("identity", ""), ("GZIP", "gzip"), (" x-gzip ", "gzip"), ("deflate", "deflate"), ("br", None),
     ("gzip, gzip", None), ("x", None)],
)  # fmt: skip
def test_the_coding_that_a_field_names(field: str, coding: str | None) -> None:
    assert coding_of(field) == coding
