"""Responses of OpenAI's API become Ollama's, however their bytes arrive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.ollama.dialect import OllamaEmbedding, OllamaErrors, OllamaGeneration
from llmlaunch.gateway.ollama.timing import Clocks

EVENTS, JSON = b"text/event-stream", b"application/json"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
MOMENT = 1_700_000_000.25
CREATED = "2023-11-14T22:13:20.250000Z"


def ticking() -> Clocks:
    """A clock on which every look takes a second."""
    seconds: Iterator[int] = count()
    return Clocks(lambda: float(next(seconds)), lambda: MOMENT)


def body(chat: bool, stream: bool) -> bytes:
    asked = {"messages": [{"role": "user", "content": "x"}]} if chat else {"prompt": "x"}
    return json.dumps({"model": "m", "stream": stream, **asked}).encode()


def whole(answer: object, *, status: int = 200, chat: bool = True, stream: bool = False) -> Any:
    asked = OllamaGeneration(ticking(), chat=chat).request(body(chat, stream))
    translator = asked.translator(status, JSON)
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    assert translator.feed(content) == b""
    return json.loads(translator.end())


def event(value: object) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def delta(finish: str | None = None, **delta: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def call(index: int | None, arguments: str, **more: Any) -> bytes:
    function = {"arguments": arguments} | {k: v for k, v in more.items() if k == "name"}
    made = {"function": function} | {k: v for k, v in more.items() if k == "id"}
    return delta(tool_calls=[made | ({} if index is None else {"index": index})])


END = event({"choices": [], "usage": USAGE}) + event(b"[DONE]")


def streamed(stream: bytes, size: int = 0, *, chat: bool = True) -> list[Any]:
    asked = OllamaGeneration(ticking(), chat=chat).request(body(chat, stream=True))
    translator = asked.translator(200, EVENTS)
    assert (translator.streams, translator.content_type) == (True, b"application/x-ndjson")
    size = size or len(stream)
    pieces = [translator.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    lines = b"".join([*pieces, translator.end()])
    assert lines.endswith(b"\n")
    return [json.loads(line) for line in lines.splitlines()]


def parts(lines: list[Any]) -> list[dict[str, Any]]:
    """What the messages of a stream say, without the empty last one."""
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["message"] == {"role": "assistant", "content": ""}
    return [{k: v for k, v in line["message"].items() if v and k != "role"} for line in lines[:-1]]


STREAMS = {
    "text": delta(role="assistant", content="")
    + b": keep-alive\n\n"
    + delta(reasoning_content="Hm.")
    + delta(content="Hé")
    + delta(content="llo 🙂")
    + delta("stop")
    + END,
    "calls": delta(content="I look. ")
    + call(0, "", name="weather", id="a")
    + call(0, '{"city": "Os')
    + call(0, 'lo"}')
    + call(1, '{"city": "Rome"}', name="weather", id="b")
    + delta("tool_calls")
    + END,
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_is_the_same_however_it_is_cut(kind: str) -> None:
    stream = STREAMS[kind]
    expected = [parts(streamed(stream))]
    assert [parts(streamed(stream, size)) for size in (1, 2, 3, 5, 7)] == expected * 5


def test_every_place_where_a_stream_may_be_cut() -> None:
    stream = STREAMS["calls"]
    expected = parts(streamed(stream))
    for at in range(1, len(stream)):
        asked = OllamaGeneration(ticking(), chat=True).request(body(True, True))
        translator = asked.translator(200, EVENTS)
        lines = translator.feed(stream[:at]) + translator.feed(stream[at:]) + translator.end()
        assert parts([json.loads(line) for line in lines.splitlines()]) == expected


def test_text_and_reasoning_of_a_stream() -> None:
    lines = streamed(STREAMS["text"])
    assert parts(lines) == [{"thinking": "Hm."}, {"content": "Hé"}, {"content": "llo 🙂"}]
    assert all((line["model"], line["created_at"]) == ("m", CREATED) for line in lines)
    # The clock was looked at when the request began, at the first content, and at the end.
    assert lines[-1] == {
        "model": "m", "created_at": CREATED, "message": {"role": "assistant", "content": ""},
        "done": True, "done_reason": "stop", "total_duration": 2_000_000_000, "load_duration": 0,
        "prompt_eval_count": 7, "prompt_eval_duration": 1_000_000_000, "eval_count": 3, "eval_duration": 1_000_000_000,
    }  # fmt: skip


def test_a_comment_keeps_the_connection_alive_without_a_line_of_its_own() -> None:
    asked = OllamaGeneration(ticking(), chat=True).request(body(True, True))
    translator = asked.translator(200, EVENTS)
    assert translator.feed(b": keep-alive\n\n") == b" "
    lines = b" " + translator.feed(delta("stop", content="Hi") + END) + translator.end()
    assert parts([json.loads(line) for line in lines.splitlines()]) == [{"content": "Hi"}]


def weather(city: str, identity: str, index: int) -> dict[str, Any]:
    return {"id": identity, "function": {"index": index, "name": "weather", "arguments": {"city": city}}}


def test_calls_of_a_stream_are_told_when_they_are_complete() -> None:
    assert parts(streamed(STREAMS["calls"])) == [
        {"content": "I look. "},
        {"tool_calls": [weather("Oslo", "a", 0)]},
        {"tool_calls": [weather("Rome", "b", 1)]},
    ]


@pytest.mark.parametrize("index", [0, None], ids=["all-with-one-index", "without-an-index"])
def test_calls_that_only_their_ids_tell_apart(index: int | None) -> None:
    stream = (
        call(index, '{"city": "Oslo"}', name="weather", id="a")
        + call(index, '{"city": "Rome"}', name="weather", id="b")
        + delta("tool_calls")
        + END
    )
    assert parts(streamed(stream)) == [
        {"tool_calls": [weather("Oslo", "a", 0)]},
        {"tool_calls": [weather("Rome", "b", 1)]},
    ]


@pytest.mark.parametrize("arguments", ['{"city": "Os', "[1]", "Oslo"])
def test_a_call_without_an_object_is_not_lost(arguments: str) -> None:
    text = f'{{"name": "weather", "arguments": {arguments}}}'
    stream = call(0, arguments, name="weather", id="a") + delta("length") + END
    assert parts(streamed(stream)) == [{"content": text}]
    made = [{"id": "a", "function": {"name": "weather", "arguments": arguments}}]
    choice = {"message": {"content": None, "tool_calls": made}, "finish_reason": "tool_calls"}
    assert whole({"choices": [choice]})["message"] == {"role": "assistant", "content": text}


def test_a_stream_of_a_completion() -> None:
    stream = event({"choices": [{"index": 0, "text": "Hi", "finish_reason": None}]})
    stream += event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}) + event(b"[DONE]")
    first, last = streamed(stream, chat=False)
    assert first == {"model": "m", "created_at": CREATED, "response": "Hi", "done": False}
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "length")
    assert "eval_count" not in last


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (
            event({"error": {"message": "The answer was interrupted.", "code": "x"}}) + END,
            "The answer was interrupted.",
        ),
        (event({"error": "out of memory"}), "out of memory"),
        (event(b"{broken") + END, "cannot be understood"),
        (event(b"[1]") + END, "cannot be understood"),
        (event({"choices": [5]}) + END, "cannot be understood"),
        (b"", "without a reason"),
        (event(b"[DONE]"), "without a reason"),
    ],
)
def test_a_stream_that_fails_ends_with_an_error(stream: bytes, text: str) -> None:
    lines = streamed(delta(content="Hi") + stream)
    assert lines[0]["message"]["content"] == "Hi"
    assert len(lines) == 2
    assert list(lines[1]) == ["error"]
    assert text in lines[1]["error"]


def test_a_stream_without_a_last_event_is_whole_if_it_has_a_reason() -> None:
    assert parts(streamed(delta("stop", content="Hi"))) == [{"content": "Hi"}]


def test_logprobs() -> None:
    row = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [row]}, "finish_reason": "stop"}
    assert streamed(event({"choices": [choice]}) + END)[0]["logprobs"] == [row]
    told = {"message": {"content": "Hi"}, "logprobs": {"content": [row]}, "finish_reason": "stop"}
    assert whole({"choices": [told]})["logprobs"] == [row]


def test_a_whole_chat() -> None:
    made = [{"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]
    message = {"role": "assistant", "content": None, "reasoning": "Hm.", "tool_calls": made}
    found = whole({"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE})
    assert found["message"] == {
        "role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [weather("Oslo", "a", 0)],
    }  # fmt: skip
    assert (found["done"], found["done_reason"], found["eval_count"]) == (True, "stop", 3)
    assert found["total_duration"] == 1_000_000_000


def test_a_whole_answer_for_who_asked_for_a_stream_is_its_only_line() -> None:
    answer = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    found = whole(answer, chat=False, stream=True)
    assert (found["response"], found["done"]) == ("Hi", True)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"error": {"message": "Too long.", "type": "x"}}, "Too long."),
        ({"error": "Unauthorized"}, "Unauthorized"),
        ({"message": "no such path"}, "no such path"),
        ({"detail": [{"msg": "bad"}]}, '[{"msg": "bad"}]'),
        (b"<html>Bad gateway</html>", "<html>Bad gateway</html>"),
        (b"", "The model's server answered 500."),
        ([], "The model's server answered 500."),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_errors_of_replicas(answer: object, text: str, stream: bool) -> None:
    assert whole(answer, status=500, stream=stream) == {"error": text}


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", {}, [], {"choices": []}, {"choices": [5]}, {"choices": [{"message": {"tool_calls": [{}]}}]}],
)
def test_a_whole_answer_that_is_none(answer: object) -> None:
    with pytest.raises(InvalidResponse):
        whole(answer)


def embedded(answer: object, *, many: bool = True) -> Any:
    asked = OllamaEmbedding(ticking(), many=many).request(
        b'{"model": "m", "input": ["a", "b"], "prompt": "a"}'
    )
    translator = asked.translator(200, JSON)
    translator.feed(json.dumps(answer).encode())
    return json.loads(translator.end())


def test_vectors_come_in_order_and_normalized() -> None:
    rows = [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": [3, 4]}]
    answer = {"data": rows, "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    assert embedded(answer) == {
        "model": "m", "embeddings": [[0.6, 0.8], [0.0, 1.0]],
        "total_duration": 1_000_000_000, "load_duration": 0, "prompt_eval_count": 5,
    }  # fmt: skip
    assert embedded(answer, many=False) == {"embedding": [3, 4]}
    assert embedded({"data": [{"embedding": [0, 0]}]})["embeddings"] == [[0, 0]]
    wrong: Any
    for wrong in (
        {},
        {"data": 5},
        {"data": [{}]},
        {"data": [5]},
        {"data": [{"embedding": "AAA="}]},
        {"data": [{"embedding": [10**400]}]},
    ):
        with pytest.raises(InvalidResponse):
            embedded(wrong)


def test_replies_that_need_no_replica() -> None:
    chat, generate = (OllamaGeneration(ticking(), chat=chat) for chat in (True, False))
    for dialect, said in (
        (chat, {"message": {"role": "assistant", "content": ""}}),
        (generate, {"response": ""}),
    ):
        reply = dialect.own_reply(b'{"model": "m", "keep_alive": 0}')
        assert reply is not None
        assert json.loads(reply.body) == {
            "model": "m", "created_at": CREATED, **said, "done": True, "done_reason": "load",
        }  # fmt: skip
    assert chat.own_reply(body(True, True)) is None
    assert generate.own_reply(body(False, True)) is None
    many = OllamaEmbedding(ticking(), many=True).own_reply(b'{"model": "m", "input": []}')
    assert many is not None
    assert json.loads(many.body) == {"model": "m", "embeddings": []}
    one = OllamaEmbedding(ticking(), many=False).own_reply(b'{"model": "m"}')
    assert one is not None
    assert json.loads(one.body) == {"embedding": []}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (errors.model_not_found("it's:latest"), "model 'it's:latest' not found"),
        (errors.invalid_api_key(missing=False), "Invalid API key."),
        (errors.bad_request("Wrong."), "Wrong."),
    ],
)
def test_errors_of_the_gateway(reply: Reply, text: str) -> None:
    found = OllamaErrors().error(reply, b"id")
    assert json.loads(found.body) == {"error": text}
    assert (found.status, found.fields) == (reply.status, reply.fields)
    assert OllamaErrors().interruption("It broke.") == b'{"error":"It broke."}\n'
