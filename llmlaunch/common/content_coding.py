"""Unpacks bodies with a Content-Encoding (RFC 9110 §8.4.1), piece by piece: a few bytes may become gigabytes."""

from __future__ import annotations

import functools
import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

PIECE_BYTES = 1 << 18
"""The largest piece, in bytes."""
MAX_RATIO = 250
"""Bytes that a packed byte may become. JSON shrinks to a tenth or so; whatever exceeds this is made to exceed it."""
FREE_BYTES = 4 << 20
"""Bytes that a body of any size may become: short ones may well repeat one word."""
MAX_FRAMES = 4096
"""Members or frames in one body. Each costs time, even if it is empty."""
_INPUT_BYTES = 1 << 16
"""Bytes given to a decompressor at a time: what it does not take at once is copied each time."""
_ZSTD_WINDOW_LOG = 23
"""The largest window that a sender of zstd may use is 8 MiB (RFC 9659), 2 to this power."""
_GZIP, _RAW_DEFLATE = 31, -15


class BadCodingError(ValueError):
    """The body is not what its Content-Encoding says."""


class BombError(ValueError):
    """The body becomes too large, compared with what was sent."""


@functools.cache
def supported() -> tuple[str, ...]:
    """The codings that can be unpacked. A Python that was built without zstd has none."""
    return ("gzip", "deflate") if _zstd() is None else ("gzip", "deflate", "zstd")


def coding_of(field: str) -> str | None:
    """The coding that a Content-Encoding field names; empty: none; None: one that cannot be unpacked, or several."""
    name = field.strip().lower().removeprefix("x-")
    if name in ("", "identity"):
        return ""
    return name if name in supported() else None


def unpack(body: bytes, coding: str) -> Iterator[bytes]:
    """Yield the content of ``body``, which is packed with one of the :func:`supported` codings.

    Raises BadCodingError, and BombError beyond MAX_RATIO; whoever takes the pieces sees to the size.
    """
    fault, decompressor = _zstd_frames() if coding == "zstd" else _deflate_frames(body, coding)
    most, size = max(FREE_BYTES, MAX_RATIO * len(body)), 0
    try:
        for piece in _pieces(body, decompressor):
            size += len(piece)
            if size > most:
                raise BombError(f"more than {MAX_RATIO} times as large as it was sent")
            yield piece
    except fault as error:
        raise BadCodingError(str(error)) from None


def _pieces(body: bytes, decompressor: Callable[[], Any]) -> Iterator[bytes]:
    """The content of one or more members or frames, one after the other."""
    parts = (body[at : at + _INPUT_BYTES] for at in range(0, len(body), _INPUT_BYTES))
    rest = next(parts, b"")
    for _ in range(MAX_FRAMES):
        one = decompressor()
        while not one.eof:
            piece = one.decompress(rest, PIECE_BYTES)
            rest = getattr(one, "unconsumed_tail", b"")  # zstd keeps it
            if piece:
                yield piece
            elif not one.eof and not rest and not (rest := next(parts, b"")):
                raise BadCodingError("it ends too early")
        rest = one.unused_data or next(parts, b"")
        if not rest:
            return
    raise BadCodingError(f"it consists of more than {MAX_FRAMES} parts")


def _deflate_frames(body: bytes, coding: str) -> tuple[type[Exception], Callable[[], Any]]:
    """The error of a broken member, and what unpacks one."""
    bare = coding == "deflate" and not _has_zlib_header(body)
    wbits = _GZIP if coding == "gzip" else _RAW_DEFLATE if bare else zlib.MAX_WBITS
    return zlib.error, lambda: zlib.decompressobj(wbits)


def _zstd_frames() -> tuple[type[Exception], Callable[[], Any]]:
    """The error of a broken frame, and what unpacks one."""
    zstd = _zstd()
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return zstd.ZstdError, lambda: zstd.ZstdDecompressor(options=options)


def _has_zlib_header(body: bytes) -> bool:
    """Whether deflate is wrapped as in RFC 1950, as it should be. Some senders leave that away."""
    return len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0


@functools.cache
def _zstd() -> Any:
    """Python's own module from 3.14 on, or its backport; None if there is neither."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
