"""FastChat's own workers through the gateway, as OpenAI's clients see them. The worker is a fake that was compared with
the real one byte for byte; ``docs/explanation/fastchat.md`` says what was done with the real one by hand."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai import APIError, OpenAI

from tests.integration.gateway.fakes import Answer, Bench, Client, GatewayProcess, ask
from tests.integration.gateway.test_with_controller import TOKEN, RealController
from tests.support.fake_fastchat import FakeFastChat, fake_fastchat
from tests.support.waiting import wait_until

CHAT: dict[str, Any] = {"model": "fc", "messages": [{"role": "user", "content": "hi there"}]}
PROMPT = "Be good. USER: hi there BOT:"
Workers = Callable[..., FakeFastChat]


@pytest.fixture
def workers(bench: Bench) -> Iterator[Workers]:
    """Makes workers and has the gateway serve all that were made."""
    with contextlib.ExitStack() as stack:
        made: list[FakeFastChat] = []

        def make(*names: str, **manner: Any) -> FakeFastChat:
            made.append(stack.enter_context(fake_fastchat(*names, **manner)))
            bench.serve(*({"worker_name": w.url, "model_names": w.names, "engine": "fastchat"} for w in made))
            return made[-1]

        yield make


@pytest.fixture
def openai(bench: Bench) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"http://127.0.0.1:{bench.port}/v1", api_key="x", max_retries=0) as client:
        yield client


def chat(bench: Bench, **more: Any) -> Answer:
    return ask(bench.port, "POST", "/v1/chat/completions", CHAT | more)


def events(answer: Answer) -> list[Any]:
    lines = [line[6:] for line in answer.body.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


# -- answers ---------------------------------------------------------------------------------------------------------


def test_a_chat(bench: Bench, workers: Workers, openai: OpenAI) -> None:
    worker = workers()
    found = openai.chat.completions.create(**CHAT, max_tokens=4, stop=["four"])
    assert found.choices[0].message.content == "one two three one"
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (6, 4, 10)
    assert found.model == "fc"
    (asked,) = worker.asked("/worker_generate_stream")
    assert (asked["prompt"], asked["max_new_tokens"], asked["echo"]) == (PROMPT, 4, False)
    assert asked["stop"] == ["four"]
    assert bench.metric("completion_tokens_total", model="fc") == 4


def test_a_chat_that_ends_by_itself(openai: OpenAI, workers: Workers) -> None:
    worker = workers(ends_after=3)
    found = openai.chat.completions.create(**CHAT)
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == ("one two", "stop")
    assert found.usage is not None
    assert found.usage.completion_tokens == 3  # its end is a token, too
    assert worker.asked("/worker_generate_stream")[0]["max_new_tokens"] == worker.context - 6 - 1


def test_a_stream(openai: OpenAI, workers: Workers) -> None:
    workers()
    stream = openai.chat.completions.create(
        **CHAT, max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    text, finish, usage, count = "", [], None, 0
    for event in stream:
        count += 1
        usage = event.usage or usage
        for choice in event.choices:
            text += choice.delta.content or ""
            finish.append(choice.finish_reason)
    assert text == "one two three one two"
    assert [f for f in finish if f] == [finish[-1]] == ["length"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (6, 5)
    assert count == 6  # role, three pieces, end, usage


def test_the_bytes_of_a_stream(bench: Bench, workers: Workers) -> None:
    workers()
    answer = chat(bench, stream=True, max_tokens=1)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"]
    first, text, last = events(answer)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text["choices"][0]["delta"] == {"content": "one"}
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert all("usage" not in event for event in (first, text, last))


def test_an_old_client_gets_a_stream_without_chunks(bench: Bench, workers: Workers) -> None:
    workers()
    body = json.dumps(CHAT | {"stream": True, "max_tokens": 2}).encode()
    with Client(bench.port) as client:
        client.send(b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        answer = client.answer()
    assert len(events(answer)) == 4


def test_several_answers_and_several_prompts(openai: OpenAI, workers: Workers) -> None:
    workers(slots=4)
    found = openai.completions.create(model="fc", prompt=["a b c", "d"], n=2, max_tokens=3, logprobs=1)
    assert [c.index for c in found.choices] == [0, 1, 2, 3]
    assert {c.text for c in found.choices} == {"one two three"}
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (4, 12)
    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["one", "two", "three"]
    texts = dict.fromkeys(range(4), "")
    for event in openai.completions.create(model="fc", prompt=["a b c", "d"], n=2, max_tokens=3, stream=True):
        for choice in event.choices:
            texts[choice.index] += choice.text
    assert set(texts.values()) == {"one two three"}


def test_embeddings(bench: Bench, openai: OpenAI, workers: Workers) -> None:
    """Each text alone: in FastChat's batch, its padding would be part of the shorter one's vector."""
    workers()
    found = openai.embeddings.create(model="fc", input=["one two", "a b c d"])  # the SDK asks for base64
    assert [row.embedding for row in found.data] == [[2.0, 2.0], [4.0, 4.0]]
    assert found.usage.prompt_tokens == found.usage.total_tokens == 6
    answer = ask(bench.port, "POST", "/v1/engines/fc/embeddings", {"input": "x", "encoding_format": "base64"})
    assert struct.unpack("<2f", base64.b64decode(answer.json["data"][0]["embedding"])) == (1.0, 1.0)


def test_a_long_prompt_arrives_whole(openai: OpenAI, workers: Workers) -> None:
    worker = workers()
    text = "é" * 25_000
    openai.completions.create(model="fc", prompt=text, max_tokens=1)
    assert worker.asked("/worker_generate_stream")[0]["prompt"] == text


def test_token_check(bench: Bench, workers: Workers) -> None:
    workers(context=10)
    prompts = [{"model": "fc", "prompt": "a b c", "max_tokens": n} for n in (7, 8)]
    answer = ask(bench.port, "POST", "/api/v1/token_check", {"prompts": prompts})
    assert answer.json == {
        "prompts": [{"fits": fits, "tokenCount": 3, "contextLength": 10} for fits in (True, False)]
    }
    bad = ask(bench.port, "POST", "/api/v1/token_check", {"prompts": [{"model": "fc", "prompt": 5}]})
    assert (bad.status, bad.error["param"]) == (400, "prompts")


def test_the_worker_is_asked_for_its_template_once(bench: Bench, workers: Workers) -> None:
    worker = workers()
    for _ in range(3):
        assert chat(bench, max_tokens=1).status == 200
    assert len(worker.asked("/worker_get_conv_template")) == len(worker.asked("/model_details")) == 1
    assert len(worker.asked("/count_token")) == 3


# -- refusals --------------------------------------------------------------------------------------------------------


def test_what_would_cost_the_worker_a_slot_never_reaches_it(bench: Bench, workers: Workers) -> None:
    worker = workers()
    assert chat(bench, temperature=None, max_tokens=1).status == 200
    for more in (
        {"temperature": "hot"},
        {"max_tokens": 0},
        {"messages": [{"role": "user", "content": "\ud800"}]},
    ):
        assert chat(bench, **more).status == 400
    assert worker.active == 0
    assert len(worker.asked("/worker_generate_stream")) == 1


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(bench: Bench, workers: Workers) -> None:
    worker = workers(context=6)
    answer = chat(bench)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (
        400, "context_length_exceeded", "messages",
    )  # fmt: skip
    assert not worker.asked("/worker_generate_stream")


def test_paths_that_fastchat_does_not_have(bench: Bench, workers: Workers) -> None:
    workers(embeds=False)
    answer = ask(bench.port, "POST", "/v1/responses", {"model": "fc", "input": "hi"})
    assert (answer.status, answer.error["code"]) == (404, "unsupported")
    answer = ask(bench.port, "POST", "/v1/embeddings", {"model": "fc", "input": "hi"})
    assert (answer.status, answer.error["code"]) == (400, "unsupported")


def test_a_template_that_is_not_known(bench: Bench, workers: Workers) -> None:
    worker = workers()
    worker.template = worker.template | {"sep_style": 77}
    answer = chat(bench)
    assert (answer.status, answer.error["code"]) == (501, "template")
    assert "77" in answer.error["message"]


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_in_band_becomes_one_with_its_status(
    bench: Bench, workers: Workers, openai: OpenAI, stream: bool
) -> None:
    worker = workers(error=(50001, "shapes differ"))
    answer = chat(bench, stream=stream)
    assert (answer.status, answer.error["type"]) == (500, "server_error")
    assert "shapes differ" in answer.error["message"]
    assert "TRAFFIC" not in answer.error["message"]
    worker.error = (50002, "CUDA out of memory")
    assert (chat(bench, stream=stream).status, chat(bench).headers["retry-after"]) == (503, "1")
    assert ask(bench.port, "POST", "/v1/embeddings", {"model": "fc", "input": "x"}).status == 503


def test_an_error_within_a_stream_ends_it_visibly(workers: Workers, openai: OpenAI) -> None:
    workers(error=(50001, "shapes differ"), error_after=2)
    stream = openai.chat.completions.create(**CHAT, max_tokens=9, stream=True)
    got = [next(stream).choices[0].delta.content for _ in range(3)]
    assert got == ["", "one", " two three"]
    with pytest.raises(APIError, match="shapes differ"):
        next(stream)


def test_a_silent_cut_is_told(bench: Bench, workers: Workers, openai: OpenAI) -> None:
    worker = workers(cut_after=2)
    with pytest.raises(APIError, match="broke off"):
        list(openai.chat.completions.create(**CHAT, max_tokens=9, stream=True))
    answer = chat(bench, max_tokens=9)
    assert (answer.status, answer.error["code"]) == (503, "replica_unavailable")
    assert worker.active == 2  # the slots it lost; it cannot be helped from here


def test_another_worker_answers_for_one_that_fails_before_the_first_byte(
    bench: Bench, workers: Workers
) -> None:
    bad, good = workers(cut_after=0), workers()
    answers = [chat(bench, max_tokens=1, stream=stream).status for stream in (False, True) * 4]
    assert answers == [200] * 8
    bad.cut_after, bad.error = None, (50002, "CUDA out of memory")
    assert {chat(bench, max_tokens=1).status for _ in range(4)} == {200}
    bad.close()
    assert {chat(bench, max_tokens=1).status for _ in range(4)} == {200}
    wait_until(lambda: good.active == 0, what="no request is left")


def test_a_worker_that_answers_500(bench: Bench, workers: Workers) -> None:
    workers(status=500)
    answer = chat(bench)
    assert (answer.status, answer.error["code"]) == (502, "bad_answer")


def test_pieces_that_are_no_answer(bench: Bench, workers: Workers) -> None:
    answers: list[list[Any]] = [[{"error_code": 0}], [["x"]], []]
    for pieces in answers:
        worker = workers()
        worker.pieces = pieces
        assert chat(bench).status in (502, 503)
        worker.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_work(bench: Bench, workers: Workers, stream: bool) -> None:
    """FastChat's own server lets answers go on that are not streamed."""
    worker = workers(context=100000, pause_s=0.02)
    with Client(bench.port) as client:
        client.post(CHAT | {"stream": stream, "max_tokens": 90000})
        wait_until(lambda: worker.active == 1)
    wait_until(lambda: worker.left == 1 and worker.active == 0)
    wait_until(lambda: bench.metric("in_flight", replica=worker.url) == 0)


def test_one_answer_of_several_that_fails_ends_the_others(bench: Bench, workers: Workers) -> None:
    worker = workers(error=(50001, "as told"), error_for="bad", context=100000, pause_s=0.02)
    body = {"model": "fc", "prompt": ["good", "bad"], "max_tokens": 90000}
    assert ask(bench.port, "POST", "/v1/completions", body).status == 500
    wait_until(lambda: worker.left == 1 and worker.active == 0)


# -- all together ----------------------------------------------------------------------------------------------------


def test_from_announcing_itself_to_an_answer() -> None:
    """Controller and gateway as processes: open registration, no token at the worker."""
    controller = RealController(None, "--open-registration")
    gateway = GatewayProcess(controller.url, env={"LLMLAUNCH_TOKEN": TOKEN})
    try:
        gateway.until_up()
        controller.until_up()
        with fake_fastchat("fc", listens=False) as worker:
            assert worker.announce(controller.url)[0] == 200
            assert ask(gateway.port, "POST", "/v1/chat/completions", CHAT).status in (404, 503)
            worker.listen()
            gateway.until_serving("fc")
            answer = ask(gateway.port, "POST", "/v1/chat/completions", CHAT | {"max_tokens": 2})
            assert answer.json["choices"][0]["message"]["content"] == "one two"
    finally:
        try:
            assert gateway.stop() == 0
        finally:
            controller.kill()
