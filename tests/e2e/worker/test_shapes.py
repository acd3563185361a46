"""Every answer of every endpoint is of OpenAI's types, whatever was asked; a stream says what a whole answer says."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.worker import shapes
from tests.e2e.worker.server import Worker

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
USER = {"role": "user", "content": "Hello"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "move",
        "parameters": {
            "type": "object",
            "properties": {"to": {"enum": ["up", "down"]}, "by": {"type": "integer", "maximum": 9, "minimum": 0}},
            "required": ["to"],
            "additionalProperties": False,
        },
    },
}  # fmt: skip
CALL = '<tool_call>\n{"name": "move", "arguments": {"to": "up"}}\n</tool_call>'
QUICK = settings(
    max_examples=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture(scope="module")
def client(writer: Worker) -> Iterator[httpx.Client]:
    with writer.client() as made:
        yield made


@pytest.fixture(scope="module")
def vectors(embedder: Worker) -> Iterator[httpx.Client]:
    with embedder.client() as made:
        yield made


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


SHARED: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(0, 5),
    "top_p": st.sampled_from((0, 0.5, 1)),
    "top_k": st.sampled_from((-1, 0, 1, 7)),
    "min_p": st.sampled_from((0.0, 0.2)),
    "repetition_penalty": st.sampled_from((1, 1.4)),
    "presence_penalty": st.sampled_from((-2, 0, 1.5)),
    "frequency_penalty": st.sampled_from((-2, 0.5)),
    "logit_bias": st.sampled_from(({}, {"70": 3}, {"1": 100}, {"2": 100}, {"198": 90, "199": 89})),
    "n": st.sampled_from((1, 2, 3)),
    "stop": st.sampled_from(("a", ["b", "\n", "�"], None)),
    "stop_token_ids": st.sampled_from(([], [70, 71, 72, 73, 74, 75])),
    "include_stop_str_in_output": st.booleans(),
    "ignore_eos": st.booleans(),
    "skip_special_tokens": st.booleans(),
    "user": st.just("someone"),
    "metadata": st.just({"a": "b"}),
    "nobody_knows": st.just([1]),
}
NUMBER = {"type": "integer", "maximum": 99, "minimum": 0}
FORMS = st.sampled_from(
    (
        {},
        {},
        {"guided_choice": ["yes", "no", "ünïcödé"]},
        {"guided_regex": "[a-z]{3,8}"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": NUMBER}}},
    )
)
CHATS = st.builds(
    lambda shared, own, form: shared | own | form,
    optional(**SHARED),
    st.fixed_dictionaries(
        {
            "temperature": st.sampled_from((0, 0, 1)),
            "max_tokens": st.integers(1, 14),
            "messages": st.sampled_from(
                (
                    [USER],
                    [{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": None}, USER],
                    [{"role": "user", "content": [{"type": "text", "text": "Grüße ☃ "}] * 2}],
                )
            ),
        },
        optional={"logprobs": st.just(True), "tools": st.just([TOOL])},
    ),
    FORMS,
)
PROMPTS = st.sampled_from(("Hello", "☃", [5, 6, 200], ["a", "bc"], [[9, 10], [11]]))
TEXTS = st.builds(
    lambda shared, own, form: shared | own | form,
    optional(**SHARED),
    st.fixed_dictionaries(
        {"temperature": st.sampled_from((0, 0, 1)), "max_tokens": st.integers(1, 14), "prompt": PROMPTS},
        optional={"logprobs": st.sampled_from((0, 2)), "echo": st.just(True)},
    ),
    FORMS,
)


def repeatable(body: dict[str, Any]) -> bool:
    return body["temperature"] == 0 or "seed" in body


@given(body=CHATS, top=st.sampled_from((0, 3)))
@QUICK
def test_any_chat_is_of_openais_type_and_streams_the_same(
    client: httpx.Client, body: dict[str, Any], top: int
) -> None:
    body = {"model": "tiny"} | body | ({"top_logprobs": top} if body.get("logprobs") else {})
    whole = shapes.chat(client.post(CHAT, json=body))
    assert len(whole.choices) == body.get("n", 1)
    options = {"include_usage": True}
    answer = client.post(CHAT, json=body | {"stream": True, "stream_options": options})
    chunks = shapes.chat_chunks(answer, usage=True)
    for choice in whole.choices:
        mine = [
            chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == choice.index
        ]
        assert mine[0].delta.role == "assistant"
        assert all(chunk.delta.role is None for chunk in mine[1:])
        entries = [entry for chunk in mine if chunk.logprobs for entry in chunk.logprobs.content or []]
        if body.get("logprobs"):
            assert choice.logprobs is not None
            for entry in choice.logprobs.content or []:
                assert len(entry.top_logprobs) == top
                assert entry.logprob <= 0
        else:
            assert choice.logprobs is None
            assert not entries
        if not repeatable(body):
            continue
        assert "".join(chunk.delta.content or "" for chunk in mine) == (choice.message.content or "")
        assert mine[-1].finish_reason == choice.finish_reason
        if choice.logprobs is not None:
            assert [entry.token for entry in entries] == [e.token for e in choice.logprobs.content or []]
    if repeatable(body):
        assert whole.usage is not None
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


@given(body=TEXTS)
@QUICK
def test_any_completion_is_of_openais_type_and_streams_the_same(
    client: httpx.Client, body: dict[str, Any]
) -> None:
    body = {"model": "tiny"} | body
    echo = bool(body.get("echo"))
    whole = shapes.completion(client.post(COMPLETIONS, json=body), echo=echo)
    assert whole.usage is not None
    several = isinstance(body["prompt"], list) and not isinstance(body["prompt"][0], int)
    assert len(whole.choices) == body.get("n", 1) * (len(body["prompt"]) if several else 1)
    answer = client.post(COMPLETIONS, json=body | {"stream": True, "stream_options": {"include_usage": True}})
    raw = [value["choices"][0] for value in shapes.events(answer) if value["choices"]]
    chunks = shapes.completion_chunks(answer, usage=True, echo=echo)
    for choice in whole.choices:
        mine = [
            chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == choice.index
        ]
        ends = [value["finish_reason"] for value in raw if value["index"] == choice.index]
        if "logprobs" in body:
            logprobs = choice.logprobs
            assert logprobs is not None
            assert logprobs.tokens is not None
            lists = (logprobs.token_logprobs, logprobs.top_logprobs, logprobs.text_offset)
            assert [len(part or []) for part in lists] == [len(logprobs.tokens)] * 3
            assert logprobs.text_offset == sorted(logprobs.text_offset or [])
        else:
            assert choice.logprobs is None
        if not repeatable(body):
            continue
        assert "".join(chunk.text for chunk in mine) == choice.text
        assert ends[-1] == choice.finish_reason
        if choice.logprobs is not None:
            for field in ("tokens", "text_offset"):
                pieces = [getattr(chunk.logprobs, field) for chunk in mine if chunk.logprobs]
                assert [item for piece in pieces for item in piece] == getattr(choice.logprobs, field)
    if repeatable(body):
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


CONVERSATIONS: list[Any] = [
    "Hello",
    [{"role": "user", "content": "Hello"}],
    [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": "Go."},
        {"type": "function_call", "call_id": "c1", "name": "move", "arguments": '{"to": "up"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "done"},
    ],
]
RESPONSES = st.builds(
    lambda body, form: body | form,
    st.fixed_dictionaries(
        {"input": st.sampled_from(CONVERSATIONS), "max_output_tokens": st.integers(1, 14)},
        optional={
            "temperature": st.sampled_from((0, 1)),
            "top_p": st.just(0.9),
            "instructions": st.just("Speak."),
            "store": st.booleans(),
            "metadata": st.just({"a": "b"}),
            "tools": st.just([{"type": "function"} | TOOL["function"] | {"strict": False}]),
            "include": st.just(["message.output_text.logprobs"]),
            "truncation": st.sampled_from(("auto", "disabled")),
            "user": st.just("someone"),
            "nobody_knows": st.just(1),
        },
    ),
    st.sampled_from(
        ({}, {"text": {"format": {"type": "json_schema", "name": "x", "schema": NUMBER, "strict": True}}})
    ),
)


@given(body=RESPONSES)
@QUICK
def test_any_response_is_of_openais_type_and_streams_the_same(
    client: httpx.Client, body: dict[str, Any]
) -> None:
    body = {"model": "tiny"} | body
    answer = client.post("/v1/responses", json=body)
    whole = shapes.response(answer)
    events = shapes.response_events(client.post("/v1/responses", json=body | {"stream": True}))
    last = events[-1].response
    texts = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert texts == last.output_text
    begun = [event.item.id for event in events if event.type == "response.output_item.added"]
    ended = [event.item.id for event in events if event.type == "response.output_item.done"]
    assert begun == ended == [item.id for item in last.output]
    if body.get("temperature") == 0:
        assert whole.output_text == last.output_text
        assert whole.status == last.status
        assert whole.usage is not None
        assert last.usage.output_tokens == whole.usage.output_tokens
    again = client.get(f"/v1/responses/{whole.id}")
    if body.get("store") is False:
        shapes.error(again)
    else:
        assert again.json() == answer.json()
        assert shapes.response(client.post("/v1/responses", json=body | {"previous_response_id": whole.id}))


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "move"}], ids=str)
def test_calls_in_responses_are_of_openais_type(client: httpx.Client, choice: Any) -> None:
    body = {
        "model": "tiny", "input": "Hello", "tools": [{"type": "function"} | TOOL["function"]], "temperature": 0,
        "tool_choice": choice, "parallel_tool_calls": False, "max_output_tokens": 400,
    }  # fmt: skip
    whole = shapes.response(client.post("/v1/responses", json=body))
    assert whole.status == "completed"
    calls: list[Any] = [item for item in whole.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["move"]
    events = shapes.response_events(client.post("/v1/responses", json=body | {"stream": True}))
    written = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    assert written == calls[0].arguments
    assert json.loads(written)["to"] in ("up", "down")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "move"}}], ids=str)
@pytest.mark.parametrize("temperature", [0, 1])
def test_calls_that_must_be_made_are_of_openais_type(
    client: httpx.Client, choice: Any, temperature: float
) -> None:
    body = {
        "model": "tiny", "messages": [USER], "tools": [TOOL], "tool_choice": choice, "seed": 4, "n": 2,
        "parallel_tool_calls": False, "temperature": temperature, "max_tokens": 400,
    }  # fmt: skip
    whole = shapes.chat(client.post(CHAT, json=body))
    chunks = shapes.chat_chunks(client.post(CHAT, json=body | {"stream": True}))
    for answer in whole.choices:
        assert answer.finish_reason == "tool_calls"
        calls: list[Any] = answer.message.tool_calls or []
        assert len(calls) == 1
        function = calls[0].function
        assert function.name == "move"
        assert json.loads(function.arguments)["to"] in ("up", "down")
        parts = [
            part
            for chunk in chunks
            if chunk.choices[0].index == answer.index
            for part in chunk.choices[0].delta.tool_calls or []
        ]
        assert parts[0].id
        assert parts[0].type == "function"
        assert all(part.id is None for part in parts[1:])
        assert "".join(part.function.arguments or "" for part in parts if part.function) == function.arguments
    ids = [call.id for answer in whole.choices for call in answer.message.tool_calls or []]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("before", ["", "I will. "])
def test_calls_that_the_model_chooses_to_make_are_of_openais_type(
    client: httpx.Client, calls: int, before: str
) -> None:
    """A regular expression takes the place of a model that is able to choose."""
    text = before + "\n".join([CALL] * calls)
    body = {
        "model": "tiny", "messages": [USER], "tools": [TOOL], "temperature": 0, "max_tokens": 400,
        "guided_choice": [text],
    }  # fmt: skip
    answer = shapes.chat(client.post(CHAT, json=body)).choices[0]
    assert answer.finish_reason == "tool_calls"
    assert (answer.message.content or "").strip() == before.strip()
    made: list[Any] = answer.message.tool_calls or []
    assert [(call.function.name, json.loads(call.function.arguments)) for call in made] == [
        ("move", {"to": "up"})
    ] * calls
    chunks = shapes.chat_chunks(client.post(CHAT, json=body | {"stream": True}))
    parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or []]
    assert [part.index for part in parts if part.id] == list(range(calls))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip() == before.strip()
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_models_are_of_openais_type(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    assert set(listed) == {"object", "data"}
    assert listed["object"] == "list"
    assert [shapes.model(card).id for card in listed["data"]] == ["tiny", "other"]
    assert shapes.model(client.get("/v1/models/tiny").json()).id == "tiny"


@given(
    given=st.sampled_from(("text", ["a", "b c"], [101, 2023, 102], [[101, 102], [2023]])),
    dimensions=st.sampled_from((None, 1, 384)),
)
@settings(QUICK, max_examples=10)
def test_embeddings_are_of_openais_type_in_both_encodings(
    vectors: httpx.Client, given: Any, dimensions: int | None
) -> None:
    body = {"model": "minilm", "input": given, "dimensions": dimensions}
    floats = shapes.embeddings(vectors.post("/v1/embeddings", json=body))
    raw = vectors.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()
    for item, other in zip(floats.data, raw["data"], strict=True):
        assert len(item.embedding) == (dimensions or 384)
        packed = base64.b64decode(other["embedding"], validate=True)
        assert struct.unpack(f"<{len(packed) // 4}f", packed) == pytest.approx(item.embedding, rel=1e-6)
    assert raw["usage"] == floats.usage.model_dump()


# -- what is wrong -----------------------------------------------------------------------------------------------------

JUNK = st.one_of(
    st.none(), st.booleans(), st.sampled_from((0, -1, 1, 2**31, 2**63, 10**30, 10**400, -(10**400), 0.5, -0.5, 1e308)),
    st.text(max_size=5), st.sampled_from(("\x00", "\ud800", "null", "auto", "x" * 300)),
    st.recursive(
        st.one_of(st.integers(-3, 3), st.text(max_size=3), st.none()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=6,
    ),
)  # fmt: skip
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"model": "tiny", "messages": [USER], "max_tokens": 3},
    COMPLETIONS: {"model": "tiny", "prompt": "x", "max_tokens": 3},
    "/v1/responses": {"model": "tiny", "input": "x", "max_output_tokens": 3},
    "/v1/engines/tiny/embeddings": {"input": "x"},
    "/api/v1/token_check": {"prompts": [{"model": "tiny", "prompt": "x", "max_tokens": 3}]},
    "/v1/embeddings": {"model": "tiny", "input": "x"},
    "/v1/rerank": {"model": "tiny", "query": "x", "documents": ["y"]},
    "/v1/score": {"model": "tiny", "text_1": "x", "text_2": "y"},
    "/tokenize": {"model": "tiny", "prompt": "x"},
    "/detokenize": {"model": "tiny", "tokens": [5]},
    "/count_token": {"model": "tiny", "prompt": "x"},
}
FIELDS = sorted(
    {field for body in GOOD.values() for field in body}
    | {*SHARED, "temperature", "logprobs", "top_logprobs", "echo", "suffix", "best_of", "stream", "stream_options"}
    | {"tools", "tool_choice", "parallel_tool_calls", "response_format", "guided_json", "guided_regex", "guided_choice"}
    | {"guided_grammar", "structured_outputs", "max_completion_tokens", "min_tokens", "priority", "dimensions"}
    | {"instructions", "max_output_tokens", "previous_response_id", "store", "text", "reasoning", "include"}
    | {"truncation", "background", "conversation", "prompt", "reasoning_effort", "include_reasoning"}
    | {"encoding_format", "add_generation_prompt", "continue_final_message", "chat_template_kwargs"}
)  # fmt: skip


def body_of(value: Any) -> bytes:
    """As JSON, also what Python's own rules would refuse to write."""
    return json.dumps(value).encode()


def judge(answer: httpx.Response) -> None:
    """Answered, or refused in the envelope as the client's mistake; never the worker's."""
    if answer.status_code != 200:
        shapes.error(answer)
        assert answer.status_code in (400, 404), answer.text
        assert "Traceback" not in answer.text
    elif answer.headers["content-type"].startswith("text/event-stream"):
        streamed = shapes.response_events if "event: response" in answer.text else shapes.events
        assert all("error" not in value for value in streamed(answer))


@given(path=st.sampled_from(sorted(GOOD)), field=st.sampled_from(FIELDS), value=JUNK)
@settings(QUICK, max_examples=250)
def test_any_value_in_any_field_is_answered_or_refused_in_the_envelope(
    client: httpx.Client, path: str, field: str, value: Any
) -> None:
    if field in ("max_tokens", "max_completion_tokens", "max_output_tokens") and isinstance(
        value, int | None
    ):
        value = (
            3 if value is None or value > 0 else value
        )  # a whole context of tokens is no mistake, only slow
    judge(client.post(path, content=body_of(GOOD[path] | {field: value})))


# Named, so that each is as mixed for the type checker as it is.
MESSAGES: list[Any] = [None, 1, "x", [], {}, {"role": 1, "content": "x"}]
VALUES: list[Any] = [
    1,
    [],
    [1],
    [{}],
    {},
    [{"type": "text"}],
    [{"type": "text", "text": 1}],
    True,
    [None],
    "\x00",
]
CALLS: list[Any] = [
    [{"function": None}], [{"function": {"name": 1}}], [{"function": {"name": "x", "arguments": "{"}}], [[]],
    [{"function": {"name": "x", "arguments": "[" * 100_000}}],
    [{"id": 1, "type": "x", "function": {"name": "x", "arguments": {"a": 1}}}], "x",
]  # fmt: skip
PARAMETERS: list[dict[str, Any]] = [
    {"type": "nonsense"}, {"properties": 3}, {"$ref": "#/nowhere"}, {"type": "object", "required": "x"},
    {"enum": []}, {"type": "string", "pattern": "(["}, {"allOf": 5}, {"$ref": "http://127.0.0.1:1/x.json"},
]  # fmt: skip
SCHEMAS: list[Any] = [
    {"type": 5}, {"anyOf": []}, {"type": "integer", "minimum": 5, "maximum": 1}, {"const": None}, False, [],
    {"type": "array", "minItems": 3, "maxItems": 2},
]  # fmt: skip
DEEP: list[dict[str, Any]] = [{"messages": [junk]} for junk in MESSAGES] + [
    {"messages": [USER | {key: value}]}
    for key in ("content", "role", "name", "tool_calls", "tool_call_id", "refusal", "function_call")
    for value in VALUES
] + [
    {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": calls}, USER]}
    for calls in CALLS
] + [
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}], "tool_choice": "required"}
    for parameters in PARAMETERS
] + [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}} for schema in SCHEMAS
] + [
    {"tools": [{"type": "function", "function": {"name": name}}]} for name in ("", "a b", "x" * 300, None, "\x00")
] + [
    {"guided_regex": "(a+)+$" * 20}, {"guided_regex": "a{1000000}"}, {"guided_grammar": "start: start"},
    {"guided_grammar": ""}, {"guided_choice": []}, {"guided_choice": [""]}, {"guided_json": "{"}, {"guided_json": "[" * 100_000},
    {"structured_outputs": {"regex": 1}}, {"structured_outputs": {"nothing": 1}},
    {"chat_template_kwargs": {"messages": 1}}, {"chat_template_kwargs": {"add_generation_prompt": 1}},
    {"chat_template_kwargs": {"conversation": 1}}, {"chat_template_kwargs": {"": 1}},
    {"stream_options": {"include_usage": "x"}}, {"stream": True, "stream_options": []},
]  # fmt: skip


ITEMS: list[Any] = [
    [], [1], [None], [{}], [[]], [{"role": "user"}], [{"role": "king", "content": "x"}], [{"type": "nonsense"}],
    [{"type": "message"}], [{"type": "function_call"}], [{"type": "function_call_output"}],
    [{"type": "function_call_output", "call_id": "nobody", "output": 5}],
    [{"type": "function_call", "call_id": 1, "name": 1, "arguments": 1}], [{"type": "reasoning"}],
    [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], [{"role": "user", "content": [5]}],
    [{"type": "item_reference", "id": "msg_1"}], [{"role": "user", "content": None}], [{"role": 5, "content": "x"}],
]  # fmt: skip
ELSE: list[dict[str, Any]] = [
    {"tools": [{"type": "web_search"}]}, {"tools": [{"type": "function"}]}, {"tools": [{"type": "function", "name": 5}]},
    {"tools": [5]}, {"tool_choice": {"type": "function", "name": "x"}}, {"tool_choice": "required"},
    {"text": {"format": 5}}, {"text": {"format": {"type": "json_schema"}}}, {"text": {"format": {"type": "x"}}},
    {"text": {"format": {"type": "json_schema", "name": "x", "schema": 5}}}, {"text": {"verbosity": 5}},
    {"reasoning": {"effort": 5}}, {"reasoning": {"effort": "much"}}, {"reasoning": {"summary": []}},
    {"previous_response_id": "resp_1"}, {"metadata": {"a": 1}}, {"include": ["nothing"]}, {"background": True},
    {"conversation": "conv_1"}, {"prompt": {"id": "x"}}, {"truncation": "x"}, {"max_output_tokens": 0},
]  # fmt: skip


@pytest.mark.parametrize(
    "change", [*({"input": items} for items in ITEMS), *ELSE], ids=lambda change: json.dumps(change)[:90]
)
@pytest.mark.parametrize("stream", [False, True])
def test_mistakes_in_responses_are_answered_or_refused_in_the_envelope(
    client: httpx.Client, change: dict[str, Any], stream: bool
) -> None:
    judge(client.post("/v1/responses", json=GOOD["/v1/responses"] | {"stream": stream} | change))


@pytest.mark.parametrize("change", DEEP, ids=lambda change: json.dumps(change)[:90])
def test_mistakes_deep_inside_are_answered_or_refused_in_the_envelope(
    client: httpx.Client, change: dict[str, Any]
) -> None:
    judge(client.post(CHAT, content=body_of(GOOD[CHAT] | change), timeout=20))


@pytest.mark.parametrize("path", sorted(GOOD))
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        b'"x"',
        b"[" * 100_000,
        b'{"model": NaN}',
        b'{"input": NaN}',
        b'{"a": "\\ud800"}',
    ],
)
def test_a_body_that_is_no_object_is_refused_in_the_envelope(
    client: httpx.Client, path: str, raw: bytes
) -> None:
    answer = client.post(path, content=raw)
    assert answer.status_code == 400
    shapes.error(answer)


@given(path=st.sampled_from(("/v1/embeddings", "/tokenize")), field=st.sampled_from(FIELDS), value=JUNK)
@settings(QUICK, max_examples=60)
def test_any_value_is_answered_or_refused_by_an_embedder(
    vectors: httpx.Client, path: str, field: str, value: Any
) -> None:
    body = GOOD[path] | {"model": "minilm"} | {field: value}
    judge(vectors.post(path, content=body_of(body)))


def test_after_all_this_the_log_has_no_traceback(
    client: httpx.Client, writer: Worker, embedder: Worker
) -> None:
    assert client.post(CHAT, json=GOOD[CHAT]).status_code == 200
    for worker in (writer, embedder):
        assert "Traceback" not in worker.log.read_text()
        assert worker.idle()
