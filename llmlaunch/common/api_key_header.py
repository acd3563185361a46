"""The API key of a request, wherever its client puts it. Pure.

OpenAI's clients send ``Authorization: Bearer KEY``, Anthropic's ``x-api-key: KEY``, Azure's ``api-key: KEY``. A request
with several of them is judged by one: the first of these that is there. A wrong one is not made good by another.
"""

from __future__ import annotations

HEADERS = (b"authorization", b"x-api-key", b"api-key")
"""The header fields that can hold a key, in lower case."""


def presented_key(authorization: bytes, x_api_key: bytes, api_key: bytes) -> bytes:
    """Return the key that the three header values hold, or nothing (``b""``). A header that was not sent is ``b""``.

    An ``Authorization`` of another scheme than Bearer, which a proxy may have asked for, holds no key.
    """
    scheme, _, token = authorization.strip().partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return x_api_key.strip() or api_key.strip()
