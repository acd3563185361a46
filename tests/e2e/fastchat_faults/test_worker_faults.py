"""Faults of FastChat's worker, a test each: the name says what FastChat did, the body what happens here."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.worker.server import MINILM, Worker, started
from tests.support.waiting import wait_until
from tests.unit.worker import tiny

PLACES = 5
"""FastChat's --limit-worker-concurrency: after as many leaked slots its worker hung for ever."""
CONTEXT = 2000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny.fresh("Llama", vocab_size=259, max_position_embeddings=CONTEXT)
    return tiny.save(model, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def worker(folder: Path) -> Iterator[Worker]:
    arguments = ("--model-names", "tiny", "--limit-worker-concurrency", str(PLACES))
    with started(str(folder), *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def embedder() -> Iterator[Worker]:
    with started(MINILM, "--model-names", "minilm") as running:
        yield running


def test_temperature_null_leaks_a_concurrency_slot(worker: Worker) -> None:
    for _ in range(2 * PLACES):
        assert worker.chat(temperature=None, max_tokens=2).status_code == 200
    assert worker.idle()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": "x"},
        {"n": 0},
        {"logit_bias": {"x": 1}},
        {"max_tokens": 10**9},
        {"stop": {}},
        {"messages": [1]},
    ],
    ids=str,
)
def test_an_exception_outside_three_types_leaks_a_concurrency_slot(
    worker: Worker, wrong: dict[str, Any]
) -> None:
    for _ in range(2 * PLACES):
        assert worker.chat(**wrong).status_code == 400
    assert worker.idle()
    assert worker.chat(max_tokens=2).status_code == 200


def test_a_request_for_another_model_is_answered_under_its_name(worker: Worker) -> None:
    answer = worker.chat(model="vicuna-7b")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_completion_tokens_are_one_too_few(worker: Worker) -> None:
    for wanted in (1, 2, 7):
        answer = worker.chat(max_tokens=wanted, ignore_eos=True).json()
        assert answer["usage"]["completion_tokens"] == wanted
        assert answer["choices"][0]["finish_reason"] == "length"


def test_n_2_counts_the_prompt_twice(worker: Worker) -> None:
    one = worker.chat(max_tokens=3, ignore_eos=True).json()["usage"]
    two = worker.chat(max_tokens=3, ignore_eos=True, n=2).json()["usage"]
    assert two["prompt_tokens"] == one["prompt_tokens"]
    assert two["completion_tokens"] == 2 * one["completion_tokens"]


def test_seed_is_ignored(worker: Worker) -> None:
    texts = {
        worker.chat(seed=seed, temperature=1.5, max_tokens=20).json()["choices"][0]["message"]["content"]
        for seed in (1, 1, 1, 2)
    }
    assert len(texts) == 2


@pytest.mark.parametrize(
    "field",
    [
        {"max_completion_tokens": 3, "ignore_eos": True},
        {"max_tokens": 3, "logprobs": True, "ignore_eos": True},
        {"max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True},
        {"max_tokens": 3, "logit_bias": {"70": 100}, "temperature": 0},
    ],
    ids=lambda field: next(iter(field)),
)
def test_fields_are_ignored(worker: Worker, field: dict[str, Any]) -> None:
    answer = worker.chat(**field)
    assert answer.status_code == 200
    if "stream" in field:
        last = [line for line in answer.text.splitlines() if line][-2]
        assert json.loads(last[6:])["usage"]["completion_tokens"] == 3
        return
    body = answer.json()
    assert body["usage"]["completion_tokens"] == 3
    if "logprobs" in field:
        assert len(body["choices"][0]["logprobs"]["content"]) == 3
    if "logit_bias" in field:
        only = worker.post("/detokenize", tokens=[70]).json()["prompt"]
        assert body["choices"][0]["message"]["content"] == 3 * only


def test_the_tokenizers_own_chat_template_is_never_used(worker: Worker) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    tokens = worker.post("/tokenize", messages=messages).json()["tokens"]
    assert worker.post("/detokenize", tokens=tokens).json()["prompt"] == "u:Hi\na:"
    assert worker.chat("Hi", max_tokens=1).json()["usage"]["prompt_tokens"] == len(tokens)


def test_every_error_is_a_400_with_a_private_body(worker: Worker) -> None:
    for path, body, status in (
        ("/v1/chat/completions", {"model": "other", "messages": [{"role": "user", "content": "x"}]}, 404),
        ("/v1/chat/completions", {"model": "tiny"}, 400),
        ("/v1/no_such", {}, 404),
        ("/v1/embeddings", {"model": "tiny", "input": "x"}, 400),
    ):
        answer = worker.post(path, **body)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_there_is_no_health_endpoint(worker: Worker) -> None:
    assert worker.get("/health").status_code == 200
    assert worker.get("/ready").status_code == 200


def long_body() -> dict[str, Any]:
    return {"model": "tiny", "prompt": "abc", "max_tokens": CONTEXT - 10, "ignore_eos": True}


def test_a_non_streamed_request_goes_on_after_its_client_left(worker: Worker) -> None:
    before = worker.metric("vllm:generation_tokens_total")
    for _ in range(2 * PLACES):
        with worker.client() as client, pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json=long_body(), timeout=0.05)
    wait_until(worker.idle, 20, "nothing runs on")
    said = worker.metric("vllm:generation_tokens_total") - before
    assert said < PLACES * (CONTEXT - 10)


def test_there_is_no_batching(worker: Worker) -> None:
    """All run at once: the first one to come is not over when the last one has begun."""
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(PLACES):
            client = stack.enter_context(worker.client())
            body = long_body() | {"stream": True}
            response = stack.enter_context(client.stream("POST", "/v1/completions", json=body))
            lines = response.iter_lines()
            next(lines)
            streams.append(lines)
        assert worker.metric("vllm:num_requests_running") == PLACES
        for lines in streams:
            next(lines)
    wait_until(worker.idle, 20, "all left")


def test_embeddings_block_the_event_loop(embedder: Worker) -> None:
    """While a large batch is computed, /health still answers."""
    done = threading.Event()
    answers = []

    def embed() -> None:
        try:
            answers.append(embedder.post("/v1/embeddings", model="minilm", input=["word " * 200] * 60))
        finally:
            done.set()

    thread = threading.Thread(target=embed)
    thread.start()
    healthy = 0
    while not done.is_set():
        assert embedder.get("/health").status_code == 200
        healthy += not done.is_set()
    thread.join(30)
    assert answers[0].status_code == 200
    assert healthy > 2


def test_trust_remote_code_is_always_on(folder: Path, tmp_path: Path) -> None:
    """Code that comes with a model runs only when the user says so."""
    ran = tmp_path / "ran"
    model = tmp_path / "model"
    model.mkdir()
    for file in folder.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        f"class Own(LlamaForCausalLM):\n    config_class = OwnConfig\nopen({str(ran)!r}, 'w').close()\n"
    )
    config = json.loads((model / "config.json").read_text())
    config |= {
        "model_type": "own", "architectures": ["Own"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"},
    }  # fmt: skip
    (model / "config.json").write_text(json.dumps(config))
    with started(str(model), "--model-names", "tiny", ready=False, HF_HOME=str(tmp_path / "hf")) as refused:
        assert refused.process.wait(60) == 2
        assert "--trust-remote-code" in refused.log.read_text()
        assert not ran.exists()
    with started(
        str(model), "--model-names", "tiny", "--trust-remote-code", HF_HOME=str(tmp_path / "hf")
    ) as trusted:
        assert ran.exists()
        assert trusted.get("/health").json()["mode"] == "one request at a time"
        assert "custom code" in trusted.get("/health").json()["detail"]
        assert trusted.chat(max_tokens=3, ignore_eos=True).json()["usage"]["completion_tokens"] == 3


def test_a_workers_address_does_not_follow_its_port(folder: Path) -> None:
    from llmlaunch.worker.config import WorkerConfig

    for host, port, address in (
        ("127.0.0.1", 21005, "http://127.0.0.1:21005"),
        ("0.0.0.0", 7, "http://127.0.0.1:7"),
        ("::", 7, "http://[::1]:7"),
        ("10.1.2.3", 8, "http://10.1.2.3:8"),
        ("gpu-box", 8, "http://gpu-box:8"),
    ):
        assert WorkerConfig(model="m", names=("m",), host=host, port=port).address == address


def test_a_bad_model_path_waits_for_ever() -> None:
    with started("/no/such/model", ready=False) as worker:
        assert worker.process.wait(60) == 2
        assert "/no/such/model" in worker.log.read_text()
