"""API keys: the file, and who is known by them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from llmlaunch.errors import UsageError
from llmlaunch.gateway.limits import keys
from llmlaunch.gateway.limits.api_key import UNLIMITED, ApiKey, KeyLimits


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
    assert found["alice"].limits == KeyLimits(60, 100000, 4, frozenset({"a", "b/c"}), -1)
    assert (found["key-2"].key, found["key-2"].limits) == ("sk-bare==", KeyLimits(rpm=1))
    assert (found["carol"].key, found["carol"].limits) == ("rpm=3", UNLIMITED)
    assert "sk-a" not in repr(found)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ("rpm=0", "rpm= must be a whole number of at least 1"), ("rpm=", "rpm= must be"), ("tpm=1.5", "tpm= must be"),
        ("tpm=-3", "tpm= must be"), ("concurrency=x", "concurrency= must be"), ("priority=high", "priority= must be"),
        ("models=", "models= must be names"), ("models=a,,b", "models= must be names"), ("rpm=1 rpm=2", "duplicate limit rpm="),
        ("secret=1", "unknown limit"), ("rpm=1 secret", "invalid key"), ("rpm=١", "rpm= must be"), ("rpm=9999999999", "rpm="),
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
    with pytest.raises(UsageError, match="duplicate name"):
        keys.parse(["a: x", "a: y"], "f")


@pytest.mark.parametrize("lines", [["a: sk-x", "b: sk-x rpm=3"], ["sk-x", "sk-x"]])
def test_a_key_twice_is_an_error_because_nobody_knows_whose_limits_hold(lines: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^f:2: .* in line 1") as error:
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
    ring = keys.load_key_ring(file, None)
    assert ring is not None
    assert len(ring) == 2
    assert ring.find(b"sk-alice") == ApiKey("alice")
    file.write_text("alice: sk-alice\n", encoding="utf-16")
    with pytest.raises(UsageError, match="UTF-16"):
        keys.load_key_ring(file, None)


def test_a_keys_file_that_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file, words in ((pipe, "nothing writes"), (tmp_path, "directory"), (Path("/dev/null"), "not a file")):
        with pytest.raises(UsageError, match=words):
            keys.load_key_ring(file, None)
    told, tell = os.pipe()
    os.write(tell, b"alice: sk-alice\n")
    os.close(tell)
    ring = keys.load_key_ring(Path(f"/dev/fd/{told}"), None)  # as a shell's <(…) names it
    assert ring is not None
    assert not ring.refresh()
    assert ring.find(b"sk-alice") == ApiKey("alice")
    os.close(told)


def test_only_whole_keys_are_known() -> None:
    ring = keys.KeyRing({"alice": keys.KeyEntry("sk-a")})
    assert ring.find(b"sk-a") == ApiKey("alice")
    for wrong in (b"", b"sk-", b"sk-aa", b"SK-A", b"Bearer sk-a", b"sk-a "):
        assert ring.find(wrong) is None


def test_a_key_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text("a: one\n")
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        ring = keys.load_key_ring(file, None)
    assert "chmod 600" in caplog.text
    assert ring is not None
    file.write_text("b: second\n")
    assert ring.refresh()
    assert not ring.refresh()
    assert (ring.find(b"one"), ring.find(b"second")) == (None, ApiKey("b"))
    file.write_text("b: second rpm=5\n")
    ring.refresh()
    assert ring.find(b"second") == ApiKey("b", KeyLimits(rpm=5), KeyLimits(rpm=5))
    file.write_text("this is no key\n")
    ring.refresh()
    assert ring.find(b"second") == ApiKey("b", KeyLimits(rpm=5), KeyLimits(rpm=5))
    file.unlink()
    ring.refresh()
    assert ring.find(b"second") == ApiKey("b", KeyLimits(rpm=5), KeyLimits(rpm=5))
    file.write_text("# all withdrawn\n")
    ring.refresh()
    assert ring.find(b"second") is None
    assert "second" not in caplog.text
    assert "one" not in [word for record in caplog.records for word in record.getMessage().split()]


def test_no_keys_named_means_no_guard_and_empty_ones_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys.load_key_ring(None, None) is None
    monkeypatch.setenv("KEYS_X", " , ")
    with pytest.raises(UsageError, match="KEYS_X"):
        keys.load_key_ring(None, "KEYS_X")
    empty = tmp_path / "e"
    empty.touch()
    with pytest.raises(UsageError, match="contains no keys"):
        keys.load_key_ring(empty, None)
    binary = tmp_path / "b"
    binary.write_bytes(os.urandom(8) + b"\xff\xfe\xff")
    with pytest.raises(UsageError):
        keys.load_key_ring(binary, None)
