from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.cli.talk.conversation import COMMANDS, HELP, ChatCommand, Conversation, parse
from llmlaunch.errors import LlmlaunchError, UsageError


@pytest.mark.parametrize(
    ("line", "order"),
    [
        ("hello", "hello"),
        ("/reset", ChatCommand("reset")),
        ("!!reset", ChatCommand("reset")),
        ("/save a file.json ", ChatCommand("save", "a file.json")),
        ("!!load x", ChatCommand("load", "x")),
        ("//etc/passwd?", "/etc/passwd?"),
        ("what is /etc?", "what is /etc?"),
        ("!important", "!important"),
    ],
)
def test_lines(line: str, order: object) -> None:
    assert parse(line) == order


@pytest.mark.parametrize("line", ["/rest", "/", "!!", "/save", "/load  ", "/etc/passwd"])
def test_orders_that_do_not_exist_are_told(line: str) -> None:
    with pytest.raises(UsageError):
        parse(line)


def test_help_lists_every_command() -> None:
    assert all(f"/{name}" in HELP for name in COMMANDS)


@given(st.text())
def test_any_line_is_an_order_a_message_or_a_usage_error(line: str) -> None:
    try:
        assert isinstance(parse(line), str | ChatCommand)
    except UsageError:
        assert line.startswith(("/", "!!"))


def test_taking_back_forgets_the_message_and_its_answer() -> None:
    talk = Conversation("m", "be brief")
    assert talk.undo() is None
    talk.say("one")
    talk.answered("1")
    talk.say("two")
    talk.answered("2")
    assert talk.undo() == "two"
    assert [m["content"] for m in talk.messages] == ["be brief", "one", "1"]
    talk.reset()
    assert talk.messages == [{"role": "system", "content": "be brief"}]


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    talk = Conversation("m")
    talk.say("né")
    talk.answered("日本")
    talk.save(str(tmp_path / "talk.json"))
    other = Conversation("other", "x")
    other.load(str(tmp_path / "talk.json"))
    assert other.messages == talk.messages
    assert other.model == "other"


@pytest.mark.parametrize(
    "text",
    ["", "{", "3", "{}", '{"messages": 3}', '[{"role": "x", "content": "y"}]', '[{"role": "user"}]', "\xff"],
)
def test_a_file_that_is_no_conversation_changes_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(text.encode("latin-1"))
    talk = Conversation("m")
    talk.say("kept")
    with pytest.raises(LlmlaunchError, match=r"bad\.json"):
        talk.load(str(file))
    assert [m["content"] for m in talk.messages] == ["kept"]


def test_files_that_cannot_be_opened_are_told(tmp_path: Path) -> None:
    with pytest.raises(LlmlaunchError, match="cannot be read"):
        Conversation("m").load(str(tmp_path / "none"))
    with pytest.raises(LlmlaunchError, match="cannot be written"):
        Conversation("m").save(str(tmp_path / "no" / "folder"))


def test_the_request_has_the_settings() -> None:
    talk = Conversation("m", settings={"temperature": 0.0})
    talk.say("hi")
    body = json.loads(json.dumps(talk.body()))
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "temperature": 0.0,
    }
