"""Real embeddings from a real worker process, asked by the ``openai`` SDK."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator

import openai
import pytest

from tests.e2e.worker.server import MINILM, Worker, started

TEXTS = ["A man is eating food.", "A man eats a meal.", "The stock market fell today."]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with started(MINILM, "--model-names", "minilm") as running:
        yield running


@pytest.fixture
def client(worker: Worker) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=worker.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_what_means_the_same_lies_near(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="minilm", input=TEXTS)
    a, b, c = (item.embedding for item in answer.data)
    assert len(a) == 384
    assert dot(a, a) == pytest.approx(1, abs=1e-4)
    assert dot(a, b) > 0.7 > 0.3 > dot(a, c)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 3 * 8


def test_the_first_numbers_are_those_of_the_models_page(client: openai.OpenAI) -> None:
    """Published for "This is an example sentence" in sentence-transformers' documentation of the model."""
    vector = client.embeddings.create(model="minilm", input="This is an example sentence").data[0].embedding
    assert vector[:3] == pytest.approx([0.0676, 0.0635, 0.0487], abs=2e-4)


def test_base64_and_floats_are_the_same(worker: Worker) -> None:
    floats = worker.post("/v1/embeddings", model="minilm", input="x").json()["data"][0]["embedding"]
    coded = worker.post("/v1/embeddings", model="minilm", input="x", encoding_format="base64").json()
    raw = base64.b64decode(coded["data"][0]["embedding"])
    assert struct.unpack("<384f", raw) == pytest.approx(floats)


def test_dimensions_cut_and_normalize(client: openai.OpenAI) -> None:
    vector = client.embeddings.create(model="minilm", input="x", dimensions=16).data[0].embedding
    assert len(vector) == 16
    assert dot(vector, vector) == pytest.approx(1, abs=1e-4)
    with pytest.raises(openai.BadRequestError, match="384"):
        client.embeddings.create(model="minilm", input="x", dimensions=385)


def test_token_ids_mean_the_same_as_their_text(worker: Worker) -> None:
    ids = worker.post("/tokenize", prompt="hello world").json()["tokens"]
    forms: list[object] = ["hello world", ["hello world"], ids, [ids]]
    vectors = [
        worker.post("/v1/embeddings", model="minilm", input=form).json()["data"][0]["embedding"]
        for form in forms
    ]
    for vector in vectors:
        assert vector == pytest.approx(vectors[0], abs=1e-5)


def test_too_long_a_text_is_refused_with_counts_or_cut_when_asked(worker: Worker) -> None:
    text = "word " * 300
    refused = worker.post("/v1/embeddings", model="minilm", input=["ok", text])
    error = refused.json()["error"]
    assert refused.status_code == 400
    assert "302" in error["message"]
    assert "256" in error["message"]
    assert error["code"] == "context_length_exceeded"
    cut = worker.post("/v1/embeddings", model="minilm", input=text, truncate=True)
    assert cut.json()["usage"]["prompt_tokens"] == 256


def test_a_text_is_cut_to_the_length_that_is_asked_for(worker: Worker) -> None:
    ask = {"model": "minilm", "input": "word " * 300}
    for asked, tokens in ((-1, 256), (256, 256), (10, 10), (1, 1)):
        cut = worker.post("/v1/embeddings", **ask, truncate_prompt_tokens=asked).json()
        assert cut["usage"]["prompt_tokens"] == tokens
    eight = worker.post("/v1/embeddings", **ask, truncate_prompt_tokens=10).json()
    same = worker.post("/v1/embeddings", model="minilm", input="word " * 8).json()
    assert eight["data"][0]["embedding"] == pytest.approx(same["data"][0]["embedding"], abs=1e-5)
    for wrong in (0, -2, 257, 10.5):
        refused = worker.post("/v1/embeddings", **ask, truncate_prompt_tokens=wrong)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "truncate_prompt_tokens"


@pytest.mark.parametrize(
    "body",
    [
        {"input": ""},
        {"input": []},
        {"input": [""]},
        {"input": [[]]},
        {"input": 5},
        {"input": [10**6]},
        {},
        {"input": None},
    ],
)
def test_bad_input_names_the_parameter(worker: Worker, body: dict[str, object]) -> None:
    response = worker.post("/v1/embeddings", model="minilm", **body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == "input"


def test_chat_with_it_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot generate text"):
        client.chat.completions.create(model="minilm", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="another", input="x")
