"""A real model behind a real worker process, asked by the ``openai`` SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal, cast

import httpx
import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.worker.server import SMOLLM2, Worker, started
from tests.support.waiting import wait_until

FRANCE: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Name the capital of France."}]
STORY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Write a long story about the sea."}]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    arguments = ("--model-names", "smollm2,gpt-3.5-turbo", "--limit-worker-concurrency", "8")
    with started(SMOLLM2, *arguments) as running:
        yield running


@pytest.fixture
def client(worker: Worker) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=worker.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


def test_it_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smollm2", messages=FRANCE, temperature=0)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "smollm2"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_a_stream_says_the_same_and_counts(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-3.5-turbo", messages=FRANCE, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == (
        "The capital of France is Paris."
    )
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert {c.model for c in chunks} == {"gpt-3.5-turbo"}
    assert len({c.id for c in chunks}) == 1


def test_the_same_seed_gives_the_same_answer_and_another_one_another(client: openai.OpenAI) -> None:
    def ask(seed: int) -> str | None:
        answer = client.chat.completions.create(
            model="smollm2", messages=STORY, temperature=1, seed=seed, max_tokens=24
        )
        assert answer.choices[0].finish_reason == "length"
        return answer.choices[0].message.content

    first = ask(7)
    assert ask(7) == first
    assert ask(8) != first


def test_several_answers_count_the_prompt_once(client: openai.OpenAI) -> None:
    one = client.chat.completions.create(model="smollm2", messages=STORY, max_tokens=5)
    three = client.chat.completions.create(model="smollm2", messages=STORY, max_tokens=5, n=3, seed=1)
    assert one.usage is not None
    assert three.usage is not None
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in three.choices}) > 1
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens == 15


def test_stop_strings_are_not_shown(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2", messages=FRANCE, temperature=0, stop=[" is Par", "never"]
    )
    assert answer.choices[0].message.content == "The capital of France"
    assert answer.choices[0].finish_reason == "stop"
    stream = client.chat.completions.create(
        model="smollm2", messages=FRANCE, temperature=0, stop=" is Par", stream=True
    )
    assert "".join(c.choices[0].delta.content or "" for c in stream) == "The capital of France"


def test_logprobs_of_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2", messages=FRANCE, temperature=0, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == answer.choices[0].message.content
    for entry in logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0
        assert bytes(entry.bytes or []).decode() == entry.token


def test_completions_take_texts_and_tokens_and_batches(client: openai.OpenAI, worker: Worker) -> None:
    text = "The capital of France is"
    ids = worker.post("/tokenize", prompt=text).json()["tokens"]
    assert worker.post("/detokenize", tokens=ids).json()["prompt"] == text
    prompts: list[Any] = [text, ids, [text, "The capital of Spain is"], [ids, ids]]
    texts = []
    for prompt in prompts:
        answer = client.completions.create(
            model="smollm2", prompt=prompt, temperature=0, max_tokens=4, logprobs=1
        )
        texts.append([choice.text for choice in answer.choices])
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4 * len(answer.choices)
    assert texts[0] == texts[1] == texts[2][:1] == texts[3][:1] == texts[3][1:]
    assert texts[0][0].startswith(" Paris")
    assert len(texts[2]) == 2


def test_echo_puts_the_prompt_first(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="smollm2", prompt="One two three", echo=True, temperature=0, max_tokens=2
    )
    assert answer.choices[0].text.startswith("One two three")


def test_models_are_listed_under_every_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2", "gpt-3.5-turbo"]
    assert client.models.retrieve("gpt-3.5-turbo").id == "gpt-3.5-turbo"


def test_another_models_name_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=FRANCE)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_embeddings_of_a_model_that_writes_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot make embeddings"):
        client.embeddings.create(model="smollm2", input="x")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": True}, "max_completion_tokens"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"min_tokens": 10, "max_tokens": 5}, "min_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": 5, "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"max_tokens": 100_000}, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "messages"),
        ({"stream": "yes"}, "stream"),
        ({"model": None}, "model"),
    ],
    ids=lambda value: json.dumps(value)[:50],
)  # fmt: skip
def test_bad_values_name_their_parameter(worker: Worker, body: dict[str, object], param: str) -> None:
    response = worker.post("/v1/chat/completions", **({"model": "smollm2", "messages": FRANCE} | body))
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_a_context_that_is_too_small_tells_the_counts(worker: Worker) -> None:
    response = worker.post("/v1/completions", model="smollm2", prompt=[5] * 100, max_tokens=8100)
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is 8192 tokens" in error["message"]
    assert "8200" in error["message"]


def test_a_prompt_is_cut_to_the_length_that_is_asked_for(worker: Worker) -> None:
    ask = {"model": "smollm2", "prompt": [5] * 8190 + [6, 7], "max_tokens": 4, "temperature": 0, "echo": True}
    whole = worker.post("/v1/completions", **ask | {"prompt": [5, 6, 7]}).json()
    cut = worker.post("/v1/completions", **ask, truncate_prompt_tokens=3).json()
    assert cut["usage"]["prompt_tokens"] == 3
    assert cut["choices"][0]["text"] == whole["choices"][0]["text"]
    chat = {"model": "smollm2", "messages": FRANCE, "max_tokens": 1}
    assert (
        worker.post("/v1/chat/completions", **chat, truncate_prompt_tokens=5).json()["usage"]["prompt_tokens"]
        == 5
    )
    own = worker.post("/v1/chat/completions", **chat).json()["usage"]["prompt_tokens"]
    fits = worker.post("/v1/chat/completions", **chat, truncate_prompt_tokens=-1).json()["usage"][
        "prompt_tokens"
    ]
    assert fits == own
    for wrong in (0, -2, 8193):
        refused = worker.post("/v1/completions", **ask, truncate_prompt_tokens=wrong)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "truncate_prompt_tokens"


def test_a_prompt_is_cut_to_what_fits() -> None:
    from llmlaunch.worker.api.generation.prompts import prompt_tokens_to_keep

    assert prompt_tokens_to_keep(None, 5, 50) is None
    assert prompt_tokens_to_keep(-1, 5, 50) == 45
    assert prompt_tokens_to_keep(-1, None, 50) == 49
    assert prompt_tokens_to_keep(-1, 60, 50) == 1, "the answer alone is too long, which is told elsewhere"
    assert prompt_tokens_to_keep(7, 5, 50) == 7


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null", b'"x"'])
def test_bad_json_is_a_400(worker: Worker, body: bytes) -> None:
    with worker.client() as client:
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize"):
            response = client.post(path, content=body)
            assert response.status_code == 400, response.text
            assert response.json()["error"]["message"]


def test_unknown_addresses_and_methods_have_envelopes(worker: Worker) -> None:
    assert worker.get("/v2/x").status_code == 404
    assert worker.get("/v2/x").json()["error"]["code"] == "not_found"
    assert worker.get("/v1/chat/completions").status_code == 405


def test_null_means_the_default(worker: Worker) -> None:
    names = (
        "temperature top_p top_k n max_tokens max_completion_tokens stop seed stream stream_options logit_bias "
        "presence_penalty frequency_penalty logprobs top_logprobs user tools tool_choice response_format"
    )
    body = dict.fromkeys(names.split()) | {"temperature": 0, "unknown_field": 1}
    response = worker.post("/v1/chat/completions", model="smollm2", messages=FRANCE, **body)
    assert response.json()["choices"][0]["message"]["content"] == "The capital of France is Paris."


def test_content_parts_names_and_the_developer_role(worker: Worker) -> None:
    messages = [
        {"role": "developer", "content": "You are terse."},
        {"role": "assistant", "content": None},
        {
            "role": "user",
            "name": "ann",
            "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}],
        },
    ]
    response = worker.post("/v1/chat/completions", model="smollm2", messages=messages, max_tokens=3)
    assert response.status_code == 200


def test_a_crowd_is_answered_and_leaves_nothing_behind(worker: Worker) -> None:
    """More requests than places, some of them leaving in the middle, some of them wrong."""

    async def crowd() -> list[object]:
        async with openai.AsyncOpenAI(base_url=worker.url + "/v1", api_key="none", max_retries=0) as client:

            async def whole(at: int) -> object:
                return await client.chat.completions.create(
                    model="smollm2", messages=STORY, max_tokens=8, temperature=1.0, seed=at
                )

            async def leaving() -> object:
                stream = await client.chat.completions.create(
                    model="smollm2", messages=STORY, stream=True, max_tokens=2000
                )
                async for _ in stream:
                    await stream.close()
                    return "left"
                return "over"

            async def wrong() -> object:
                return await client.chat.completions.create(model="smollm2", messages=STORY, temperature=9)

            jobs = [
                job for at in range(12) for job in (whole(at), *((leaving(), wrong()) if at % 4 == 0 else ()))
            ]
            return list(await asyncio.gather(*jobs, return_exceptions=True))

    results = asyncio.run(crowd())
    assert sum(isinstance(result, openai.BadRequestError) for result in results) == 3
    assert results.count("left") == 3
    assert sum(hasattr(result, "choices") for result in results) == 12
    wait_until(worker.idle, 20, "all requests are over")
    assert worker.metric("vllm:num_requests_running") == 0
    assert worker.metric("vllm:kv_cache_usage_perc") == 0


def test_a_client_that_leaves_frees_its_place(worker: Worker) -> None:
    for stream in (False, True):
        with worker.client() as client:
            body = {"model": "smollm2", "messages": STORY, "max_tokens": 7000, "stream": stream}
            request = client.build_request("POST", "/v1/chat/completions", json=body, timeout=0.5)
            if stream:
                response = client.send(request, stream=True)
                next(response.iter_bytes())
                response.close()
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.send(request)
        wait_until(worker.idle, 10, "the request is cancelled")


def test_metrics_and_health(worker: Worker) -> None:
    text = worker.get("/metrics").text
    for name in (
        "vllm:generation_tokens_total",
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:request_success_total",
    ):
        assert name in text
    health = worker.get("/health").json()
    assert health["status"] == "ok"
    assert health["mode"] == "continuous batching"
    assert worker.post("/worker_get_status").json() == {
        "model_names": ["smollm2", "gpt-3.5-turbo"], "speed": 1, "queue_length": 0,
    }  # fmt: skip
    assert worker.post("/model_details", model="smollm2").json() == {"context_length": 8192}
    assert worker.post("/count_token", model="smollm2", prompt="one two").json()["count"] == 2


def test_too_large_a_body_is_refused(worker: Worker) -> None:
    with worker.client() as client:
        response = client.post("/v1/completions", content=b" " * (33 << 20))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


class City(pydantic.BaseModel):
    name: str
    country: Literal["France", "Spain"]


def test_structured_answers_parse(client: openai.OpenAI, worker: Worker) -> None:
    parsed = client.chat.completions.parse(
        model="smollm2", messages=FRANCE, temperature=0, max_tokens=100, response_format=City
    )
    city = parsed.choices[0].message.parsed
    assert city is not None
    assert city.country in ("France", "Spain")
    chosen = worker.post(
        "/v1/completions", model="smollm2", prompt="Is Paris in France?", guided_choice=["yes", "no"]
    )
    assert chosen.json()["choices"][0]["text"] in ("yes", "no")
    assert chosen.json()["choices"][0]["finish_reason"] == "stop"
    refused = worker.post("/v1/completions", model="smollm2", prompt="x", guided_regex="([")
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "guided_regex"


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
ASK: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}], ids=str
)
def test_a_tool_that_must_be_called_is_called(client: openai.OpenAI, choice: Any) -> None:
    answer = client.chat.completions.create(
        model="smollm2", messages=ASK, tools=[WEATHER], tool_choice=choice, temperature=0, max_tokens=120,
        parallel_tool_calls=False,
    )  # fmt: skip
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    call: Any = calls[0]
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "unit"}
    stream = client.chat.completions.create(
        model="smollm2", messages=ASK, tools=[WEATHER], tool_choice=choice, temperature=0, max_tokens=120,
        parallel_tool_calls=False, stream=True,
    )  # fmt: skip
    names, pieces, content = [], [], ""
    for chunk in stream:
        delta = chunk.choices[0].delta
        content += delta.content or ""
        for part in delta.tool_calls or []:
            assert part.index == 0
            assert part.function is not None
            names += [part.function.name] if part.function.name else []
            pieces += [part.function.arguments or ""]
    assert names == ["get_weather"]
    assert content == ""
    assert "".join(pieces) == call.function.arguments
    assert len([piece for piece in pieces if piece]) > 3
    history = [*ASK, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "18 C"}]
    told = client.chat.completions.create(model="smollm2", messages=history, tools=[WEATHER], max_tokens=10)
    assert told.choices[0].finish_reason in ("length", "stop", "tool_calls")


WRITTEN_CALLS = [
    ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', ""),
    (
        "Look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        "Look.\n",
    ),
    ("<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>", ""),
    ("[get_weather(city='Paris')]", ""),
    ("<tool_call>and no call</tool_call>", None),
    ('{"name": "Bob", "age": 30}', None),
]


@pytest.mark.parametrize(("written", "text"), WRITTEN_CALLS)
def test_calls_in_whatever_format_a_model_writes_them(
    client: openai.OpenAI, written: str, text: str | None
) -> None:
    wanted: Any = {"model": "smollm2", "messages": ASK, "tools": [WEATHER], "max_tokens": 80}
    forced = {"guided_choice": [written]}
    answer = client.chat.completions.create(**wanted, extra_body=forced).choices[0]
    with client.chat.completions.stream(**wanted, extra_body=forced) as stream:
        for event in stream:
            if event.type == "chunk":
                indices = [part.index for part in event.chunk.choices[0].delta.tool_calls or ()]
                assert len(indices) == len(set(indices))
        streamed = stream.get_final_completion().choices[0]
    for choice in (answer, streamed):
        if text is None:
            assert (choice.message.content, choice.finish_reason) == (written, "stop")
            assert not choice.message.tool_calls
        else:
            [call] = list(choice.message.tool_calls or [])
            assert call.type == "function"
            assert (call.function.name, json.loads(call.function.arguments)) == (
                "get_weather",
                {"city": "Paris"},
            )
            assert (choice.message.content or "").strip() == text.strip()
            assert choice.finish_reason == "tool_calls"
            assert len(call.id) == 9
            assert call.id.isalnum()


def test_an_answer_in_a_form_that_was_asked_for_is_never_a_call(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"const": "get_weather"}, "arguments": {"const": {"city": "Paris"}}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema}}
    answer = client.chat.completions.create(
        model="smollm2", messages=ASK, tools=[WEATHER], response_format=form, max_tokens=60
    ).choices[0]
    assert json.loads(answer.message.content or "") == {"name": "get_weather", "arguments": {"city": "Paris"}}
    assert (answer.message.tool_calls, answer.finish_reason) == (None, "stop")


def test_tools_that_may_be_called_leave_an_answer_whole(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2", messages=FRANCE, tools=[WEATHER], temperature=0, max_tokens=60
    )
    message = answer.choices[0].message
    assert message.content or message.tool_calls


def test_likelihoods_of_a_given_text_as_evaluations_ask_for_them(client: openai.OpenAI) -> None:
    """echo, logprobs and no new token: how lm-evaluation-harness scores texts."""
    text = "The capital of France is Paris"
    answer = client.completions.create(
        model="smollm2", prompt=[text, "The capital of France is Rome"], echo=True, logprobs=1, max_tokens=0
    )
    paris, rome = (choice.logprobs for choice in answer.choices)
    assert paris is not None
    assert rome is not None
    assert paris.tokens is not None
    assert paris.token_logprobs is not None
    assert rome.token_logprobs is not None
    assert paris.text_offset is not None
    assert "".join(paris.tokens) == text
    assert cast("float | None", paris.token_logprobs[0]) is None  # the SDK's type knows only numbers
    assert paris.token_logprobs[-1] > rome.token_logprobs[-1]
    assert all(text[at:].startswith(token) for at, token in zip(paris.text_offset, paris.tokens, strict=True))
    assert answer.choices[0].text == text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0


def test_the_best_of_several_is_chosen(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="smollm2", prompt="Once", n=2, best_of=4, max_tokens=6, seed=1, logprobs=0
    )
    assert len(answer.choices) == 2
    choices: list[Any] = answer.choices
    means = [sum(choice.logprobs.token_logprobs) / 6 for choice in choices]
    assert means[0] >= means[1]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
    with pytest.raises(openai.BadRequestError, match="best_of"):
        client.completions.create(model="smollm2", prompt="Once", n=2, best_of=1)


def test_the_responses_api_answers_streams_and_remembers(client: openai.OpenAI) -> None:
    first = client.responses.create(model="smollm2", input="Name the capital of France.")
    assert "Paris" in first.output_text
    with client.responses.stream(
        model="smollm2",
        input="And what is the capital of Germany?",
        previous_response_id=first.id,
        max_output_tokens=200,
    ) as stream:
        told = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        second = stream.get_final_response()
    assert told == second.output_text
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.total_tokens
    assert second.usage.input_tokens_details.cached_tokens > 0

    class City(pydantic.BaseModel):
        name: str
        country: str

    parsed = client.responses.parse(
        model="smollm2", input="Tell me of Paris.", text_format=City, max_output_tokens=60
    ).output_parsed
    assert parsed is not None
    assert parsed.name
