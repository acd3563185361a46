"""Completions with a suffix, asked over HTTP of a model that has the marks: what it reads, and what comes back."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from tests.unit.worker import tiny
from tests.unit.worker.scripted import served

PRE, SUF, MID, PAD = (len(tiny.tokenizer()) + at for at in range(4))
TOKENS = {PRE: "<PRE>", SUF: "<SUF>", MID: "<MID>", PAD: "<PAD>"}


@dataclass
class Asked:
    status: int
    body: Any
    prompts: list[str]
    """What the model read, marks included."""

    @property
    def text(self) -> str:
        return str(self.body["choices"][0]["text"])

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body["error"]
        return found


def ask(text: str = "mid", *, marks: tuple[str, ...] = tiny.MARKS, context: int = 4000, **body: Any) -> Asked:
    async def inside() -> Asked:
        async with served(text, marks=marks, context=context) as made:
            answer = await made.http.post(
                "/v1/completions", json={"model": "m", "prompt": "ab", "suffix": "yz"} | body
            )
            codec = Tokenizer(tiny.tokenizer(marks))
            prompts = [
                "".join(TOKENS.get(token) or codec.token_text(token) for token in asked.prompt)
                for asked in made.script.asked
            ]
            found = answer.text if body.get("stream") else answer.json()
            return Asked(answer.status_code, found, prompts)

    return asyncio.run(inside())


def ids(text: str) -> list[int]:
    return Tokenizer(tiny.tokenizer()).encode(text)


def test_the_model_reads_prefix_and_suffix_and_writes_the_middle() -> None:
    asked = ask("middle")
    assert asked.status == 200
    assert asked.prompts == ["<PRE>ab<SUF>yz<MID>"]
    assert asked.text == "middle"
    assert asked.body["choices"][0]["finish_reason"] == "stop"
    assert asked.body["usage"]["prompt_tokens"] == 7


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        (["a", "bc"], ["<PRE>a<SUF>yz<MID>", "<PRE>bc<SUF>yz<MID>"]),
        (ids("ab"), ["<PRE>ab<SUF>yz<MID>"]),
        ([ids("a"), ids("bc")], ["<PRE>a<SUF>yz<MID>", "<PRE>bc<SUF>yz<MID>"]),
        ("", ["<PRE><SUF>yz<MID>"]),
        (["", "b"], ["<PRE><SUF>yz<MID>", "<PRE>b<SUF>yz<MID>"]),
    ],
    ids=["texts", "ids", "lists of ids", "nothing before", "nothing before one of them"],
)
def test_prompts_in_every_form(prompt: Any, read: list[str]) -> None:
    asked = ask(prompt=prompt)
    assert asked.status == 200
    assert asked.prompts == read
    assert [choice["text"] for choice in asked.body["choices"]] == ["mid"] * len(read)


@pytest.mark.parametrize("suffix", [None, ""])
def test_without_a_suffix_it_is_a_plain_completion(suffix: str | None) -> None:
    assert ask(suffix=suffix).prompts == ["ab"]
    assert ask(suffix=suffix, marks=()).prompts == ["ab"]
    assert ask(suffix=suffix, prompt="").error["param"] == "prompt"


def test_a_model_without_marks_says_why_it_cannot() -> None:
    asked = ask(marks=())
    assert (asked.status, asked.error["param"], asked.error["code"]) == (400, "suffix", "unsupported")
    assert "its tokenizer has no marks for filling in the middle" in asked.error["message"]


def test_a_suffix_is_one_text() -> None:
    assert ask(suffix=["a"]).error["param"] == "suffix"


def test_the_middle_ends_at_its_own_end_and_at_no_other_place() -> None:
    asked = ask("mi<fim_pad>more", max_tokens=30)
    choice = asked.body["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("mi", "stop", None)
    whole = ask("mi<fim_pad>more", max_tokens=7, ignore_eos=True, skip_special_tokens=False)
    assert whole.text == "mi<fim_pad>more"
    assert ask("mi<fim_pad>more", suffix=None, max_tokens=30).text == "mimore"
    assert ask("mi;dle", stop=";").text == "mi"


def test_the_echo_is_the_prompt_alone() -> None:
    assert ask(echo=True).text == "abmid"
    assert ask(echo=True, prompt="").text == "mid"
    assert ask(echo=True, prompt=ids("ab"), n=2).text == "abmid"
    events = [
        json.loads(line[6:])
        for line in ask(echo=True, stream=True).body.splitlines()
        if line.startswith("data: {")
    ]
    assert "".join(event["choices"][0]["text"] for event in events) == "abmid"


def test_logprobs_are_of_the_middle() -> None:
    logprobs = ask("mi<fim_pad>", logprobs=1).body["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["m", "i"]
    assert logprobs["text_offset"] == [0, 1]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"max_tokens": 20}, "prompt", "maximum context length is 20 tokens.*27 tokens: 7 in the prompt and suffix and 20"),
        ({"suffix": "x" * 99}, "prompt", "maximum context length is 20 tokens.*in the prompt and suffix"),
        ({"suffix": "x" * 99_999}, "suffix", "maximum context length is 20 tokens.*your suffix resulted in"),
        ({"prompt": "x" * 99_999}, "prompt", "maximum context length is 20 tokens.*your prompt resulted in"),
    ],
    ids=["answer", "suffix", "very long suffix", "very long prompt"],
)  # fmt: skip
def test_what_exceeds_the_context_is_told_in_openais_words(
    body: dict[str, Any], param: str, words: str
) -> None:
    asked = ask(context=20, **body)
    assert (asked.status, asked.error["code"], asked.error["param"]) == (
        400,
        "context_length_exceeded",
        param,
    )
    assert re.search(words, asked.error["message"])


def test_truncation_keeps_the_marks_and_what_is_next_to_the_answer() -> None:
    letters = "abcdefghij"
    asked = ask(prompt=letters, suffix="0123456789", truncate_prompt_tokens=11)
    assert asked.prompts == ["<PRE>efghij<SUF>01<MID>"]
    assert ask(prompt=letters, suffix="0", truncate_prompt_tokens=11).prompts == ["<PRE>defghij<SUF>0<MID>"]
    assert ask(prompt="a", suffix="0123456789", truncate_prompt_tokens=11).prompts == [
        "<PRE>a<SUF>0123456<MID>"
    ]
    assert ask(prompt=ids(letters), suffix="01", truncate_prompt_tokens=7).prompts == ["<PRE>hij<SUF>0<MID>"]
    refused = ask(truncate_prompt_tokens=3)
    assert (refused.status, refused.error["param"]) == (400, "truncate_prompt_tokens")
