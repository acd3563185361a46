"""Where paths lead."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.paths import KNOWN, UNKNOWN, EndpointKind, endpoint, nearest_path


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        (b"/v1/models/a%2Fb", EndpointKind.MODEL, "a/b"), (b"/v1/models/a/b", EndpointKind.MODEL, "a/b"),
        (b"/v1/models/%ff", EndpointKind.UNKNOWN, ""), (b"/v1/models/", EndpointKind.MODELS, ""),
        (b"/v1/models/a/b/", EndpointKind.MODEL, "a/b"), (b"/v1/models//a", EndpointKind.MODEL, "a"),
        (b"/models/v1/a", EndpointKind.MODEL, "v1/a"), (b"//v1/v1/models/a%2F", EndpointKind.MODEL, "a/"),
        (b"/v1/engines/a/b/embeddings", EndpointKind.PROXY, "a/b"), (b"/v1/engines/embeddings", EndpointKind.UNKNOWN, ""),
        (b"/engines/a/embeddings/", EndpointKind.PROXY, "a"),
        (b"/v1/engines//embeddings", EndpointKind.UNKNOWN, ""), (b"/V1/models", EndpointKind.UNKNOWN, ""), (b"", EndpointKind.UNKNOWN, ""),
        (b"/", EndpointKind.UNKNOWN, ""), (b"/v1", EndpointKind.UNKNOWN, ""), (b"*", EndpointKind.UNKNOWN, ""),
    ],
)  # fmt: skip
def test_paths(path: bytes, kind: EndpointKind, name: str) -> None:
    found = endpoint(path)
    assert (found.kind, found.name) == (kind, name)


@pytest.mark.parametrize(
    "path",
    [
        "//v1/chat/completions", "/v1/chat/completions/", "/chat/completions", "/v1/v1/chat/completions",
        "/v1//chat/completions", "/openai/v1/chat/completions", "/openai/chat/completions", "/v1/v1/v1//chat/completions//",
    ],
)  # fmt: skip
def test_a_base_url_that_is_nearly_right(path: str) -> None:
    found = endpoint(path.encode())
    assert (found.label, found.upstream) == ("/v1/chat/completions", b"/v1/chat/completions")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat%2Fcompletions", "/v1%2fchat/completions", "/%761/chat/completions", "/./v1/chat/completions",
        "/v1/./chat/completions", "/v1/x/../chat/completions", "/../v1/chat/completions", "/v1/chat/completions/.",
        "/v1/openai/chat/completions", "/openai/openai/v1/chat/completions", "/v1/chat/completions;x", "/v1\\chat\\completions",
        "/openai/health", "/v1/metrics", "/v1/tokenize", "/v1/api/v1/token_check", "/v1/chat/v1/completions",
    ],
)  # fmt: skip
def test_nothing_is_decoded_or_resolved(path: str) -> None:
    assert endpoint(path.encode()) is UNKNOWN


_SLASHES = st.sampled_from(("/", "//", "///"))
_DOORS = st.sampled_from(("", "/v1", "/v1/v1", "/openai", "/openai/v1", "/openai/v1/v1/v1"))
_SEGMENTS = st.sampled_from(
    ("v1", "openai", "chat", "completions", "embeddings", "models", "rerank", "v2", "health", "metrics", "api", "%2F", ".", "..", "V1", "")
)  # fmt: skip


@given(known=st.sampled_from(sorted(KNOWN)), door=_DOORS, data=st.data())
def test_every_alias_is_the_endpoint_itself(known: str, door: str, data: st.DataObject) -> None:
    alias = door + known.removeprefix("/v1") if known.startswith("/v1/") else known
    spaced = re.sub("/", lambda _: data.draw(_SLASHES), alias) + data.draw(st.sampled_from(("", "/", "//")))
    expected = KNOWN[known]
    if alias == "/rerank" or alias == "/score":  # these have no /v1 in their own names
        expected = KNOWN[alias]
    assert endpoint(spaced.encode()) is expected


@given(segments=st.lists(_SEGMENTS, max_size=7))
def test_nothing_else_is_an_endpoint(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    rest = [segment for segment in segments if segment]
    meant = {"/" + "/".join(rest)}
    if rest[:1] == ["openai"]:
        rest = rest[1:]
    while rest[:1] == ["v1"]:
        rest = rest[1:]
    meant.add("/v1/" + "/".join(rest))
    found = endpoint(path.encode())
    if found.kind is EndpointKind.MODEL:
        assert f"/v1/models/{found.name}" in {name.replace("%2F", "/") for name in meant}
    elif found is not UNKNOWN:
        assert found.label in meant


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/chat/completion", "/v1/chat/completions"), ("/V1/Chat/Completions", "/v1/chat/completions"),
        ("/v1/chat", "/v1/chat/completions"),
        ("/v1/chat%2Fcompletions", "/v1/chat/completions"), ("/v1/tokenize", "/tokenize"), ("/v1/complete", "/v1/completions"),
        ("/api/chat/completions", "/v1/chat/completions"), ("/", ""), ("/v1", ""), ("/v1/", ""), ("/wp-admin/index.php", ""),
        ("*", ""), ("\xff", ""),
    ],
)  # fmt: skip
def test_the_nearest_path(path: str, meant: str) -> None:
    assert nearest_path(path) == meant


@pytest.mark.parametrize(
    ("path", "kind", "methods", "name"),
    [
        ("/v1/responses", "PROXY", b"POST", ""), ("/v1/responses/input_tokens", "PROXY", b"POST", ""),
        ("/v1/responses/compact", "PROXY", b"POST", ""), ("/v1/responses/resp_a", "RESPONSE", b"GET DELETE", "resp_a"),
        ("/v1/responses/resp_a/input_items", "RESPONSE", b"GET", "resp_a"), ("/v1/responses/resp_a/cancel", "RESPONSE", b"POST", "resp_a"),
        ("/v1/responses/resp_a/other", "UNKNOWN", b"", ""), ("/v1/responses/resp_a/input_items/x", "UNKNOWN", b"", ""),
    ],
)  # fmt: skip
def test_paths_of_responses(path: str, kind: str, methods: bytes, name: str) -> None:
    found = endpoint(path.encode())
    assert (found.kind.name, b" ".join(found.methods), found.name) == (kind, methods, name)
    if kind != "UNKNOWN":
        assert found.upstream == path.encode()
        assert found.label == path.replace("resp_a", "{id}")


@pytest.mark.parametrize("path", [b"/v1/messages", b"/v1/messages/count_tokens", b"/v1/messages/batches"])
def test_anthropics_paths_get_its_errors(path: bytes) -> None:
    assert endpoint(path).dialect is not None
    assert (endpoint(path).kind is EndpointKind.PROXY) == (not path.endswith(b"batches"))
