"""Anthropic's API through the gateway: its client library, and what Claude Code sends, to engines with and without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest

from tests.integration.gateway.fakes import Bench, Seen, Talk, ask, running
from tests.unit.anthropic.test_request_translation import RECORDED

HELLO: Any = [{"role": "user", "content": "Hello"}]
READ: Any = {"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "Bash", "arguments": '{"command": "ls"}'}}


@pytest.fixture(scope="module")
def guarded_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("alice: sk-alice\n")
    keys.chmod(0o600)
    with running("--api-keys-file", str(keys), "--access-log") as bench:
        bench.gateway.auth = {"x-api-key": "sk-alice"}
        yield bench
        bench.gateway.stop()
        assert "sk-alice" not in bench.gateway.log
        assert "sk-alice" not in "".join(bench.gateway.output_lines)
        assert any("/v1/messages" in line for line in bench.gateway.output_lines)


@pytest.fixture
def bench(guarded_bench: Bench) -> Iterator[Bench]:
    yield guarded_bench
    guarded_bench.clear()


def client(bench: Bench, **more: Any) -> anthropic.Anthropic:
    settings: dict[str, Any] = {"api_key": "sk-alice", "max_retries": 0} | more
    return anthropic.Anthropic(base_url=bench.gateway.url, **settings)


def openai_only(talk: Talk, seen: Seen) -> None:
    """An engine that has nothing but chat completions: it thinks, speaks and calls the first tool it is offered."""
    if seen.path != "/v1/chat/completions":
        talk.reply({"detail": "Not Found"}, 404)
        return
    asked = seen.json
    called = bool(asked.get("tools")) and all(message["role"] != "tool" for message in asked["messages"])
    finish = "tool_calls" if called else "stop"
    if not asked.get("stream"):
        said = {"content": "Hi.", "reasoning_content": "Hm."} | ({"tool_calls": [CALL]} if called else {})
        choice = {"index": 0, "message": said, "finish_reason": finish}
        talk.reply({"id": "chatcmpl-1", "model": asked["model"], "choices": [choice], "usage": USAGE})
        return
    talk.start_stream()
    deltas: list[dict[str, Any]] = [{"role": "assistant"}, {"reasoning_content": "Hm."}, {"content": "Hi."}]
    deltas += [{"tool_calls": [{"index": 0, **CALL}]}] if called else []
    for delta in deltas:
        talk.event({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    talk.event({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    talk.event({"id": "chatcmpl-1", "choices": [], "usage": USAGE})
    talk.end_stream()


def with_messages(talk: Talk, seen: Seen) -> None:
    """An engine that has the Messages API itself."""
    block, usage = {"type": "text", "text": "Hi."}, {"input_tokens": 4, "output_tokens": 3}
    whole = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": seen.json["model"], "content": [block],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    if seen.path.startswith("/v1/messages/count_tokens"):
        talk.reply({"input_tokens": 4})
    elif not seen.json.get("stream"):
        talk.reply(whole)
    else:
        talk.start_stream()
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        for event in (
            {"type": "message_start", "message": whole | {"content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi."}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": delta, "usage": usage},
            {"type": "message_stop"},
        ):
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            talk.send(b"%x\r\n%b\r\n" % (len(data), data))
        talk.send(b"0\r\n\r\n")


def test_an_engine_without_the_api(bench: Bench) -> None:
    worker = bench.worker(openai_only)
    bench.serve(worker.replica("nice", engine_model="/models/ugly"))
    with client(bench) as sdk:
        first = sdk.messages.create(model="nice", max_tokens=9, messages=HELLO)
        assert [(block.type, getattr(block, "text", "")) for block in first.content] == [
            ("thinking", ""), ("text", "Hi."),
        ]  # fmt: skip
        assert (first.model, first.stop_reason, first.usage.input_tokens) == ("nice", "end_turn", 4)
        assert [seen.path for seen in worker.seen] == ["/v1/messages", "/v1/chat/completions"]
        chat = worker.seen[1]
        assert (chat.json["model"], chat.json["max_tokens"]) == ("/models/ugly", 9)
        assert b"sk-alice" not in b"".join(seen.head for seen in worker.seen)
        with sdk.messages.stream(model="nice", max_tokens=9, messages=HELLO, tools=[READ]) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_message()
        assert kinds[0] == "message_start"
        assert [block.type for block in final.content] == ["thinking", "text", "tool_use"]
        call = final.content[2]
        assert call.type == "tool_use"
        assert (call.name, call.input, final.stop_reason) == ("Bash", {"command": "ls"}, "tool_use")
        assert (final.usage.input_tokens, final.usage.cache_read_input_tokens, final.usage.output_tokens) == (
            4,
            8,
            3,
        )
        assert [seen.path for seen in worker.seen[2:]] == ["/v1/chat/completions"], (
            "it is asked there at once"
        )
        counted = sdk.messages.count_tokens(model="nice", messages=HELLO, tools=[READ], system="Be brief.")
        assert counted.input_tokens == 12
        assert worker.seen[-1].json["max_tokens"] == 1
    tokens = bench.metric("completion_tokens_total", model="nice")
    assert tokens == 6, "two answers of three tokens; to count is not metered"


def test_an_engine_with_the_api_gets_the_request_as_it_is(bench: Bench) -> None:
    worker = bench.worker(with_messages)
    bench.serve(worker.replica("nice", engine_model="ugly"))
    with client(bench) as sdk:
        whole = sdk.messages.create(
            model="nice",
            max_tokens=9,
            messages=HELLO,
            metadata={"user_id": "u"},
            extra_query={"beta": "true"},
        )
        (seen,) = worker.seen
        assert (seen.path, seen.json["model"], seen.json["metadata"]) == (
            "/v1/messages?beta=true", "ugly", {"user_id": "u"},
        )  # fmt: skip
        assert seen.header("anthropic-version")
        assert b"sk-alice" not in seen.head
        assert whole.model == "nice"
        with sdk.messages.stream(model="nice", max_tokens=9, messages=HELLO) as stream:
            assert "".join(stream.text_stream) == "Hi."
            assert stream.get_final_message().model == "nice"
        assert sdk.messages.count_tokens(model="nice", messages=HELLO).input_tokens == 4


@pytest.mark.parametrize(
    ("kind", "said", "told"),
    [
        ("invalid_request_error", "No.", "No."),
        (
            "BadRequestError",  # of vLLM 0.32
            "This model's maximum context length is 9 tokens.",
            "prompt is too long: This model's maximum context length is 9 tokens.",
        ),
    ],
    ids=["as it should be", "vllm"],
)
def test_an_error_of_an_engine_with_the_api(bench: Bench, kind: str, said: str, told: str) -> None:
    error = {"type": "error", "error": {"type": kind, "message": said}}
    bench.serve(bench.worker(lambda talk, seen: talk.reply(error, 400)).replica("m"))
    answer = ask(bench.port, "POST", "/v1/messages", {"model": "m", "messages": HELLO}, bench.gateway.auth)
    expected = {"type": "error", "error": {"type": "invalid_request_error", "message": told}}
    assert (answer.status, answer.json) == (400, expected)


def test_two_turns_of_claude_code(bench: Bench) -> None:
    worker = bench.worker(openai_only)
    bench.serve(worker.replica("local"))
    for turn, reason in (("first", "tool_use"), ("second", "end_turn")):
        recorded = RECORDED[turn]
        headers = recorded["headers"] | {
            "authorization": "Bearer sk-alice",
            "content-type": "application/json",
        }
        answer = ask(bench.port, "POST", recorded["path"], recorded["body"], headers)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [
            json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data:")
        ]
        assert events[-2]["delta"]["stop_reason"] == reason
        assert events[-1] == {"type": "message_stop"}


def test_errors_come_as_the_clients_own(bench: Bench) -> None:
    def failing(talk: Talk, seen: Seen) -> None:
        if seen.path != "/v1/chat/completions":
            talk.reply({"detail": "Not Found"}, 404)
            return
        message = "This model's maximum context length is 8 tokens."
        talk.reply({"error": {"message": message, "type": "BadRequestError", "code": 400}}, 400)

    judged: Any = [{"role": "judge", "content": "x"}]
    worker = bench.worker(failing)
    bench.serve(worker.replica("m"), expected=["m", "late"])
    with client(bench) as sdk:
        with pytest.raises(anthropic.NotFoundError) as missing:
            sdk.messages.create(model="nope", max_tokens=9, messages=HELLO)
        assert isinstance(missing.value.body, dict)
        assert missing.value.body["error"]["type"] == "not_found_error"
        assert missing.value.body["request_id"] == missing.value.request_id
        with pytest.raises(anthropic.InternalServerError) as loading:
            sdk.messages.create(model="late", max_tokens=9, messages=HELLO)
        assert loading.value.status_code == 503
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long: This model's maximum"):
            sdk.messages.create(model="m", max_tokens=9, messages=HELLO)
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.role"):
            sdk.messages.create(model="m", max_tokens=9, messages=judged)
    with client(bench, api_key=None, auth_token="sk-alice") as sdk, pytest.raises(anthropic.NotFoundError):
        sdk.messages.create(model="nope", max_tokens=9, messages=HELLO)
    gone = ask(bench.port, "POST", "/v1/messages/batches", {}, bench.gateway.auth)
    assert (gone.status, gone.json["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    "key", [{"api_key": "sk-wrong"}, {"api_key": None, "auth_token": "sk-wrong"}], ids=str
)
def test_a_wrong_key_is_refused_once(bench: Bench, key: dict[str, Any]) -> None:
    sent: list[httpx.Request] = []
    counting = anthropic.DefaultHttpxClient(event_hooks={"request": [sent.append]})
    retrying = client(bench, **key, http_client=counting, max_retries=anthropic.DEFAULT_MAX_RETRIES)
    with retrying as sdk, pytest.raises(anthropic.AuthenticationError, match=r"Invalid API key\.") as refused:
        sdk.messages.create(model="m", max_tokens=9, messages=HELLO)
    assert len(sent) == 1
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["error"]["type"] == "authentication_error"
    # Claude Code, which has retries of its own, obeys this.
    assert refused.value.response.headers["x-should-retry"] == "false"


def test_a_stream_that_breaks_ends_with_an_error(bench: Bench) -> None:
    def dying(talk: Talk, seen: Seen) -> None:
        if seen.path != "/v1/chat/completions":
            talk.reply({}, 404)
            return
        talk.start_stream()
        talk.event({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": "Hi."}}]})
        talk.hang_up()

    bench.serve(bench.worker(dying).replica("m"))
    with client(bench) as sdk, pytest.raises(anthropic.APIStatusError, match="interrupted"):
        for _ in sdk.messages.create(model="m", max_tokens=9, messages=HELLO, stream=True):
            pass


def test_a_body_with_nothing_in_it(bench: Bench) -> None:
    bench.serve(bench.worker(openai_only).replica("m"))
    for body in (b"{", b"[]", b"", b'{"model": "m"}'):
        answer = ask(bench.port, "POST", "/v1/messages", body, bench.gateway.auth)
        assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error"), body
