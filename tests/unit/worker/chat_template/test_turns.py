"""Whose turn it is."""

from __future__ import annotations

from llmlaunch.worker.chat_template import turns
from tests.unit.worker.chat_template.samples import assistant, call, developer, result, system, user


def test_system_messages_become_one_at_the_beginning() -> None:
    given = [system("a"), developer("b"), user("x"), assistant("y"), system("c"), user("z")]
    assert turns.system_first(given) == [system("a\n\nb\n\nc"), user("x"), assistant("y"), user("z")]
    assert turns.system_first([user("x"), developer("a")]) == [developer("a"), user("x")]
    assert turns.system_first([user("x")]) == [user("x")]


def test_an_empty_system_message_adds_no_blank_lines() -> None:
    assert turns.system_first([system(""), system("a")]) == [system("a")]
    assert turns.system_in_user([system(""), user("x")]) == [user("x")]


def test_without_a_system_role_its_text_goes_before_the_first_question() -> None:
    given = [system("a"), user("x"), assistant("y"), system("b"), user("z")]
    assert turns.system_in_user(given) == [user("a\n\nb\n\nx"), assistant("y"), user("z")]
    assert turns.system_in_user([system("a"), assistant("y"), user("z")]) == [
        user("a"),
        assistant("y"),
        user("z"),
    ]
    assert turns.system_in_user([system("a")]) == [user("a")]


def test_neighbours_of_one_role_are_joined() -> None:
    given = [user("a"), user("b"), assistant("c"), assistant(""), assistant("d"), user("e")]
    assert turns.joined(given) == [user("a\n\nb"), assistant("c\n\nd"), user("e")]
    first, second = call("f", id="1"), call("f", id="2")
    calling = [assistant("a"), assistant("", first), assistant("b", second)]
    assert turns.joined(calling) == [assistant("a\n\nb", first, second)]
    results = [result("x", id="1"), result("y", id="2")]
    assert turns.joined(results) == results


def test_empty_turns_fill_the_gaps() -> None:
    assert turns.user_first([system("a"), assistant("b")]) == [system("a"), user(""), assistant("b")]
    assert turns.user_first([system("a"), user("b")]) == [system("a"), user("b")]
    assert turns.with_user([system("a")]) == [system("a"), user("")]
    assert turns.with_user([assistant("a"), user("b")]) == [assistant("a"), user("b")]
    assert turns.user_last([user("a"), assistant("b")]) == [user("a"), assistant("b"), user("")]
    assert turns.user_last([user("a")]) == [user("a")]
    assert turns.answered([result("a"), user("b")]) == [result("a"), assistant(""), user("b")]
    assert turns.answered([result("a"), assistant("b")]) == [result("a"), assistant("b")]
