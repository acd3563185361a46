"""/v1/responses through the openai SDK: items, events, and what is remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest

from llmlaunch.controller.response_ids import is_marked
from llmlaunch.worker.api.responses.protocol import ResponsesBody
from tests.unit.worker.scripted import FAULT, Served, served

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": None,
}


def run(work: Callable[[Served], Awaitable[Any]], *texts: str, **arguments: Any) -> Any:
    async def inside() -> Any:
        async with served(*texts, **arguments) as made:
            return await work(made)

    return asyncio.run(inside())


async def streamed(made: Served, **body: Any) -> list[Any]:
    return [event async for event in await made.openai.responses.create(model="m", stream=True, **body)]


def check_order(events: list[Any]) -> None:
    """Numbers without a gap, and every item: added, then its own events, then done; one after the other."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    current: str | None = None
    for event in events[2:-1]:
        if event.type == "response.output_item.added":
            assert current is None
            current = event.item.id
        elif event.type == "response.output_item.done":
            assert event.item.id == current
            current = None
        else:
            assert event.item_id == current
    assert current is None


def test_a_text_is_answered() -> None:
    async def work(made: Served) -> None:
        answer = await made.openai.responses.create(
            model="m", input="Hi", instructions="Be kind.", metadata={"a": "b"}
        )
        assert answer.output_text == "Hello there."
        assert answer.status == "completed"
        assert answer.object == "response"
        assert answer.instructions == "Be kind."
        assert answer.metadata == {"a": "b"}
        assert answer.usage is not None
        assert answer.usage.input_tokens == len("s:Be kind.\nu:Hi\na:")
        assert answer.usage.output_tokens == len("Hello there.") + 1
        assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
        assert made.script.prompts == ["s:Be kind.\nu:Hi\na:"]
        assert (await made.openai.responses.retrieve(answer.id)).output_text == "Hello there."
        await made.openai.responses.delete(answer.id)
        with pytest.raises(openai.NotFoundError):
            await made.openai.responses.retrieve(answer.id)

    run(work, "Hello there.")


def test_a_stream_tells_every_step_and_ends_with_the_whole() -> None:
    async def work(made: Served) -> None:
        events = await streamed(made, input="Hi")
        check_order(events)
        assert [event.type for event in events if "delta" not in event.type] == [
            "response.created", "response.in_progress", "response.output_item.added",
            "response.content_part.added", "response.output_text.done", "response.content_part.done",
            "response.output_item.done", "response.completed",
        ]  # fmt: skip
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == events[-1].response.output_text == "Hello there."
        assert events[0].response.id == events[-1].response.id
        assert events[0].response.usage is None
        assert events[-1].response.usage.output_tokens == 13
        async with made.openai.responses.stream(model="m", input="Hi") as stream:
            final = await stream.get_final_response()
        assert final.output_text == "Hello there."

    run(work, "Hello there.")


def test_what_was_said_before_is_remembered_by_its_id_and_instructions_are_not() -> None:
    async def work(made: Served) -> None:
        first = await made.openai.responses.create(model="m", input="One", instructions="Once.")
        assert is_marked(first.id)
        events = await streamed(made, input="Two", previous_response_id=first.id)
        second = events[-1].response
        assert second.previous_response_id == first.id
        third = await made.openai.responses.create(
            model="m",
            input=[{"role": "user", "content": "Three"}],
            previous_response_id=second.id,
            store=False,
        )
        assert made.script.prompts[-1] == "u:One\na:A\nu:Two\na:B\nu:Three\na:"
        for unknown in (third.id, "resp_none"):
            with pytest.raises(openai.BadRequestError, match="previous_response_id"):
                await made.openai.responses.create(model="m", input="Four", previous_response_id=unknown)

    run(work, "A", "B", "C")


def test_functions_are_called_and_their_results_read() -> None:
    async def work(made: Served) -> None:
        tools: Any = [WEATHER]
        events = await streamed(made, input="Rome?", tools=tools)
        check_order(events)
        calls = events[-1].response.output
        assert [(item.type, item.name, json.loads(item.arguments)) for item in calls] == [
            ("function_call", "weather", {"city": "Rome"})
        ]
        assert {event.type for event in events} >= {
            "response.function_call_arguments.delta", "response.function_call_arguments.done",
        }  # fmt: skip
        whole = await made.openai.responses.create(model="m", input="Rome?", tools=tools)
        assert [item.type for item in whole.output] == ["function_call"]
        (tool,) = whole.tools
        assert tool.type == "function"
        assert tool.name == "weather"
        result: Any = [{"type": "function_call_output", "call_id": calls[0].call_id, "output": "sunny"}]
        last = await made.openai.responses.create(
            model="m", input=result, previous_response_id=events[-1].response.id, tools=tools
        )
        assert last.output_text == "Sunny."
        assert '"city": "Rome"' in made.script.prompts[-1]
        assert "<tool_response>\nsunny\n</tool_response>" in made.script.prompts[-1]
        # The same without the store: items are given back as they came.
        again: Any = [{"role": "user", "content": "Rome?"}, *[c.to_dict() for c in calls], *result]
        await made.openai.responses.create(model="m", input=again, tools=tools)
        assert made.script.prompts[-1] == made.script.prompts[-2]

    run(work, CALL, CALL, "Sunny.")


def test_thoughts_are_items_of_their_own() -> None:
    async def work(made: Served) -> None:
        events = await streamed(made, input="Hi")
        check_order(events)
        thought, message = events[-1].response.output
        assert (thought.type, thought.content[0].text) == ("reasoning", "Greet.")
        assert (message.type, message.content[0].text) == ("message", "Hello.")
        deltas = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
        assert "".join(deltas) == "Greet."
        assert events[-1].response.usage.output_tokens_details.reasoning_tokens > 0
        back: Any = [
            {"role": "user", "content": "Hi"},
            thought.to_dict(),
            message.to_dict(),
            {"role": "user", "content": "Bye"},
        ]
        await made.openai.responses.create(model="m", input=back)
        assert made.script.prompts[-1] == "u:Hi\na:Hello.\nu:Bye\na:"

    run(work, "<think>\nGreet.\n</think>\n\nHello.", reasoning=True)


def test_an_answer_that_is_cut_is_incomplete() -> None:
    async def work(made: Served) -> None:
        events = await streamed(made, input="Hi", max_output_tokens=5)
        assert events[-1].type == "response.incomplete"
        response = events[-1].response
        assert response.status == response.output[-1].status == "incomplete"
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output_text == "Hello"

    run(work, "Hello there.")


def test_a_failure_in_the_middle_ends_the_stream_with_its_reason() -> None:
    async def work(made: Served) -> None:
        events = await streamed(made, input="Hi")
        assert events[-1].type == "response.failed"
        assert events[-1].response.status == "failed"
        assert "engine failed" in events[-1].response.error.message
        with pytest.raises(openai.InternalServerError):
            await made.openai.responses.create(model="m", input="Hi")

    run(work, "Hel" + FAULT)


def test_logprobs_come_where_they_are_included() -> None:
    async def work(made: Served) -> None:
        answer = await made.openai.responses.create(
            model="m", input="Hi", include=["message.output_text.logprobs"]
        )
        part: Any = answer.output[0]
        assert [entry.token for entry in part.content[0].logprobs] == ["O", "k"]
        plain: Any = (await made.openai.responses.create(model="m", input="Hi")).output[0]
        assert plain.content[0].logprobs == []

    run(work, "Ok")


def test_a_conversation_that_is_too_long_is_refused_or_cut_at_its_beginning() -> None:
    async def work(made: Served) -> None:
        said: Any = [{"role": role, "content": role * 5} for role in ("user", "assistant") * 3]
        said.append({"role": "user", "content": "last"})
        with pytest.raises(openai.BadRequestError, match="maximum context length is 60 tokens"):
            await made.openai.responses.create(model="m", input=said)
        answer = await made.openai.responses.create(
            model="m", input=said, truncation="auto", instructions="Be kind."
        )
        assert answer.output_text == "Ok"
        assert made.script.prompts[-1] == "s:Be kind.\nu:last\na:"
        with pytest.raises(openai.BadRequestError, match="maximum context length is 60 tokens"):
            await made.openai.responses.create(model="m", input="x" * 100, truncation="auto")

    run(work, "Ok", context=60)


def test_an_item_is_referred_to_by_its_id() -> None:
    async def work(made: Served) -> None:
        tools: Any = [WEATHER]
        first = await made.openai.responses.create(model="m", input="Rome?", tools=tools)
        (called,) = first.output
        assert called.type == "function_call"
        for reference in ({"type": "item_reference", "id": called.id}, {"id": called.id}):
            given: Any = [
                {"role": "user", "content": "Rome?"},
                reference,
                {"type": "function_call_output", "call_id": called.call_id, "output": "sunny"},
            ]
            await streamed(made, input=given, tools=tools)
        whole: Any = [given[0], called.to_dict(), given[2]]
        kept = await made.openai.responses.create(model="m", input=whole, tools=tools, store=False)
        assert made.script.prompts[1] == made.script.prompts[2] == made.script.prompts[3]
        for unknown in (kept.output[0].id, "msg_none"):
            strange: Any = {"type": "item_reference", "id": unknown}
            with pytest.raises(openai.NotFoundError, match=unknown) as refused:
                await made.openai.responses.create(model="m", input=[given[0], strange])
            assert (refused.value.param, refused.value.code) == ("input", "item_not_found")

    run(work, CALL, "Sunny.")


def test_the_input_of_a_response_is_listed_with_all_that_it_continues() -> None:
    async def work(made: Served) -> None:
        first = await made.openai.responses.create(model="m", input="One", instructions="Once.")
        second = await made.openai.responses.create(
            model="m", input=[{"role": "user", "content": "Two"}], previous_response_id=first.id
        )
        items: Any = [
            item async for item in made.openai.responses.input_items.list(second.id, order="asc", limit=1)
        ]
        assert [(item.type, item.role, item.content[0].text) for item in items] == [
            ("message", "user", "One"), ("message", "assistant", "A"), ("message", "user", "Two"),
        ]  # fmt: skip
        assert items[1].id == first.output[0].id
        newest = await made.openai.responses.input_items.list(second.id, limit=2)
        assert [item.id for item in newest.data] == [items[2].id, items[1].id]
        assert newest.has_more
        with pytest.raises(openai.NotFoundError):
            await made.openai.responses.input_items.list("resp_none")

    run(work, "A", "B")


def test_input_tokens_are_what_the_response_reports() -> None:
    async def work(made: Served) -> None:
        tools: Any = [WEATHER]
        asked: Any = {"model": "m", "instructions": "Be kind.", "input": "Hi", "tools": tools}
        first = await made.openai.responses.create(**asked)
        counted = await made.openai.responses.input_tokens.count(**asked)
        assert first.usage is not None
        assert (counted.object, counted.input_tokens) == ("response.input_tokens", first.usage.input_tokens)
        second = await made.openai.responses.create(model="m", input="More", previous_response_id=first.id)
        more = await made.openai.responses.input_tokens.count(
            model="m", input="More", previous_response_id=first.id
        )
        assert second.usage is not None
        assert more.input_tokens == second.usage.input_tokens
        assert (
            await made.openai.responses.input_tokens.count(model="m", input="x" * 5000)
        ).input_tokens > 5000
        with pytest.raises(openai.BadRequestError, match="input is missing"):
            await made.openai.responses.input_tokens.count(model="m")

    run(work, "Hello.")


def test_what_only_background_responses_and_openai_have_is_refused_with_the_reason() -> None:
    async def work(made: Served) -> None:
        first = await made.openai.responses.create(model="m", input="Hi")
        with pytest.raises(openai.BadRequestError, match="only background responses"):
            await made.openai.responses.cancel(first.id)
        with pytest.raises(openai.NotFoundError, match="resp_none"):
            await made.openai.responses.cancel("resp_none")
        trigger: Any = [{"role": "user", "content": "Hi"}, {"type": "compaction_trigger"}]
        with pytest.raises(openai.BadRequestError, match=r"input\[1\]: compaction_trigger is not supported"):
            await made.openai.responses.create(model="m", input=trigger)

    run(work, "Ok")


def test_a_conversation_is_compacted_and_goes_on() -> None:
    async def work(made: Served) -> None:
        first = await made.openai.responses.create(model="m", input="Rome?", tools=[WEATHER])  # type: ignore[list-item]
        said: Any = [
            {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "sunny"},  # type: ignore[union-attr]
            {"role": "user", "content": "And Oslo?"},
        ]
        compacted = await made.openai.responses.compact(
            model="m", input=said, previous_response_id=first.id, instructions="Be brief."
        )
        assert compacted.object == "response.compaction"
        assert [item.type for item in compacted.output] == ["message", "message", "compaction"]
        assert len({item.id for item in compacted.output}) == 3
        assert compacted.usage.output_tokens > 0
        asked = made.script.prompts[-1]
        assert "<tool_response>\nsunny\n</tool_response>" in asked
        assert asked.index("And Oslo?") < asked.index("Summarise this conversation")
        # As the Agents SDK keeps them: the library's types know only the assistant's messages.
        kept = [item.model_dump(exclude_unset=True, warnings=False) for item in compacted.output]
        again: Any = [*kept, {"role": "user", "content": "Paris?"}]
        twice = await made.openai.responses.compact(model="m", input=again)
        assert [item.type for item in twice.output] == ["message"] * 3 + ["compaction"]
        await made.openai.responses.create(model="m", input=again)
        prompt = made.script.prompts[-1]
        assert "sunny" not in prompt
        places = [prompt.index(text) for text in ("Rome?", "And Oslo?", "Rome is grün.", "Paris?")]
        assert places == sorted(places)

    run(work, CALL, "Rome is grün.", "Both.", "Ok")


def test_a_summary_has_room_in_a_small_context() -> None:
    async def work(made: Served) -> None:
        turns: Any = [{"role": role, "content": "word " * 60} for role in ("user", "assistant") * 12]
        compacted = await made.openai.responses.compact(model="m", input=turns)
        assert [item.type for item in compacted.output] == ["message"] * 12 + ["compaction"]
        assert compacted.usage.input_tokens < 1000
        with pytest.raises(openai.BadRequestError, match="input is missing"):
            await made.openai.responses.compact(model="m")

    run(work, "Short.", context=1000)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/responses", "POST"),
        ("PUT", "/v1/responses/resp_1", "GET, DELETE, HEAD"),
        ("GET", "/v1/responses/input_tokens", "POST"),
        ("DELETE", "/v1/responses/compact", "POST"),
        ("POST", "/v1/responses/resp_1/input_items", "GET, HEAD"),
        ("GET", "/v1/responses/resp_1/cancel", "POST"),
        ("GET", "/v1/responses/resp_1", None),
        ("GET", "/v1/responses/resp_1/other", None),
        ("GET", "/v1/responses/resp_1/input_items/x", None),
    ],
)
def test_other_methods_and_paths(method: str, path: str, allowed: str | None) -> None:
    async def work(made: Served) -> None:
        answer = await made.http.request(method, path)
        assert answer.status_code == (404 if allowed is None else 405)
        assert answer.headers.get("allow") == allowed
        assert answer.json()["error"]["code"] == ("not_found" if allowed is None else "method_not_allowed")

    run(work, "Ok")


def test_all_system_messages_are_one_at_the_beginning() -> None:
    async def work(made: Served) -> None:
        given: Any = [
            {"role": "developer", "content": "Two."},
            {"role": "user", "content": "Hi"},
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Three."}]},
        ]
        await made.openai.responses.create(model="m", input=given, instructions="One.")
        assert made.script.prompts == ["s:One.\n\nTwo.\n\nThree.\nu:Hi\na:"]

    run(work, "Ok")


def test_a_function_of_a_namespace_is_called_as_the_client_knows_it() -> None:
    async def work(made: Served) -> None:
        tools: Any = [
            {"type": "namespace", "name": "sky", "description": "", "tools": [WEATHER]},
            {"type": "web_search"},
        ]
        events = await streamed(made, input="Rome?", tools=tools)
        done = [event.item for event in events if event.type == "response.output_item.done"]
        (called,) = events[-1].response.output
        assert (called.name, called.namespace) == ("weather", "sky")
        assert done == [called]
        assert [tool.type for tool in events[-1].response.tools] == ["namespace"]

    run(work, CALL)


PATCH_CALL = '<tool_call>\n{"name": "patch", "arguments": {"input": "*** Begin\\n+x"}}\n</tool_call>'


def test_a_custom_tool_gets_its_text() -> None:
    async def work(made: Served) -> None:
        tools: Any = [{"type": "custom", "name": "patch", "description": "Edits files."}, WEATHER]
        events = await streamed(made, input="Edit", tools=tools)
        check_order(events)
        (called,) = events[-1].response.output
        assert (called.type, called.name, called.input) == ("custom_tool_call", "patch", "*** Begin\n+x")
        deltas = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
        (done,) = [event for event in events if event.type == "response.custom_tool_call_input.done"]
        assert "".join(deltas) == done.input == called.input
        assert [tool.type for tool in events[-1].response.tools] == ["custom", "function"]
        result: Any = [{"type": "custom_tool_call_output", "call_id": called.call_id, "output": "done"}]
        whole = await made.openai.responses.create(
            model="m", input=result, previous_response_id=events[-1].response.id, tools=tools
        )
        assert [item.type for item in whole.output] == ["custom_tool_call", "function_call"]
        prompt = made.script.prompts[-1]
        assert '"input": "*** Begin\\n+x"' in prompt
        assert "<tool_response>\ndone\n</tool_response>" in prompt

    run(work, PATCH_CALL, PATCH_CALL + CALL)


def test_parameters_that_mean_nothing_here_come_back_and_null_is_a_default() -> None:
    async def work(made: Served) -> None:
        harmless: dict[str, Any] = {
            "max_tool_calls": 3, "prompt_cache_key": "k", "safety_identifier": "s", "metadata": {"a": "1"},
            "text": {"verbosity": "low"}, "reasoning": {"effort": "low", "summary": "auto"}, "service_tier": "priority",
            "include": ["reasoning.encrypted_content"], "stream_options": {"include_obfuscation": False},
            "prompt_cache_retention": "24h", "client_metadata": {"x": "y"}, "top_logprobs": 0, "moderation": None,
        }  # fmt: skip
        answer = (await made.http.post("/v1/responses", json={"model": "m", "input": "x"} | harmless)).json()
        for name in ("max_tool_calls", "prompt_cache_key", "safety_identifier", "metadata"):
            assert answer[name] == harmless[name]
        assert answer["text"] == {"format": {"type": "text"}, "verbosity": "low"}
        assert answer["output"][0]["content"][0]["logprobs"] == []
        every = dict.fromkeys(ResponsesBody.model_fields) | {"model": "m", "input": "x"}
        answer = (await made.http.post("/v1/responses", json=every)).json()
        assert (answer["status"], answer["store"], answer["truncation"]) == ("completed", True, "disabled")

    run(work, "Ok")


IMAGE = [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "input", "missing"),
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "empty"),
        ({"input": 5}, "input", "list of items"),
        ({"input": IMAGE}, "input", "input_image"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input", "'tool'"),
        ({"input": [{"role": "user"}]}, "input", "content"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input", "call_id"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens", "greater"),
        ({"input": "x", "max_output_tokens": 10**6}, "input", "context"),
        ({"input": "x", "temperature": 3}, "temperature", "less"),
        ({"input": "x", "background": True}, "background", "not supported"),
        ({"input": "x", "conversation": "c"}, "conversation", "not supported"),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt", "not supported"),
        ({"input": "x", "n": 2}, "n", "must be 1"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools", "tools[0].name"),
        ({"input": "x", "tools": [{"type": 5}]}, "tools", "tools[0].type"),
        ({"input": "x", "tool_choice": {"type": "web_search"}}, "tool_choice", "web_search"),
        ({"input": "x", "tool_choice": "required"}, "tool_choice", "no function to call"),
        ({"input": "x", "text": {"format": "json"}}, "text.format", "object"),
        ({"input": "x", "truncation": "some"}, "truncation", "auto"),
        ({"input": "x", "reasoning": {"effort": 5}}, "reasoning", "effort"),
    ],
    ids=str,
)
def test_bad_values_name_their_parameter(body: dict[str, Any], param: str, words: str) -> None:
    async def work(made: Served) -> None:
        answer = await made.http.post("/v1/responses", json={"model": "m"} | body)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["param"] == param, error
        assert words in error["message"], error

    run(work, "Ok")
