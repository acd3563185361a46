"""The steps together."""

from __future__ import annotations

from llmlaunch.worker.chat_template.form import Form, SystemPlace, ToolsPlace, bring, stricter
from tests.unit.worker.chat_template.samples import (
    WEATHER,
    assistant,
    call,
    developer,
    result,
    system,
    user,
)

HISTORY = [
    system("Be brief."), user("Weather?"), assistant("", call("weather")), result("sunny"), user("Thanks"),
]  # fmt: skip


def test_a_template_that_insists_on_nothing_gets_what_was_sent() -> None:
    given = [system("a"), user("b"), user("c"), assistant("d"), system("e"), assistant("f")]
    assert bring(given, [], Form()) == given


def test_the_developer_is_the_system_unless_the_template_knows_it() -> None:
    assert bring([developer("a")], [], Form()) == [system("a")]
    assert bring([developer("a")], [], Form(developer=True)) == [developer("a")]


def test_everything_at_once() -> None:
    form = Form(
        system=SystemPlace.IN_USER, joined=True, user_first=True, tools=ToolsPlace.AS_TEXT, calls_as_text=True
    )
    found = bring(HISTORY, [WEATHER], form)
    assert [message["role"] for message in found] == ["user", "assistant", "user"]
    assert found[0]["content"].startswith("Be brief.\n\nYou may call functions")
    assert found[0]["content"].endswith("\n\nWeather?")
    assert found[2]["content"] == "<tool_response>\nsunny\n</tool_response>\n\nThanks"


def test_content_as_the_template_reads_it() -> None:
    assert bring([user("a")], [], Form(parts=True)) == [
        {"role": "user", "content": [{"type": "text", "text": "a"}]}
    ]
    (message,) = bring([assistant("", call("f"))], [], Form(no_empty_content=True))
    assert "content" not in message
    assert bring([assistant("")], [], Form(no_empty_content=True)) == [assistant("")]


def test_an_empty_question_only_where_an_answer_is_to_follow() -> None:
    given, form = [user("a"), assistant("b")], Form(user_last=True)
    assert bring(given, [], form) == [*given, user("")]
    assert bring(given, [], form, answer_follows=False) == given


def test_unknown_roles_are_handed_on() -> None:
    given = [{"role": "critic", "content": "a"}, user("b")]
    for form in (Form(), *stricter(Form())):
        assert {"role": "critic", "content": "a"} in bring(given, [], form)


def test_a_result_is_no_stray_because_of_a_system_message_that_moves() -> None:
    form = Form(system=SystemPlace.FIRST, strays_as_text=True)
    found = bring([assistant("", call("f")), system("a"), result("x")], [], form)
    assert [message["role"] for message in found] == ["system", "assistant", "tool"]
