"""Any conversation with any template."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError

from llmlaunch.worker.chat_template.template import ChatTemplate
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from tests.unit.worker import tiny
from tests.unit.worker.chat_template.samples import (
    TEMPLATES,
    WEATHER,
    assistant,
    call,
    developer,
    render,
    result,
    system,
    user,
)

HISTORY = [
    system("Be brief."), user("Weather?"),
    assistant("", call("weather", id="call_1"), call("weather", id="call_2", arguments='{"city": "Oslo"}')),
    result("sunny", id="call_1"), result("snow", id="call_2"),
]  # fmt: skip


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Turns in any order, each with a word of its own; results may come late, or belong to no call."""
    words, ids = iter(f"w{at}w" for at in range(100)), iter(f"call_{at}" for at in range(100))
    found: list[dict[str, Any]] = []
    waiting = ["call_x"]
    for kind in draw(st.lists(st.sampled_from(["s", "d", "u", "a", "c", "t"]), min_size=1, max_size=8)):
        said = {"s": system, "d": developer, "u": user, "a": assistant}.get(kind)
        if said is not None:
            found.append(said(draw(st.sampled_from([next(words), ""]))))
        elif kind == "c":
            named = [next(ids) for _ in range(draw(st.integers(1, 3)))]
            waiting += named
            calls = [
                call(next(words), id=name, arguments=draw(st.sampled_from(["{}", "", '{"a": {"b": [1]}}'])))
                for name in named
            ]
            found.append(assistant(draw(st.sampled_from(["", next(words)])), *calls))
        else:
            found.append(result(next(words), id=draw(st.sampled_from(waiting))))
    return found


@pytest.mark.parametrize("name", TEMPLATES)
@given(messages=conversations(), tools=st.sampled_from([(), (WEATHER,)]), prompt=st.booleans())
def test_every_conversation_is_rendered(
    name: str, messages: list[dict[str, Any]], tools: tuple[dict[str, Any], ...], prompt: bool
) -> None:
    text = render(name, messages, *tools, add_generation_prompt=prompt)
    # Many templates leave out what the assistant says beside a call.
    said = [message["content"] for message in messages if message["role"] != "assistant"]
    assert [words for words in said if words not in text] == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_nothing_of_a_turn_with_tools_is_lost(name: str) -> None:
    text = render(name, HISTORY, WEATHER)
    said = ["Be brief.", "Weather?", "weather", "Rome", "Oslo", "sunny", "snow"]
    assert [word for word in said if word not in text] == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_instructions_of_agents_are_all_there(name: str) -> None:
    text = render(name, [system("one"), developer("two"), user("three"), developer("four"), user("five")])
    assert all(word in text for word in ("one", "two", "three", "four", "five"))


def test_two_developer_messages() -> None:
    given = [developer("You are a coding agent."), developer("<permissions>"), user("Say hi")]
    text = render("system_at_the_beginning", given)
    assert "<|im_start|>system\nYou are a coding agent.\n\n<permissions><|im_end|>" in text


def test_tools_where_no_system_role_is() -> None:
    text = render("no_system_alternating", [user("s")], WEATHER)
    assert text.startswith("<|im_start|>user\nYou may call functions")
    assert "</tool_call>\n\ns<|im_end|>" in text


def test_ids_of_another_form() -> None:
    given = [
        user("x"),
        assistant("", call("f", id="call-5f3a7a56d843c914dc2f9f10")),
        result("2", id="call-5f3a7a56d843c914dc2f9f10"),
    ]
    text = render("ids_of_nine", given)
    assert '[TOOL_RESULTS] {"content": "2"' in text
    kept = [user("x"), assistant("", call("f", id="abcdefGH1")), result("2", id="abcdefGH1")]
    assert '"call_id": "abcdefGH1"' in render("ids_of_nine", kept)


def test_a_message_that_is_continued_stays_the_last() -> None:
    given = [assistant("a"), user("b"), assistant("So")]
    text = render("gemma_2", given, add_generation_prompt=False, continue_final_message=True)
    assert text.endswith("model\nSo")


def test_an_unknown_role_is_refused_in_the_templates_own_words() -> None:
    with pytest.raises(BadRequest, match="Unexpected message role"):
        render("qwen3_5", [user("a"), {"role": "critic", "content": "b"}])
    assert "<|start_header_id|>critic<|end_header_id|>b" in render(
        "llama_3_1", [user("a"), {"role": "critic", "content": "b"}]
    )


def test_the_form_is_found_once() -> None:
    count = 0

    def apply(messages: list[dict[str, Any]], **arguments: Any) -> str:
        nonlocal count
        count += 1
        if any(message["role"] == "system" for message in messages):
            raise TemplateError("no system")
        return "".join(message["content"] for message in messages)

    template = ChatTemplate(apply, "")
    assert template.render([system("a"), user("b")]) == "a\n\nb"
    before = count
    assert template.render([system("a"), user("b")]) == "a\n\nb"
    assert count == before + 1


def test_the_first_refusal_is_told() -> None:
    def refuse(messages: list[dict[str, Any]], **arguments: Any) -> str:
        raise TemplateError(f"{len(messages)} are too many")

    with pytest.raises(TemplateError, match="2 are too many"):
        ChatTemplate(refuse, "").render([user("a"), user("b")])


def test_a_model_with_a_template_of_its_own_for_tools() -> None:
    made = tiny.tokenizer()
    made.chat_template = {
        "default": TEMPLATES["phi_3"].read_text(),
        "tool_use": TEMPLATES["qwen_2_5"].read_text(),
    }
    tokenizer = Tokenizer(made)
    with_tools = tokenizer.render(HISTORY, [WEATHER], add_generation_prompt=True)
    assert "<tools>" in with_tools
    assert '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>' in with_tools
    without = tokenizer.render(HISTORY, add_generation_prompt=True)
    assert without.startswith("<|system|>Be brief.<|end|><|user|>Weather?<|end|><|assistant|><tool_call>")
    assert "snow" in without


def test_many_threads_find_the_same_form() -> None:
    made = tiny.tokenizer()
    made.chat_template = TEMPLATES["mistral_v0_3"].read_text()
    tokenizer = Tokenizer(made)
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: tokenizer.render(HISTORY, [WEATHER]), range(32)))
    assert set(texts) == {render("mistral_v0_3", HISTORY, WEATHER, add_generation_prompt=False)}
