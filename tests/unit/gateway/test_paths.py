"""Where paths lead."""

from __future__ import annotations

import pytest

from llmlaunch.gateway.paths import EndpointKind, endpoint


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        (b"/v1/models/a%2Fb", EndpointKind.MODEL, "a/b"), (b"/v1/models/a/b", EndpointKind.MODEL, "a/b"),
        (b"/v1/models/%ff", EndpointKind.UNKNOWN, ""), (b"/v1/models/", EndpointKind.UNKNOWN, ""),
        (b"/v1/engines/a/b/embeddings", EndpointKind.PROXY, "a/b"), (b"/v1/engines/embeddings", EndpointKind.UNKNOWN, ""),
        (b"/v1/engines//embeddings", EndpointKind.UNKNOWN, ""), (b"/V1/models", EndpointKind.UNKNOWN, ""), (b"", EndpointKind.UNKNOWN, ""),
    ],
)  # fmt: skip
def test_paths(path: bytes, kind: EndpointKind, name: str) -> None:
    found = endpoint(path)
    assert (found.kind, found.name) == (kind, name)
