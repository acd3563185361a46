"""The clients that people use, each by its own ways: openai's (sync, async, streams, parsing, tools) and LangChain's.

The model is tiny and random; what it must say is laid down by a form, so that its answers can be checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import openai
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from tests.e2e.worker.server import Worker
from tests.support.waiting import wait_until

HELLO: Any = [{"role": "user", "content": "Hello"}]
CALL = '<tool_call>\n{"name": "Turn", "arguments": {"to": "left"}}\n</tool_call>'


class Turn(pydantic.BaseModel):
    """Turn around."""

    to: Literal["left", "right"]


class Step(pydantic.BaseModel):
    """Go on."""

    steps: Annotated[int, pydantic.Field(ge=1, le=9)]
    fast: bool


class Walk(pydantic.BaseModel):
    first: Turn
    then: Step


TOOLS: Any = [openai.pydantic_function_tool(Turn), openai.pydantic_function_tool(Step)]


@pytest.fixture
def client(writer: Worker) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=writer.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


@contextlib.asynccontextmanager
async def asynchronous(worker: Worker) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=worker.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


# -- openai ------------------------------------------------------------------------------------------------------------


def test_whole_and_streamed_answers_say_the_same_to_every_kind_of_client(
    client: openai.OpenAI, writer: Worker
) -> None:
    rules: Any = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 12}
    whole = client.chat.completions.create(**rules)
    said = whole.choices[0].message.content
    streamed = client.chat.completions.create(**rules, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == said

    async def ask() -> list[str | None]:
        async with asynchronous(writer) as other:
            answers = await asyncio.gather(*(other.chat.completions.create(**rules) for _ in range(5)))
            stream = await other.chat.completions.create(**rules, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return [*(answer.choices[0].message.content for answer in answers), text]

    assert asyncio.run(ask()) == [said] * 6


def test_the_streaming_helper_follows_an_answer(client: openai.OpenAI, writer: Worker) -> None:
    rules: Any = {
        "model": "tiny", "messages": HELLO, "temperature": 0, "logprobs": True,
        "stream_options": {"include_usage": True}, "extra_body": {"guided_choice": ["Hello, world"]},
    }  # fmt: skip
    with client.chat.completions.stream(**rules) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= set(kinds)
    whole = client.chat.completions.create(**{k: v for k, v in rules.items() if k != "stream_options"})
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].message.content == "Hello, world"
    assert final.choices[0].finish_reason == "stop"
    assert final.usage is not None
    assert whole.usage is not None
    assert final.usage.completion_tokens == whole.usage.completion_tokens == len("Hello, world") + 1
    assert final.choices[0].logprobs is not None
    assert whole.choices[0].logprobs is not None
    assert final.choices[0].logprobs.content == whole.choices[0].logprobs.content

    async def follow() -> str | None:
        async with asynchronous(writer) as other, other.chat.completions.stream(**rules) as events:
            async for _ in events:
                pass
            return (await events.get_final_completion()).choices[0].message.content

    assert asyncio.run(follow()) == whole.choices[0].message.content


def test_parsed_answers(client: openai.OpenAI, writer: Worker) -> None:
    rules: Any = {"model": "tiny", "messages": HELLO, "temperature": 1, "seed": 3, "max_tokens": 600}
    parsed = client.chat.completions.parse(**rules, response_format=Walk).choices[0]
    assert isinstance(parsed.message.parsed, Walk)
    assert parsed.finish_reason == "stop"
    with client.chat.completions.stream(**rules, response_format=Walk) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed == parsed.message.parsed

    async def ask() -> Walk | None:
        async with asynchronous(writer) as other:
            answer = await other.chat.completions.parse(**rules, response_format=Walk)
            return answer.choices[0].message.parsed

    assert asyncio.run(ask()) == parsed.message.parsed
    free = client.chat.completions.create(
        **(rules | {"max_tokens": 9}), response_format={"type": "json_object"}
    )
    assert (free.choices[0].message.content or "").lstrip().startswith("{")


def test_calls_reach_last_years_client_library_as_well(writer: Worker) -> None:
    old = Path(sys.prefix) / "openai-2"
    assert old.is_dir(), "run `make venv`"
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("openai_2.py")), writer.url + "/v1"],
        env={"PYTHONPATH": str(old)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    calls = [["turn", '{"to": "left"}'], ["turn", '{"to": "right"}']]
    assert json.loads(ran.stdout) == {
        "version": "2.54.0",
        "whole": calls,
        "finish": "tool_calls",
        "streamed": calls,
        "streamed_finish": "tool_calls",
        "second": "I did.",
    }


def test_an_answer_that_was_cut_is_told_to_the_parser(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="tiny", messages=HELLO, max_tokens=3, response_format=Walk)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"Turn", "Step"}),
        ({"type": "function", "function": {"name": "Step"}}, {"Step"}),
        ({"type": "function", "function": {"name": "Turn"}}, {"Turn"}),
    ],
    ids=["required", "named-Step", "named-Turn"],
)
def test_tools_that_must_be_called(
    client: openai.OpenAI, writer: Worker, choice: Any, names: set[str]
) -> None:
    rules: Any = {
        "model": "tiny", "messages": HELLO, "tools": TOOLS, "tool_choice": choice, "temperature": 1, "seed": 2,
        "max_tokens": 600, "parallel_tool_calls": False,
    }  # fmt: skip
    whole = client.chat.completions.parse(**rules).choices[0]
    assert whole.finish_reason == "tool_calls"
    (call,) = whole.message.tool_calls or []
    assert call.function.name in names
    assert type(call.function.parsed_arguments).__name__ == call.function.name
    with client.chat.completions.stream(**rules) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls or []
    assert "".join(event.arguments_delta for event in deltas) == call.function.arguments
    assert streamed.function.parsed_arguments == call.function.parsed_arguments
    said: Any = whole.message  # the SDK sends its own messages back; its types do not say so
    told = client.chat.completions.create(
        model="tiny",
        messages=[*HELLO, said, {"role": "tool", "tool_call_id": call.id, "content": "done"}],
        tools=TOOLS,
        max_tokens=3,
    )
    assert told.usage is not None
    assert told.usage.prompt_tokens > 30


@pytest.mark.parametrize("choice", ["auto", None])
def test_tools_that_may_be_called(client: openai.OpenAI, choice: Any) -> None:
    rules: Any = {"model": "tiny", "messages": HELLO, "tools": TOOLS, "tool_choice": choice, "temperature": 0}
    called = client.chat.completions.parse(**rules, extra_body={"guided_choice": [CALL + "\n" + CALL]})
    calls = called.choices[0].message.tool_calls or []
    assert [call.function.parsed_arguments for call in calls] == [Turn(to="left")] * 2
    assert called.choices[0].finish_reason == "tool_calls"
    spoken = client.chat.completions.create(**rules, extra_body={"guided_choice": ["I will not."]})
    assert spoken.choices[0].message.content == "I will not."
    assert not spoken.choices[0].message.tool_calls
    assert spoken.choices[0].finish_reason == "stop"


def test_tools_that_must_not_be_called(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, tools=TOOLS, tool_choice="none", extra_body={"guided_choice": [CALL]}
    )
    assert answer.choices[0].message.content == CALL
    assert not answer.choices[0].message.tool_calls


def test_raw_answers_and_legacy_completions(client: openai.OpenAI, writer: Worker) -> None:
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_tokens=2)
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().object == "chat.completion"
    rules: Any = {"model": "tiny", "prompt": ["a", "b"], "temperature": 0, "max_tokens": 8, "logprobs": 2}
    whole = client.completions.create(**rules)
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(**rules, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert [texts[0], texts[1]] == [choice.text for choice in whole.choices]

    async def ask() -> list[str]:
        async with asynchronous(writer) as other:
            return [choice.text for choice in (await other.completions.create(**rules)).choices]

    assert asyncio.run(ask()) == [texts[0], texts[1]]


def test_responses_are_told_streamed_parsed_and_continued(client: openai.OpenAI, writer: Worker) -> None:
    rules: Any = {"model": "tiny", "input": "Hello", "temperature": 0, "max_output_tokens": 12}
    whole = client.responses.create(**rules)
    assert whole.status == "incomplete"
    assert whole.output_text
    streamed = client.responses.create(**rules, stream=True)
    said = "".join(event.delta for event in streamed if event.type == "response.output_text.delta")
    assert said == whole.output_text
    assert client.responses.retrieve(whole.id).output_text == whole.output_text
    after = client.responses.create(**rules, previous_response_id=whole.id)
    assert after.usage is not None
    assert whole.usage is not None
    assert after.usage.input_tokens > whole.usage.input_tokens
    listed = list(client.responses.input_items.list(after.id, limit=2, order="asc"))
    assert [item.type for item in listed] == ["message"] * 3
    assert listed[1].id == whole.output[0].id
    reference: Any = {"type": "item_reference", "id": whole.output[0].id}
    same: Any = [{"role": "user", "content": "Hello"}, reference, {"role": "user", "content": "Hello"}]
    assert client.responses.create(**(rules | {"input": same})).output_text == after.output_text
    counted = client.responses.input_tokens.count(model="tiny", input=same)
    assert counted.input_tokens == after.usage.input_tokens
    with pytest.raises(openai.BadRequestError, match="only background"):
        client.responses.cancel(whole.id)
    greedy: Any = {"model": "tiny", "input": "Hello", "temperature": 0, "max_output_tokens": 600}
    assert isinstance(client.responses.parse(**greedy, text_format=Walk).output_parsed, Walk)
    with client.responses.stream(**greedy, text_format=Walk) as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert said == final.output_text
    assert isinstance(final.output_parsed, Walk)
    tool: Any = {"type": "function", "name": "Turn", "parameters": Turn.model_json_schema(), "strict": False}
    called = client.responses.create(
        **greedy, tools=[tool], tool_choice={"type": "function", "name": "Turn"}
    ).output[0]
    assert called.type == "function_call"
    assert Turn.model_validate_json(called.arguments)

    async def ask() -> str:
        async with asynchronous(writer) as other:
            return str((await other.responses.create(**rules)).output_text)

    assert asyncio.run(ask()) == whole.output_text
    with pytest.raises(openai.BadRequestError, match="resp_none"):
        client.responses.create(**rules, previous_response_id="resp_none")
    unknown: Any = [{"type": "item_reference", "id": "msg_none"}]
    with pytest.raises(openai.NotFoundError, match="msg_none"):
        client.responses.create(**(rules | {"input": unknown}))


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"suffix": [" end"]}, "suffix", "string"),
        ({"n": 3, "best_of": 2}, "best_of", "less than n"),
        ({"best_of": 2, "stream": True}, "best_of", "streamed"),
        ({"prompt": [1, 10**6]}, "prompt", "not a token"),
        ({"prompt": ["x"] * 65, "n": 2}, "prompt", "130|65 prompts"),
        ({"max_tokens": 0}, "max_tokens", "echo"),
        ({"prompt": [5] * 2000, "max_tokens": 100}, "prompt", "2100.*2000 in the prompt and 100"),
    ],
    ids=["suffix", "best_of below n", "best_of streamed", "not a token", "many", "nothing", "context"],
)
def test_completions_that_cannot_be_are_refused_by_their_parameter(
    writer: Worker, body: dict[str, Any], param: str, words: str
) -> None:
    answer = writer.post("/v1/completions", **({"model": "tiny", "prompt": "x", "max_tokens": 2} | body))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert re.search(words, answer.json()["error"]["message"])


def test_the_middle_between_prompt_and_suffix(client: openai.OpenAI) -> None:
    rules: Any = {"model": "tiny", "max_tokens": 6, "temperature": 0}
    asked: Any = rules | {"prompt": "def f():", "suffix": "\n    return x"}
    whole = client.completions.create(**asked, logprobs=0, echo=True)
    prefix, suffix = len("def f():"), len("\n    return x")
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == prefix + suffix + 3
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert "".join((logprobs.tokens or [])[:prefix]) == "def f():"
    assert None not in (logprobs.token_logprobs or [])
    assert logprobs.text_offset is not None
    assert logprobs.text_offset[: prefix + 1] == list(range(prefix + 1))
    # What the model reads: the same prompt, its marks written out.
    marked = client.completions.create(
        **rules, prompt="<fim_prefix>def f():<fim_suffix>\n    return x<fim_middle>"
    )
    assert whole.choices[0].text == "def f():" + marked.choices[0].text
    streamed = client.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == marked.choices[0].text


def test_fields_that_mean_nothing_here_are_taken(writer: Worker) -> None:
    extra: dict[str, Any] = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "suffix": None,
        "x": 1,
    }
    assert writer.chat(max_tokens=2, **extra).status_code == 200
    completed = writer.post("/v1/completions", model="tiny", prompt="x", max_tokens=2, **extra)
    assert completed.status_code == 200


def test_a_shared_beginning_is_counted_as_cached(writer: Worker) -> None:
    prompt = "Everybody begins with the same words, which are computed once. "
    asked = {"model": "tiny", "max_tokens": 2}
    writer.post("/v1/completions", prompt=prompt + "One.", **asked)
    again = writer.post("/v1/completions", prompt=prompt + "Two.", **asked).json()["usage"]
    assert len(prompt) <= again["prompt_tokens_details"]["cached_tokens"] < again["prompt_tokens"]


def test_errors_arrive_as_the_sdks_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="tiny", messages=HELLO, temperature=3)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=10**6, stream=True)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4", messages=HELLO)
    assert unknown.value.code == "model_not_found"


def test_whoever_stops_reading_frees_the_place(client: openai.OpenAI, writer: Worker) -> None:
    rules: Any = {"model": "tiny", "messages": HELLO, "max_tokens": 1900, "extra_body": {"ignore_eos": True}}
    with client.chat.completions.create(**rules, stream=True) as stream:
        next(iter(stream))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(**rules)

    async def leave() -> None:
        async with asynchronous(writer) as other:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await other.chat.completions.create(**rules)

    asyncio.run(leave())
    wait_until(writer.idle, 10, "the places are free")


def test_embeddings(embedder: Worker) -> None:
    rules: Any = {"model": "minilm", "input": ["one", "two"]}
    with openai.OpenAI(base_url=embedder.url + "/v1", api_key="none", max_retries=0) as client:
        packed = client.embeddings.create(**rules)  # base64 on the wire, unless floats are asked for
        floats = client.embeddings.create(**rules, encoding_format="float", dimensions=384)
        tokens = client.embeddings.create(model="minilm", input=[[101, 2028, 102]])
    for one, other in zip(packed.data, floats.data, strict=True):
        assert len(one.embedding) == 384
        assert one.embedding == pytest.approx(other.embedding, rel=1e-6)
    assert len(tokens.data[0].embedding) == 384

    async def ask() -> list[float]:
        async with asynchronous(embedder) as other:
            return (await other.embeddings.create(**rules)).data[1].embedding

    assert asyncio.run(ask()) == pytest.approx(packed.data[1].embedding, rel=1e-5, abs=1e-6)


# -- LangChain ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def chat(writer: Worker) -> Iterator[ChatOpenAI]:
    with httpx.Client(trust_env=False) as http:
        yield ChatOpenAI(
            base_url=writer.url + "/v1", api_key=SecretStr("none"), model="tiny", temperature=0, max_retries=0,
            max_completion_tokens=12, http_client=http,
        )  # fmt: skip


def test_langchain_invokes_streams_and_batches(chat: ChatOpenAI) -> None:
    messages = [SystemMessage("Be brief."), HumanMessage("Hello"), AIMessage("Yes?"), HumanMessage("Go on.")]
    answer = chat.invoke(messages)
    assert isinstance(answer, AIMessage)
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 12
    chunks = list(chat.stream(messages))
    assert "".join(str(chunk.content) for chunk in chunks) == answer.content
    assert [answer.content] * 3 == [other.content for other in chat.batch([messages] * 3)]
    told = chat.bind(logprobs=True, top_logprobs=2).invoke(messages).response_metadata["logprobs"]
    assert len(told["content"]) == 12


def test_langchain_asks_asynchronously(writer: Worker, chat: ChatOpenAI) -> None:
    async def ask() -> tuple[Any, str]:
        async with httpx.AsyncClient(trust_env=False) as http:
            other = ChatOpenAI(
                base_url=writer.url + "/v1", api_key=SecretStr("none"), model="tiny", temperature=0, max_retries=0,
                max_completion_tokens=12, http_async_client=http, http_client=chat.http_client,
            )  # fmt: skip
            whole = await other.ainvoke("Hello")
            return whole.content, "".join([str(chunk.content) async for chunk in other.astream("Hello")])

    whole, streamed = asyncio.run(ask())
    assert whole == streamed == chat.invoke("Hello").content


def test_langchain_calls_tools_and_tells_their_results(chat: ChatOpenAI) -> None:
    bound = chat.bind_tools([Turn, Step], tool_choice="Step").bind(max_tokens=600)
    answer: Any = bound.invoke("Hello")
    (call,) = answer.tool_calls
    assert call["name"] == "Step"
    assert Step(**call["args"])
    chunks: Any = list(bound.stream("Hello"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert [(made["name"], made["args"]) for made in whole.tool_calls] == [("Step", call["args"])]
    result = ToolMessage("done", tool_call_id=call["id"])
    after = chat.bind_tools([Turn, Step]).invoke([HumanMessage("Hello"), answer, result])
    assert isinstance(after, AIMessage)
    free: Any = chat.bind_tools([Turn], tool_choice="auto").bind(
        extra_body={"guided_choice": [CALL]}, max_tokens=300
    )
    assert [made["args"] for made in free.invoke("Hello").tool_calls] == [{"to": "left"}]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_parses_answers(chat: ChatOpenAI, method: Any) -> None:
    long = chat.model_copy(update={"max_tokens": 900})
    assert isinstance(long.with_structured_output(Walk, method=method).invoke("Hello"), Walk)


def test_langchain_embeds(embedder: Worker) -> None:
    async def ask(embeddings: OpenAIEmbeddings) -> list[list[float]]:
        return await embeddings.aembed_documents(["one", "two"])

    async def both() -> tuple[list[list[float]], list[list[float]], list[float]]:
        async with httpx.AsyncClient(trust_env=False) as later:
            with httpx.Client(trust_env=False) as http:
                # Otherwise it sends token ids of OpenAI's own tokenizer, which mean something else to other models.
                embeddings = OpenAIEmbeddings(
                    base_url=embedder.url + "/v1", api_key=SecretStr("none"), model="minilm", max_retries=0,
                    check_embedding_ctx_length=False, http_client=http, http_async_client=later,
                )  # fmt: skip
                documents = embeddings.embed_documents(["one", "two"])
                return documents, await ask(embeddings), embeddings.embed_query("one")

    documents, later, query = asyncio.run(both())
    assert [len(vector) for vector in documents] == [384, 384]
    assert query == pytest.approx(documents[0], rel=1e-5, abs=1e-6)
    for one, other in zip(documents, later, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


def test_afterwards_nothing_is_left(writer: Worker) -> None:
    wait_until(writer.idle, 10, "all is over")
    log = writer.log.read_text()
    assert "Traceback" not in log, log
    assert json.loads(writer.get("/health").text)["status"] == "ok"
