"""Header policy, keys, restoring names, metrics, paths."""

from __future__ import annotations

import itertools
import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.errors import UsageError
from llmlaunch.gateway import errors
from llmlaunch.gateway.http1 import headers
from llmlaunch.gateway.http1.answer_ends import is_whole
from llmlaunch.gateway.http1.framing import parse_head
from llmlaunch.gateway.limits import keys
from llmlaunch.gateway.limits.rates import UNLIMITED, Grant, Limits
from llmlaunch.gateway.multiprocess.shared_counters import SharedCounters
from llmlaunch.gateway.observe.metrics import GatewayMetrics, render
from llmlaunch.gateway.payload.model_name_rewrite import EventNameRewriter, rewriter_for, with_name
from llmlaunch.gateway.request import EndpointKind, endpoint
from llmlaunch.gateway.routing.controller_sync import controller_address

# -- headers


def test_what_connection_names_is_hop_by_hop() -> None:
    named = headers.named_by_connection(b"close, X-Own ,,te")
    lines = headers.for_worker([(b"x-own", b"1"), (b"keep", b"2"), (b"te", b"3")], named, plain=False)
    assert headers.to_worker(b"POST", b"/p", b"host: h:1\r\n", lines, b"id", 4) == (
        b"POST /p HTTP/1.1\r\nhost: h:1\r\ncontent-length: 4\r\nx-request-id: id\r\nkeep: 2\r\n\r\n"
    )


def test_an_answer_that_will_be_rewritten_is_asked_for_plain() -> None:
    fields = [(b"accept-encoding", b"gzip")]
    for plain in (True, False):
        assert (b"gzip" in headers.for_worker(fields, frozenset(), plain)) is not plain


def test_the_head_for_a_client() -> None:
    head = parse_head(
        b"HTTP/1.1 200 Fine\r\nserver: x\r\nconnection: a\r\na: 1\r\ncontent-type: t\r\ncontent-length: 3\r\n"
        b"access-control-allow-origin: *\r\nx-request-id: theirs\r\n\r\n"
    )
    framing = b"content-length: 3\r\nextra: 1\r\n"
    assert headers.to_client(head.status, head.reason, head.onward, b"ours", framing) == (
        b"HTTP/1.1 200 Fine\r\nx-request-id: ours\r\ncontent-type: t\r\ncontent-length: 3\r\nextra: 1\r\n\r\n"
    )


@given(st.binary(max_size=200))
def test_a_request_id_is_safe_to_repeat(value: bytes) -> None:
    found = headers.request_id(value, b"ours")
    assert found in (value, b"ours")
    assert 0 < len(found) <= 128
    assert not set(found) & set(b"\r\n\0 \t")


# -- errors


def test_errors_are_openais_envelope() -> None:
    for reply in (
        errors.unknown_model('a"b'), errors.model_not_ready("m"), errors.too_many("m", 3), errors.wrong_key(True),
        errors.bad_request("x", "model"), errors.no_answer("m", "why"), errors.stopping(), errors.bad_http("x"),
    ):  # fmt: skip
        error = json.loads(reply.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        if reply.status in (429, 503):
            assert b"retry-after: " in reply.fields


# -- keys


def test_keys_are_parsed() -> None:
    lines = ["# c\n", "\n", "alice: sk-a\n", "  sk-b  # why\n", "bob.x:   sk:with:colons\n", "sk:bare\n"]
    assert {name: entry.key for name, entry in keys.parse(lines, "f").items()} == {
        "alice": "sk-a", "key-4": "sk-b", "bob.x": "sk:with:colons", "key-6": "sk:bare",
    }  # fmt: skip


def test_limits_follow_the_key() -> None:
    lines = [
        "alice: sk-a  rpm=60 concurrency=4 tpm=100000 models=a,b/c priority=-1  # hers\n",
        "sk-bare== rpm=1\n",
        "carol: rpm=3\n",
    ]
    found = keys.parse(lines, "f")
    assert found["alice"].limits == Limits(60, 100000, 4, frozenset({"a", "b/c"}), -1)
    assert (found["key-2"].key, found["key-2"].limits) == ("sk-bare==", Limits(rpm=1))
    assert (found["carol"].key, found["carol"].limits) == ("rpm=3", UNLIMITED)
    assert "sk-a" not in repr(found)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ("rpm=0", "rpm= needs a whole number from 1"), ("rpm=", "rpm= needs"), ("tpm=1.5", "tpm= needs"),
        ("tpm=-3", "tpm= needs"), ("concurrency=x", "concurrency= needs"), ("priority=high", "priority= needs"),
        ("models=", "models= needs names"), ("models=a,,b", "models= needs names"), ("rpm=1 rpm=2", "rpm= is given twice"),
        ("secret=1", "no limit that is known"), ("rpm=1 secret", "no key"), ("rpm=١", "rpm= needs"), ("rpm=9999999999", "rpm="),
    ],
)  # fmt: skip
def test_limits_that_are_none_are_named_by_line(limits: str, reason: str) -> None:
    with pytest.raises(UsageError) as error:
        keys.parse(["ok\n", f"alice: sk-a {limits}"], "f")
    assert "f:2: " in error.value.message
    assert reason in error.value.message
    assert "secret" not in error.value.message + error.value.hint
    assert "sk-a" not in error.value.message + error.value.hint


@pytest.mark.parametrize("line", ["two words", "a: b c", "alice:", "ключ", "\x01"])
def test_lines_that_are_no_keys_are_named_by_number_only(line: str) -> None:
    if line == "alice:":  # a bare key may hold a colon
        assert keys.parse([line], "f") == {"key-1": keys.KeyEntry("alice:")}
        return
    with pytest.raises(UsageError) as error:
        keys.parse(["ok\n", line], "f")
    assert "f:2" in error.value.message
    assert line not in error.value.message


def test_a_name_twice_is_an_error() -> None:
    with pytest.raises(UsageError, match="given twice"):
        keys.parse(["a: x", "a: y"], "f")


@pytest.mark.parametrize("lines", [["a: sk-x", "b: sk-x rpm=3"], ["sk-x", "sk-x"]])
def test_a_key_twice_is_an_error_because_nobody_knows_whose_limits_hold(lines: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^f:2: .* line 1 already") as error:
        keys.parse(lines, "f")
    assert "sk-x" not in error.value.message + error.value.hint


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alice: sk-a\u200b", "column 12 holds U+200B"), ("alice: s\u00adk-a", "column 9 holds U+00AD"),
        ("\u202ealice: sk-a", "column 1 holds U+202E"), ("alice: sk-a\x1b[0m", "column 12 holds U+001B"),
        ("a\0l\0i\0c\0e\0", "save the file as UTF-8"),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_in_a_line_is_named(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=r"^f:1: ") as error:
        keys.parse([line + "\n"], "f")
    assert words in error.value.message


def test_a_comment_may_follow_a_tab() -> None:
    assert keys.parse(["sk-a\t# alice's"], "f")["key-1"].key == "sk-a"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("ALICE=sk-alice", "NAME: KEY"), ("export alice=sk-alice", "NAME: KEY"), ("ALICE = sk-alice", "NAME: KEY"),
        ("ALICE='sk-alice'", "NAME: KEY"), ("ALICE=sk-alice rpm=3", "NAME: KEY"), ("a.b-c=sk-alice==", "NAME: KEY"),
        ('"sk-alice"', "without quotes"), ("alice: 'sk-alice'", "without quotes"), ('"alice": sk-alice', "without quotes"),
        ('"alice": "sk-alice",', "without quotes"), ("alice: “sk-alice”", "without quotes"), ('alice: "sk-alice" rpm=3', "without quotes"),
        ('["sk-alice","sk-bob"]', "without quotes"), ('{"alice":', "without quotes"), ("alice:sk-alice", "NAME: KEY"),
        ("alice,sk-alice", "NAME: KEY"), ("sk-alice,sk-bob", "NAME: KEY"), ("alice: sk-alice;sk-bob", "NAME: KEY"),
        ("alice: ${sk-key}", "api_keys_env"), ("$ALICE_KEY", "api_keys_env"),
        ("`sk-alice`", "without quotes"), ("sk-alice,", "one key on each line"), ("alice: sk-alice;", "one key on each line"),
    ],
)  # fmt: skip
def test_lines_of_other_programs_are_refused_with_their_number(line: str, hint: str) -> None:
    with pytest.raises(UsageError, match=r"^keys\.txt:2: ") as error:
        keys.parse(["ok", line], "keys.txt")
    assert hint in error.value.hint
    assert "sk-" not in error.value.message + error.value.hint


@pytest.mark.parametrize("key", ["c2VjcmV0==", "c2VjcmV0=", "a=b", "it's", "{x}", "sk:id=", "a,b"])
def test_keys_that_only_look_a_little_odd_are_taken(key: str) -> None:
    assert keys.parse([f"alice: {key}"], "f")["alice"].key == key
    if key != "a=b":
        assert keys.parse([key], "f")["key-1"].key == key


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """Editors on Windows begin files with one, and files that were joined hold one within."""
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbfalice: sk-alice\r\n\xef\xbb\xbfbob: sk-bob\r\n\xef\xbb\xbf# a comment\r\n")
    file.chmod(0o600)
    ring = keys.ring(file, None)
    assert ring is not None
    assert len(ring) == 2
    assert ring.grant_of(b"Bearer sk-alice") == Grant("alice")
    file.write_text("alice: sk-alice\n", encoding="utf-16")
    with pytest.raises(UsageError, match="UTF-16"):
        keys.ring(file, None)


def test_a_keys_file_that_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file, words in ((pipe, "nobody writes"), (tmp_path, "directory"), (Path("/dev/null"), "not a file")):
        with pytest.raises(UsageError, match=words):
            keys.ring(file, None)
    told, tell = os.pipe()
    os.write(tell, b"alice: sk-alice\n")
    os.close(tell)
    ring = keys.ring(Path(f"/dev/fd/{told}"), None)  # as a shell's <(…) names it
    assert ring is not None
    assert not ring.refresh()
    assert ring.grant_of(b"Bearer sk-alice") == Grant("alice")
    os.close(told)


def test_only_whole_keys_are_known() -> None:
    ring = keys.KeyRing({"alice": keys.KeyEntry("sk-a")})
    assert ring.grant_of(b"Bearer sk-a") == ring.grant_of(b"bearer  sk-a ") == Grant("alice")
    for wrong in (b"", b"sk-a", b"Basic sk-a", b"Bearer sk-", b"Bearer sk-aa", b"Bearer", b"Bearer SK-A"):
        assert ring.grant_of(wrong) is None


def test_a_key_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text("a: one\n")
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        ring = keys.ring(file, None)
    assert "chmod 600" in caplog.text
    assert ring is not None
    file.write_text("b: second\n")
    assert ring.refresh()
    assert not ring.refresh()
    assert (ring.grant_of(b"Bearer one"), ring.grant_of(b"Bearer second")) == (None, Grant("b"))
    file.write_text("b: second rpm=5\n")
    ring.refresh()
    assert ring.grant_of(b"Bearer second") == Grant("b", Limits(rpm=5), Limits(rpm=5))
    file.write_text("this is no key\n")
    ring.refresh()
    assert ring.grant_of(b"Bearer second") == Grant("b", Limits(rpm=5), Limits(rpm=5))
    file.unlink()
    ring.refresh()
    assert ring.grant_of(b"Bearer second") == Grant("b", Limits(rpm=5), Limits(rpm=5))
    file.write_text("# all withdrawn\n")
    ring.refresh()
    assert ring.grant_of(b"Bearer second") is None
    assert "second" not in caplog.text
    assert "one" not in [word for record in caplog.records for word in record.getMessage().split()]


def test_no_keys_named_means_no_guard_and_empty_ones_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys.ring(None, None) is None
    monkeypatch.setenv("KEYS_X", " , ")
    with pytest.raises(UsageError, match="KEYS_X"):
        keys.ring(None, "KEYS_X")
    empty = tmp_path / "e"
    empty.touch()
    with pytest.raises(UsageError, match="holds no key"):
        keys.ring(empty, None)
    binary = tmp_path / "b"
    binary.write_bytes(os.urandom(8) + b"\xff\xfe\xff")
    with pytest.raises(UsageError):
        keys.ring(binary, None)


# -- restoring names


@given(st.lists(st.integers(0, 300), max_size=8))
def test_events_are_renamed_however_they_are_cut(places: list[int]) -> None:
    stream = (
        b': hello\n\ndata: {"model":"ugly","x":1}\n\nevent: response.created\r\n'
        b'data: {"response":{"model":"ugly"}}\r\n\r\ndata: [DONE]\n\n'
    )
    restorer, edges = EventNameRewriter("nice"), sorted({0, len(stream), *(p % len(stream) for p in places)})
    got = b"".join(restorer.feed(stream[a:b]) for a, b in itertools.pairwise(edges))
    got += restorer.end()
    assert got == stream.replace(b"ugly", b"nice")


def test_only_json_objects_with_a_model_are_touched() -> None:
    for text in (b"[]", b"{", b'{"a": 1.0}', b'"model"', b"[" * 100_000):
        assert with_name(text, "n") == text
    assert json.loads(with_name(b'{"model": "x", "data": [{"model": "inner"}]}', "n")) == {
        "model": "n", "data": [{"model": "inner"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n\r\n", "JsonNameRewriter"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream\r\n\r\n", "EventNameRewriter"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n\r\n", "NoneType"),
        (b"HTTP/1.1 400 No\r\ncontent-type: application/json\r\n\r\n", "NoneType"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "NoneType"),
    ],
)
def test_what_is_restored(head: bytes, expected: str) -> None:
    assert type(rewriter_for(parse_head(head), "n")).__name__ == expected


# -- metrics


def test_histograms_are_cumulative() -> None:
    board = SharedCounters()
    metrics = GatewayMetrics(board)
    for seconds in (0.001, 0.02, 0.02, 1000.0):
        metrics.ended("/p", "m", "r", "alice", 200, seconds)
    page = render([board]).decode()
    buckets = [
        int(line.rpartition(" ")[2]) for line in page.splitlines() if "duration_seconds_bucket" in line
    ]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[2], buckets[-1]) == (1, 3, 4)
    assert 'requests_total{path="/p",model="m",replica="r",key="alice",status="200"} 4' in page


# -- paths


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        (b"/v1/models/a%2Fb", EndpointKind.MODEL, "a/b"), (b"/v1/models/a/b", EndpointKind.MODEL, "a/b"),
        (b"/v1/models/%ff", EndpointKind.NOWHERE, ""), (b"/v1/models/", EndpointKind.NOWHERE, ""),
        (b"/v1/engines/a/b/embeddings", EndpointKind.PROXY, "a/b"), (b"/v1/engines/embeddings", EndpointKind.NOWHERE, ""),
        (b"/v1/engines//embeddings", EndpointKind.NOWHERE, ""), (b"/V1/models", EndpointKind.NOWHERE, ""), (b"", EndpointKind.NOWHERE, ""),
    ],
)  # fmt: skip
def test_paths(path: bytes, kind: EndpointKind, name: str) -> None:
    found = endpoint(path)
    assert (found.kind, found.name) == (kind, name)


@pytest.mark.parametrize(
    "url", ["", "x", "https://h", "http://", "http://h/p", "http://h:0x1", "http://h:70000"]
)
def test_controller_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="http://host:port"):
        controller_address(url)


@pytest.mark.parametrize(
    ("kind", "tail", "whole"),
    [
        (b"text/event-stream", b"data: [DONE]\n\n", True),
        (b"Text/Event-Stream; charset=utf-8", b"data: [DONE]\r\n\r\n", True),
        (b"text/event-stream", b'event: response.completed\ndata: {"type": "response.completed"}\n\n', True),
        (b"text/event-stream", b'data: {"error": {}}\n\n', True),
        (b"text/event-stream", b"data: [DONE]", False),
        (b"text/event-stream", b"data: {}\n\n", False),
        (b"text/event-stream", b"", False),
        (b"application/json", b"{}\n", True),
        (b"application/json", b"[1]", True),
        (b"application/json", b'{"a": "b"', False),
        (b"application/json", b"", False),
        (b"", b"", True),
    ],
)
def test_an_answer_that_is_whole_shows_it(kind: bytes, tail: bytes, whole: bool) -> None:
    assert is_whole(kind, tail) is whole
