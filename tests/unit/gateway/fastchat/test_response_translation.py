"""FastChat's pieces, with the whole text so far in each, as OpenAI's answers."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.fastchat.response_translation import (
    ChoiceState,
    ResponseShape,
    WorkerError,
    check,
    embeddings,
    usage,
    vectors,
)


def piece(text: str, last: int | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    told = (
        {}
        if last is None
        else {"usage": {"prompt_tokens": 4, "completion_tokens": last, "total_tokens": 4 + last}}
    )
    return {"text": text, "error_code": 0, "finish_reason": finish, **told, **more}


def told(choice: ChoiceState, *pieces: dict[str, Any]) -> str:
    return "".join([choice.take(p).text for p in pieces] + [choice.end().text])


def test_text_so_far_becomes_what_is_new() -> None:
    choice = ChoiceState(0, 0, 9)
    deltas = [
        choice.take(p)
        for p in (piece("I", 0), piece("I am", 2), piece("I am", 2), piece("I am.", 3, "length"))
    ]
    assert [d.text for d in deltas] == ["I", " am", "", "."]
    assert [bool(d) for d in deltas] == [True, True, False, True]
    assert [d.finish for d in deltas] == [None, None, None, "length"]
    assert not choice.end()


@given(st.text(), st.lists(st.integers(0, 30)))
def test_whatever_the_steps_the_pieces_make_the_text(text: str, cuts: list[int]) -> None:
    choice = ChoiceState(0, 0, 99)
    steps = [piece(text[:cut], i) for i, cut in enumerate(sorted(cuts))]
    assert told(choice, *steps, piece(text, 50, "stop")) == text == choice.text


@given(st.text(min_size=1), st.lists(st.integers(0, 200)))
def test_a_character_is_told_when_it_is_complete(text: str, cuts: list[int]) -> None:
    """A tokenizer shows a character whose bytes are not all there as U+FFFD."""
    data = text.encode()
    steps = [piece(data[:cut].decode(errors="replace"), i) for i, cut in enumerate(sorted(cuts))]
    assert told(ChoiceState(0, 0, 999), *steps, piece(text, 50, "stop")) == text


def test_a_text_that_shrinks_at_a_stop_string_takes_nothing_back() -> None:
    assert told(ChoiceState(0, 0, 9), piece("one tw", 2), piece("one", 3, "stop")) == "one tw"


def test_completion_tokens_are_one_too_few() -> None:
    """model_worker tells the number of the last token from 0; vllm_worker and others tell how many there are."""
    from_zero, exact, held_back, known = (ChoiceState(0, 0, 4) for _ in range(4))
    told(from_zero, piece("a", 0), piece("a b", 2), piece("a b", 2, "stop"))
    told(exact, piece("a", 1), piece("a b", 3, "stop"))
    told(held_back, piece("a b c", 2), piece("a b c d", 3, "length"))
    known.from_zero = True
    told(known, piece("a b c", 2), piece("a b c", 2, "stop"))
    assert [c.completion_tokens for c in (from_zero, exact, held_back, known)] == [3, 3, 4, 3]


def test_n_2_counts_the_prompt_twice() -> None:
    choices = [ChoiceState(i, i // 2, 9) for i in range(4)]
    for choice in choices:
        told(choice, piece("a", 0), piece("a b", 1, "stop"))
    assert usage(choices, [5, 6], [0] * 4) == {"prompt_tokens": 8, "completion_tokens": 8, "total_tokens": 16}


def test_usage_that_a_worker_does_not_tell_is_counted() -> None:
    choice = ChoiceState(0, 0, 9)
    told(choice, piece("a b", usage={}, finish="stop"))
    assert usage([choice], [5], [2]) == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def test_an_end_without_a_reason_is_a_stop() -> None:
    choice = ChoiceState(0, 0, 9)
    choice.take(piece("a\ufffd", 1))
    assert choice.end().text == "\ufffd"
    assert choice.finish == "stop"


def test_logprobs_are_told_once() -> None:
    choice = ChoiceState(0, 0, 9)

    def numbers(n: int) -> dict[str, Any]:
        return {
            "tokens": list("abc"[:n]),
            "token_logprobs": [-1.0] * n,
            "top_logprobs": [{}] * n,
            "text_offset": [0] * n,
        }

    first = choice.take(piece("a", 0, logprobs=numbers(1))).logprobs
    second = choice.take(piece("abc", 2, "length", logprobs=numbers(3))).logprobs
    assert first is not None
    assert second is not None
    assert (first["tokens"], second["tokens"]) == (["a"], ["b", "c"])


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        (50001, 500, "fastchat_50001"), (50002, 503, "out_of_memory"), (40303, 400, "fastchat_40303"),
        (42903, 429, "fastchat_42903"), (7, 500, "fastchat_7"), ("x", 500, "fastchat_x"),
    ],
)  # fmt: skip
def test_an_error_under_status_200_is_an_error(number: object, status: int, code: str) -> None:
    noise = "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**"
    with pytest.raises(WorkerError) as caught:
        check({"text": f"{noise}\n\n(CUDA is full)", "error_code": number})
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.message == "FastChat's worker failed: CUDA is full"


def test_what_is_no_piece_is_an_error() -> None:
    values: list[Any] = [None, [], "x"]
    for value in values:
        with pytest.raises(WorkerError):
            check(value)
    with pytest.raises(WorkerError):
        ChoiceState(0, 0, 9).take({"error_code": 0})


def test_documents_and_events() -> None:
    choice = ChoiceState(0, 0, 9)
    delta = choice.take(piece("a b", 0, "stop"))
    shape = ResponseShape("id", 5, "m", chat=True, include_usage=True)
    first, last = shape.events(0, delta)
    assert first["choices"] == [
        {"index": 0, "delta": {"content": "a b"}, "logprobs": None, "finish_reason": None}
    ]
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert first["usage"] is None
    assert first["object"] == "chat.completion.chunk"
    assert shape.usage_event({"total_tokens": 1})["choices"] == []
    whole = ResponseShape("id", 5, "m", chat=False).document([choice], {})
    assert whole["choices"] == [{"index": 0, "text": "a b", "logprobs": None, "finish_reason": "stop"}]
    assert (whole["object"], whole["model"], whole["id"], whole["created"]) == (
        "text_completion",
        "m",
        "id",
        5,
    )


def test_embeddings_are_32_bit_floats_whatever_the_model_is_held_in() -> None:
    rows, tokens = vectors({"embedding": [[0.5, -2.0]], "token_num": 3})
    found = embeddings("m", rows, tokens, in_base64=True)
    assert struct.unpack("<2f", base64.b64decode(found["data"][0]["embedding"])) == (0.5, -2.0)
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    for bad in ({}, {"embedding": [["x"]], "token_num": 1}, {"embedding": [[1]], "token_num": None}):
        with pytest.raises(WorkerError):
            vectors(bad)
