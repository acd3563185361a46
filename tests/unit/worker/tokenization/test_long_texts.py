"""A long text holds up nobody: it is refused by its length, or tokenized in pieces beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmlaunch.worker.api import embeddings, json_shape, rerank
from llmlaunch.worker.api.embeddings import EmbeddingBody
from llmlaunch.worker.background import AbandonedError
from llmlaunch.worker.errors import ContextOverflow
from llmlaunch.worker.tokenization import tokenizer as codecs
from llmlaunch.worker.tokenization.tokenizer import CHUNK_CHARS, SHORT_CHARS, Tokenizer, TooLong
from tests.support.waiting import wait_until
from tests.unit.worker import tiny
from tests.unit.worker.scripted import served
from tests.unit.worker.tokenization.test_chunks import TEXTS
from tests.unit.worker.tokenization.test_length_bound import byte_level, sentencepiece

WORDS = "some words, " * 30_000
CONTEXT = 4000


class Fake:
    """What embeddings and rerank need of a loaded model."""

    prefix = ""
    lower_case = False

    def __init__(self, tokenizer: Tokenizer, context: int) -> None:
        self.tokenizer, self.context, self.embedder = tokenizer, context, self


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Of each text that was tokenized: its characters, and whether that was in the event loop's thread."""
    seen: list[tuple[int, bool]] = []
    plain = Tokenizer._plain

    def watched(self: Tokenizer, text: str, *, special: bool = False) -> list[int]:
        seen.append((len(text), threading.current_thread() is threading.main_thread()))
        return plain(self, text, special=special)

    monkeypatch.setattr(Tokenizer, "_plain", watched)
    return seen


async def post(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> httpx.Response:
    return await http.post(path, json={"model": "m"} | body, timeout=60)


def message(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


GENERATING = [
    ("/v1/chat/completions", message(WORDS)),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}] * (CONTEXT + 1)}),
    ("/v1/completions", {"prompt": WORDS}),
    ("/v1/completions", {"prompt": ["short", WORDS]}),
    ("/v1/responses", {"input": WORDS}),
    ("/v1/responses", {"input": WORDS, "truncation": "auto"}),
]


@pytest.mark.parametrize(("path", "body"), GENERATING)
def test_a_prompt_that_cannot_fit_is_refused_untokenized(
    path: str, body: dict[str, Any], tokenized: list[tuple[int, bool]]
) -> None:
    async def main() -> dict[str, Any]:
        async with served("ok", context=CONTEXT) as made:
            tokenized.clear()
            response = await post(made.http, path, body)
            assert response.status_code == 400
            return dict(response.json()["error"])

    error = asyncio.run(main())
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith(f"This model's maximum context length is {CONTEXT} tokens. However, ")
    assert sum(size for size, _ in tokenized) < SHORT_CHARS


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", message(WORDS) | {"truncate_prompt_tokens": 100}),
        ("/v1/completions", {"prompt": WORDS, "truncate_prompt_tokens": 100}),
        ("/tokenize", {"prompt": WORDS}),
        ("/tokenize", message(WORDS)),
        ("/count_token", {"prompt": WORDS}),
        ("/api/v1/token_check", {"prompts": [{"model": "m", "prompt": WORDS}]}),
    ],
)
def test_what_is_tokenized_is_so_in_pieces_beside_the_event_loop(
    path: str, body: dict[str, Any], tokenized: list[tuple[int, bool]]
) -> None:
    async def main() -> None:
        async with served("ok", context=CONTEXT) as made:
            tokenized.clear()
            assert (await post(made.http, path, body)).status_code == 200

    asyncio.run(main())
    assert tokenized
    assert max(size for size, _ in tokenized) < 1.5 * CHUNK_CHARS
    assert not any(in_loop for _, in_loop in tokenized)


def test_a_long_text_has_the_tokens_of_a_short_one() -> None:
    async def main() -> dict[str, Any]:
        async with served(context=CONTEXT) as made:
            counted = (await post(made.http, "/count_token", {"prompt": WORDS})).json()
            assert counted["count"] == len(WORDS)
            return dict((await post(made.http, "/tokenize", {"prompt": WORDS})).json())

    report = asyncio.run(main())
    assert report == {
        "count": len(WORDS), "max_model_len": CONTEXT, "tokens": Tokenizer(tiny.tokenizer()).encode(WORDS)
    }  # fmt: skip


def test_a_body_of_brackets_is_refused_unparsed() -> None:
    async def main() -> httpx.Response:
        async with served() as made:
            head = b'{"model": "m", "prompt": "x", "response_format": {"a": ['
            content = head + b"[]," * json_shape.MAX_CONTAINERS + b"1]}}"
            return await made.http.post("/v1/completions", content=content)

    response = asyncio.run(main())
    assert response.status_code == 400
    assert "objects and arrays" in response.json()["error"]["message"]


def test_the_oldest_turns_are_left_out_in_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []
    render = Tokenizer.render

    def counting(self: Tokenizer, *args: Any, **more: Any) -> str:
        tries.append(1)
        return render(self, *args, **more)

    monkeypatch.setattr(Tokenizer, "render", counting)
    said = [{"role": "user", "content": f"turn {at} "} for at in range(800)]

    async def main() -> dict[str, Any]:
        async with served("ok", context=1000) as made:
            body = {"input": said, "truncation": "auto", "max_output_tokens": 5}
            return dict((await post(made.http, "/v1/responses", body)).json())

    used = asyncio.run(main())["usage"]["input_tokens"]
    assert 1000 - 20 < used <= 1000 - 5
    assert len(tries) < 15


def test_texts_are_tokenized_by_threads_that_computing_ones_come_before() -> None:
    tokenizer = Tokenizer(tiny.tokenizer())
    tokenizer.encode("x" * (SHORT_CHARS + 1))

    def niceness(task: Path) -> int:
        return int((task / "stat").read_text().rsplit(")", 1)[1].split()[16])  # proc_pid_stat(5)

    wait_until(
        lambda: codecs.NICENESS in map(niceness, Path("/proc/self/task").iterdir()),
        10,
        "a thread that is nice",
    )


# -- the tokenizer -------------------------------------------------------------------------------------------------------


def wrapped(made: Any, *, special: bool) -> Any:
    """``made`` as transformers has it; with ``special`` texts begin and end with tokens of their own."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    out = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")
    if special:
        names = [("<s>", out.bos_token_id), ("</s>", out.eos_token_id)]
        out._tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=names
        )
    return out


@pytest.fixture(params=["byte level", "sentencepiece", "with special tokens"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    made = sentencepiece() if request.param == "sentencepiece" else byte_level()
    return Tokenizer(wrapped(made, special=request.param == "with special tokens"))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("special", [True, False])
def test_parts_of_a_long_text_are_parts_of_its_tokens(
    tokenizer: Tokenizer, text: str, special: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tokenizer.encode(text, special=special)
    monkeypatch.setattr(codecs, "MIN_CHUNK_CHARS", 400)
    monkeypatch.setattr(codecs, "CHUNK_CHARS", 700)
    assert tokenizer.encode(text, special=special) == whole
    assert [token for piece in tokenizer.encode_chunks(text, special=special) for token in piece] == whole
    for most in (1, 2, 50, 100_000):
        assert tokenizer.encode_end(text, most, special=special) == whole[-most:]
        if special:
            start = tokenizer.encode_start(text, most)
            assert len(start) == min(most, len(whole))
            assert start[:-1] == whole[:most][:-1]
        begun = tokenizer.prefix(text, most)
        assert text.startswith(begun)
        assert begun == text or len(tokenizer.encode(begun, special=False)) >= most


def test_reading_stops_once_there_are_too_many(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "MIN_CHUNK_CHARS", 400)
    read: list[int] = []
    plain = Tokenizer._plain

    def measuring(self: Tokenizer, text: str, **more: Any) -> Any:
        read.append(len(text))
        return plain(self, text, **more)

    monkeypatch.setattr(Tokenizer, "_plain", measuring)
    tokenizer._bound = None
    text = "hello world " * 10_000
    with pytest.raises(TooLong, match="about"):
        tokenizer.encode(text, most=50)
    assert sum(read) < len(text) / 10


def test_a_text_of_which_nobody_waits_for_the_tokens_is_read_no_further(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> None:
        raise AbandonedError

    monkeypatch.setattr(codecs, "check_abandoned", left)
    for read in (
        tokenizer.count,
        lambda text: tokenizer.encode_end(text, 10),
        lambda text: tokenizer.prefix(text, 10),
    ):
        with pytest.raises(AbandonedError):
            read("hello world " * 10_000)


# -- texts for models that read them in one pass ---------------------------------------------------------------------


def embedding_body(given: str | list[str], **more: object) -> EmbeddingBody:
    return EmbeddingBody.model_validate({"model": "m", "input": given, **more})


def test_an_input_that_is_too_long_is_refused_or_cut(tokenizer: Tokenizer) -> None:
    loaded: Any = Fake(tokenizer, 20)
    text = "hello world " * 50_000
    with pytest.raises(ContextOverflow, match=r"maximum context length is 20 tokens.*input\[1\]") as caught:
        embeddings.tokenized_inputs(embedding_body(["hello", text]), loaded)
    assert caught.value.param == "input"
    (cut,) = embeddings.tokenized_inputs(embedding_body(text, truncate=True), loaded)
    assert cut == tokenizer.encode_start(text, 20)
    assert len(cut) == 20


def test_a_pair_that_is_too_long_is_refused_or_cut(
    tokenizer: Tokenizer, tokenized: list[tuple[int, bool]]
) -> None:
    loaded: Any = Fake(tokenizer, 20)
    text = "hello world " * 50_000
    asked = rerank.TextPairs([("hello", text), ("hello", text)], 20, "documents", 0)
    pairs = rerank.tokenized_pairs(asked, loaded)
    assert [len(pair.tokens) for pair in pairs] == [20, 20]
    assert sum(size for size, _ in tokenized) < len(text) / 10
    with pytest.raises(ContextOverflow, match=r"maximum context length is 20 tokens.*more than"):
        rerank.tokenized_pairs(rerank.TextPairs(asked.texts, None, "documents", 0), loaded)
