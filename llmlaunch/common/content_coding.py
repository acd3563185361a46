"""Unpacks bodies with a Content-Encoding (RFC 9110 §8.4.1), piece by piece: a few bytes may become gigabytes."""

from __future__ import annotations

import functools
import importlib
import io
import zlib
from collections.abc import Iterator
from typing import Any

PIECE_BYTES = 1 << 18
"""The largest piece, in bytes."""
_ZSTD_WINDOW = 8 << 20
"""Bytes of the largest window that a sender of zstd may use (RFC 9659)."""
_GZIP, _RAW_DEFLATE = 31, -15


class BadCodingError(ValueError):
    """The body is not what its Content-Encoding says."""


@functools.cache
def supported() -> tuple[str, ...]:
    """The codings that can be unpacked; zstd from Python 3.14 on, or with the package ``zstandard``."""
    return ("gzip", "deflate") if _zstd() is None else ("gzip", "deflate", "zstd")


def coding_of(field: str) -> str | None:
    """The coding that a Content-Encoding field names; empty: none; None: one that cannot be unpacked, or several."""
    name = field.strip().lower().removeprefix("x-")
    if name in ("", "identity"):
        return ""
    return name if name in supported() else None


def unpack(body: bytes, coding: str) -> Iterator[bytes]:
    """Yield the content of ``body``, which is packed with one of the :func:`supported` codings. Raises BadCodingError."""
    module = _zstd() if coding == "zstd" else None
    faults: tuple[type[Exception], ...] = (zlib.error,) if module is None else (module.ZstdError,)
    try:
        if module is not None and hasattr(module, "ZstdCompressionReader"):  # the package zstandard
            yield from _read(module, body)
            return
        if module is not None:
            yield from _frames(body, module.ZstdDecompressor)
        elif coding == "gzip":
            yield from _frames(body, lambda: zlib.decompressobj(_GZIP))
        else:
            wbits = zlib.MAX_WBITS if _has_zlib_header(body) else _RAW_DEFLATE
            yield from _frames(body, lambda: zlib.decompressobj(wbits))
    except faults as error:
        raise BadCodingError(str(error)) from None


def _frames(body: bytes, decompressor: Any) -> Iterator[bytes]:
    """The content of one or more members or frames, one after the other."""
    rest, fresh = body, True
    while rest or fresh:
        fresh, one = False, decompressor()
        while not one.eof:
            piece = one.decompress(rest, PIECE_BYTES)
            rest = getattr(one, "unconsumed_tail", b"")
            if piece:
                yield piece
            elif not one.eof:
                raise BadCodingError("it ends too early")
        rest = one.unused_data


def _read(zstandard: Any, body: bytes) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(
        io.BytesIO(body), read_across_frames=True
    )
    if not body:
        raise BadCodingError("it is empty")
    while piece := reader.read(PIECE_BYTES):
        yield piece


def _has_zlib_header(body: bytes) -> bool:
    """Whether deflate is wrapped as in RFC 1950, as it should be. Some senders leave that away."""
    return len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0


@functools.cache
def _zstd() -> Any:
    for name in ("compression.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
