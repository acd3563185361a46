"""Answers held against OpenAI's types, strictly: as the ``openai`` SDK publishes them, and no field that nobody knows.

The SDK itself takes almost anything: it fills its types without a check. Here every field must have its type, and what
the published API reference calls required must be there, also where the SDK would put a default.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

import httpx
import pydantic
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseIncompleteEvent,
    ResponseStreamEvent,
)

Kind = TypeVar("Kind", bound=pydantic.BaseModel)


def _item(kind: type[pydantic.BaseModel], field: str) -> Any:
    """The type of the items of a list."""
    return get_args(kind.model_fields[field].annotation)[0]


REQUIRED: dict[Any, set[str]] = {
    ChatCompletion: {"id", "object", "created", "model", "choices", "usage"},
    _item(ChatCompletion, "choices"): {"index", "message", "logprobs", "finish_reason"},
    ChatCompletionChunk: {"id", "object", "created", "model", "choices"},
    _item(ChatCompletionChunk, "choices"): {"index", "delta", "finish_reason"},
    Completion: {"id", "object", "created", "model", "choices"},
    _item(Completion, "choices"): {"index", "text", "logprobs", "finish_reason"},
    Response: {
        "id", "object", "created_at", "status", "error", "incomplete_details", "instructions", "model", "tools",
        "output", "parallel_tool_calls", "metadata", "tool_choice", "temperature", "top_p", "usage",
    },
    CreateEmbeddingResponse: {"object", "data", "model", "usage"},
}  # fmt: skip
"""Fields that the API reference requires, by the SDK's types."""
OURS = {
    "Choice": {"stop_reason"},
    "CompletionChoice": {"stop_reason"},
    "Response": {"store"},
    "Logprob": {"bytes"},
    "LogprobTopLogprob": {"bytes"},
    "ResponseFunctionCallArgumentsDoneEvent": {"name"},
    "Model": {"root", "parent", "permission", "max_model_len"},
}
"""Fields that the SDK's types do not have, by these: OpenAI tells those of responses all the same, the others are vLLM's."""
USAGE = {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"}


def conform(kind: type[Kind], value: Any) -> Kind:
    """``value``, which came as JSON, as ``kind``. Fails on a wrong type, a missing field or a strange one."""
    found = kind.model_validate_json(json.dumps(value), strict=True)
    for part in _parts(found):
        name = type(part).__name__
        strange = set(part.model_extra or ()) - OURS.get(name, set())
        assert not strange, f"{name} has {strange}"
        missing = REQUIRED.get(type(part), set()) - part.model_fields_set
        assert not missing, f"{name} lacks {missing}"
    return found


def _parts(value: Any) -> Iterator[pydantic.BaseModel]:
    if isinstance(value, pydantic.BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from _parts(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            yield from _parts(item)


def chat(answer: httpx.Response) -> ChatCompletion:
    value = _ok(answer)
    found = conform(ChatCompletion, value)
    _usage(value["usage"])
    assert [choice.index for choice in found.choices] == list(range(len(found.choices)))
    for choice, raw in zip(found.choices, value["choices"], strict=True):
        assert {"role", "content", "refusal"} <= set(raw["message"])
        if choice.message.tool_calls:
            for call in raw["message"]["tool_calls"]:
                assert set(call) == {"id", "type", "function"}
        else:
            assert choice.message.content is not None
            assert "tool_calls" not in raw["message"]
    return found


def completion(answer: httpx.Response, *, echo: bool = False) -> Completion:
    value = _ok(answer)
    _usage(value["usage"])
    found = conform(Completion, _told(value) if echo else value)
    assert [choice.index for choice in found.choices] == list(range(len(found.choices)))
    return found


def _told(value: dict[str, Any]) -> dict[str, Any]:
    """OpenAI tells null for the first token of a prompt, which nothing stands before; its SDK's type has forgotten it."""
    value = json.loads(json.dumps(value))
    for choice in value["choices"]:
        logprobs = choice["logprobs"] or {}
        if logprobs.get("text_offset", [None])[:1] == [0]:
            assert logprobs["token_logprobs"][0] is None
            assert logprobs["top_logprobs"][0] is None
            logprobs["token_logprobs"][0], logprobs["top_logprobs"][0] = 0.0, {}
    return value


def _usage(value: dict[str, Any]) -> None:
    assert set(value) == USAGE
    assert value["total_tokens"] == value["prompt_tokens"] + value["completion_tokens"]
    assert 0 <= value["prompt_tokens_details"]["cached_tokens"] <= value["prompt_tokens"]


def _ok(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    value: dict[str, Any] = answer.json()
    return value


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The objects of a stream, which must be framed as it should and end as it should."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
    parts = answer.content.decode().split("\n\n")
    assert parts.pop() == ""
    assert parts.pop() == "data: [DONE]"
    assert all(part.startswith("data: ") and "\n" not in part for part in parts)
    return [json.loads(part[6:]) for part in parts]


def chat_chunks(answer: httpx.Response, *, usage: bool = False) -> list[ChatCompletionChunk]:
    values = events(answer)
    found = [conform(ChatCompletionChunk, value) for value in values]
    _stream(values, usage=usage)
    for value in values:
        for choice in value["choices"]:
            assert set(choice["delta"]) <= {"role", "content", "tool_calls"}
    return found


def completion_chunks(answer: httpx.Response, *, usage: bool = False, echo: bool = False) -> list[Completion]:
    values = events(answer)
    _stream(values, usage=usage)
    found = []
    for value in values:
        value = _told(value) if echo else value
        # The SDK has one type for whole answers and for chunks, and only the former always have a reason.
        for choice in value["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        found.append(conform(Completion, value))
    return found


def _stream(values: list[dict[str, Any]], *, usage: bool) -> None:
    """One id, one model, one end for every choice and nothing after it; the usage once, at the end, if asked for."""
    assert len({(value["id"], value["created"], value["model"], value["object"]) for value in values}) == 1
    over: set[int] = set()
    for value in values[: -1 if usage else None]:
        assert len(value["choices"]) == 1
        choice = value["choices"][0]
        assert choice["index"] not in over, "something after the end"
        if choice["finish_reason"] is not None:
            over.add(choice["index"])
        assert ("usage" in value) == usage
    assert over == {value["choices"][0]["index"] for value in values if value["choices"]}
    if usage:
        assert values[-1]["choices"] == []
        _usage(values[-1]["usage"])


def embeddings(answer: httpx.Response) -> CreateEmbeddingResponse:
    found = conform(CreateEmbeddingResponse, _ok(answer))
    assert [item.index for item in found.data] == list(range(len(found.data)))
    return found


def response(answer: httpx.Response) -> Response:
    found = conform(Response, _ok(answer))
    assert found.status in ("completed", "incomplete")
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens
    return found


EVENTS: dict[str, type[pydantic.BaseModel]] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
}


def response_events(answer: httpx.Response) -> list[Any]:
    """The events of a streamed response, named and numbered as they should be; the last one has all of it."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
    parts = answer.content.decode().split("\n\n")
    assert parts.pop() == ""
    found: list[Any] = []
    for number, part in enumerate(parts):
        name, data = part.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        assert value["sequence_number"] == number
        found.append(conform(EVENTS[name.removeprefix("event: ")], value))
    assert [event.type for event in found[:2]] == ["response.created", "response.in_progress"]
    assert isinstance(found[-1], ResponseCompletedEvent | ResponseIncompleteEvent)
    return found


def model(value: dict[str, Any]) -> Model:
    return conform(Model, value)


def error(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer that must be one, in OpenAI's envelope and nothing else."""
    assert 400 <= answer.status_code < 600, answer.text
    assert answer.headers["content-type"] == "application/json"
    value = answer.json()
    assert set(value) == {"error"}
    inner: dict[str, Any] = value["error"]
    assert set(inner) == {"message", "type", "param", "code"}
    assert isinstance(inner["message"], str)
    assert inner["message"].strip()
    assert isinstance(inner["type"], str)
    assert inner["param"] is None or isinstance(inner["param"], str)
    assert inner["code"] is None or isinstance(inner["code"], str)
    return inner
