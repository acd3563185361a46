"""Which of several headers with keys counts."""

from __future__ import annotations

import pytest

from llmlaunch.common.api_key_header import presented_key


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "api_key", "expected"),
    [
        (b"", b"", b"", b""), (b"Bearer a", b"", b"", b"a"), (b" bearer   a ", b"", b"", b"a"), (b"", b" b ", b"", b"b"),
        (b"", b"", b"c", b"c"), (b"Bearer a", b"b", b"c", b"a"), (b"", b"b", b"c", b"b"),
        (b"Basic dXNlcg==", b"b", b"", b"b"), (b"Basic dXNlcg==", b"", b"", b""), (b"a", b"", b"", b""),
        (b"Bearer", b"b", b"", b"b"), (b"Bearer  ", b"", b"c", b"c"),
    ],
)  # fmt: skip
def test_which_key_counts(authorization: bytes, x_api_key: bytes, api_key: bytes, expected: bytes) -> None:
    assert presented_key(authorization, x_api_key, api_key) == expected
