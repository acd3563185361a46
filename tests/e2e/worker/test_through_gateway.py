"""openai's and anthropic's clients again, with a gateway and a controller between them and the worker: all is as without."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import ollama
import openai
import pytest

from tests.e2e.worker.server import Worker
from tests.e2e.worker.test_anthropic import (  # noqa: F401
    claude,
    test_errors_are_the_clients_own,
    test_messages_whole_and_streamed,
    test_tools_and_their_results,
)
from tests.e2e.worker.test_clients import (  # noqa: F401  # they run again here, with this module's writer and embedder
    HELLO,
    asynchronous,
    client,
    test_an_answer_that_was_cut_is_told_to_the_parser,
    test_embeddings,
    test_errors_arrive_as_the_sdks_own,
    test_parsed_answers,
    test_raw_answers_and_legacy_completions,
    test_responses_are_told_streamed_parsed_and_continued,
    test_the_middle_between_prompt_and_suffix,
    test_the_streaming_helper_follows_an_answer,
    test_tools_that_may_be_called,
    test_tools_that_must_be_called,
    test_tools_that_must_not_be_called,
    test_whoever_stops_reading_frees_the_place,
    test_whole_and_streamed_answers_say_the_same_to_every_kind_of_client,
)
from tests.integration.gateway.fakes import GatewayProcess
from tests.integration.gateway.test_with_controller import TOKEN, RealController


@dataclass
class Fronted(Worker):
    """A worker whose clients speak to a gateway."""

    behind: Worker
    gateway: GatewayProcess

    @property
    def url(self) -> str:
        return self.gateway.url

    def metric(self, name: str) -> float:
        return self.behind.metric(name)

    def idle(self) -> bool:
        return self.behind.idle()


@dataclass
class Front:
    controller: RealController
    gateway: GatewayProcess

    def put_before(self, worker: Worker, *names: str) -> Fronted:
        self.controller.register(worker.url, *names, check_heart_beat=False)
        self.gateway.until_serving(*names)
        return Fronted(worker.process, worker.port, worker.log, worker, self.gateway)


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    controller = RealController()
    gateway = GatewayProcess(controller.url, "--ollama", env={"LLMLAUNCH_TOKEN": TOKEN})
    try:
        controller.until_up()
        controller.call("/set_expected", {"names": ["tiny", "other", "minilm"]})
        gateway.until_up()
        yield Front(controller, gateway)
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log
    finally:
        try:
            gateway.stop()
        finally:
            controller.kill()


@pytest.fixture(scope="module")
def writer(writer: Worker, front: Front) -> Worker:
    return front.put_before(writer, "tiny", "other")


@pytest.fixture(scope="module")
def embedder(embedder: Worker, front: Front) -> Worker:
    return front.put_before(embedder, "minilm")


def test_models(client: openai.OpenAI, writer: Worker) -> None:  # noqa: F811
    names = [model.id for model in client.models.list()]
    assert {"other", "tiny"} <= set(names)
    assert names == sorted(names)
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")

    async def ask() -> list[str]:
        async with asynchronous(writer) as other:
            return [model.id async for model in other.models.list()]

    assert asyncio.run(ask()) == names


def test_an_answer_names_its_request(client: openai.OpenAI, writer: Worker) -> None:  # noqa: F811
    answer = client.completions.with_raw_response.create(
        model="other", prompt="a", max_tokens=1, extra_headers={"x-request-id": "mine"}
    )
    assert answer.headers["x-request-id"] == "mine"
    assert answer.parse().model == "other"
    with httpx.Client(base_url=writer.url, trust_env=False) as http:
        assert "llmlaunch_gateway_requests_total" in http.get("/metrics").text


# -- Ollama's client, for which the gateway translates ------------------------------------------------------------------

WORD = {"type": "object", "properties": {"word": {"const": "a rather long word"}}, "required": ["word"]}


def turn(to: str) -> str:
    """Turn around.

    Args:
        to: Where.
    """
    return f"Turned {to}."


@contextlib.contextmanager
def ollama_client(front: Front) -> Iterator[ollama.Client]:
    made = ollama.Client(front.gateway.url, trust_env=False, timeout=60)
    with contextlib.closing(made):
        yield made


def test_ollamas_client_streamed_and_whole(front: Front, writer: Worker) -> None:
    options = {"temperature": 0, "num_predict": 12}
    with ollama_client(front) as asking:
        whole = asking.chat("tiny:latest", HELLO, options=options)
        parts = list(asking.chat("tiny", HELLO, options=options, stream=True))
        assert "".join(part.message.content or "" for part in parts) == whole.message.content
        last = parts[-1]
        assert (last.done, last.done_reason) == (True, whole.done_reason)
        assert (last.prompt_eval_count, last.eval_count) == (whole.prompt_eval_count, whole.eval_count)
        assert last.eval_count
        assert {"tiny", "other"} <= {model.model for model in asking.list().models}
        with pytest.raises(ollama.ResponseError, match="model 'nobody' not found"):
            asking.chat("nobody", HELLO)
        with pytest.raises(ollama.ResponseError, match="context") as long:
            asking.generate("tiny", "x" * 5000)
        assert long.value.status_code == 400


def test_forms_for_ollamas_client(front: Front, writer: Worker) -> None:
    with ollama_client(front) as asking:
        found = asking.chat("tiny", HELLO, format=WORD).message.content
        assert json.loads(found or "") == {"word": "a rather long word"}
        # Raw, and longer than the 16 tokens after which OpenAI's API ends by default.
        raw = asking.generate("tiny", "Hello", raw=True, format=WORD)
        assert json.loads(raw.response or "") == {"word": "a rather long word"}
        assert raw.done_reason == "stop"


def test_a_second_turn_with_tools_for_ollamas_client(front: Front, writer: Worker) -> None:
    calls = [ollama.Message.ToolCall.Function(name="turn", arguments={"to": "left"})]
    made = ollama.Message(
        role="assistant", tool_calls=[ollama.Message.ToolCall(function=function) for function in calls]
    )
    result = {"role": "tool", "tool_name": "turn", "content": turn("left")}
    options = {"num_predict": 2}
    with ollama_client(front) as asking:
        first = asking.chat("tiny", HELLO, tools=[turn], options=options)
        second = asking.chat("tiny", [*HELLO, made, result], tools=[turn], options=options)
    assert (second.prompt_eval_count or 0) > (first.prompt_eval_count or 0) > 100  # the tool is described


def test_embeddings_for_ollamas_client(front: Front, embedder: Worker) -> None:
    with ollama_client(front) as asking:
        vectors = asking.embed("minilm", ["a cat", "a kitten", "a tax form"]).embeddings
        near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
        assert near > far
        assert sum(a * a for a in vectors[0]) == pytest.approx(1, abs=1e-3)
        assert list(asking.embeddings("minilm", "a cat").embedding) == pytest.approx(
            list(vectors[0]), abs=1e-3
        )
