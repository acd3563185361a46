"""Which model is asked how for the text between two others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.worker.tokenization.fill_in_middle import FAMILIES, PREFIX, SUFFIX, Part, form_of, kept

QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
        "<|repo_name|>", "<|file_sep|>", "<tool_call>"]  # fmt: skip
GLM = [
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|user|>",
    "<|assistant|>",
    "<|code_prefix|>",
    "<|code_middle|>",
    "<|code_suffix|>",
    "\n",
]
VOCABULARIES: dict[str, tuple[list[str], str, set[str]]] = {
    "Qwen2.5-Coder": (
        QWEN, "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>", set(QWEN) - {"<|im_start|>", "<tool_call>"},
    ),
    "CodeGemma": (
        ["<bos>", "<eos>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"],
        "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"},
    ),
    "StarCoder2": (
        ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<repo_name>", "<file_sep>"],
        "<fim_prefix>P<fim_suffix>S<fim_middle>",
        {"<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<repo_name>", "<file_sep>"},
    ),
    "SantaCoder": (
        ["<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>"],
        "<fim-prefix>P<fim-suffix>S<fim-middle>",
        {"<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>"},
    ),
    "DeepSeek-Coder": (
        ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<|EOT|>"],
        "<｜fim▁begin｜>P<｜fim▁hole｜>S<｜fim▁end｜>",
        {"<｜end▁of▁sentence｜>", "<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<|EOT|>"},
    ),
    "CodeLlama": (
        ["<s>", "</s>", "▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"],
        "▁<PRE>P▁<SUF>S▁<MID>",
        {"▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"},
    ),
    "Codestral": (
        ["<s>", "</s>", "[INST]", "[/INST]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"],
        "[SUFFIX]S[PREFIX]P",
        {"[PREFIX]", "[MIDDLE]", "[SUFFIX]"},
    ),
    "Seed-Coder": (
        ["<[begin▁of▁sentence]>", "<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>"],
        "<[fim-suffix]>S<[fim-prefix]>P<[fim-middle]>",
        {"<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>"},
    ),
    "GLM-4.5": (
        [*GLM, "<tool_call>"],
        "<|code_prefix|>P<|code_suffix|>S<|code_middle|>",
        {"<|endoftext|>", "<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>"},
    ),
    "CodeGeeX4": (
        GLM,
        "<|user|>\n<|code_suffix|>S<|code_prefix|>P<|code_middle|><|assistant|>\n",
        {"<|endoftext|>", "<|user|>", "<|assistant|>", "<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>"},
    ),
    "InCoder": (
        ["<|endoftext|>", "<|mask:0|>", "<|mask:1|>", "<|endofmask|>"],
        "P<|mask:0|>S<|mask:1|><|mask:0|>",
        {"<|mask:0|>", "<|mask:1|>", "<|endofmask|>"},
    ),
}  # fmt: skip


def tokens_of(vocabulary: list[str]) -> dict[str, int]:
    return {text: 100 + at for at, text in enumerate(vocabulary)}


@pytest.mark.parametrize("model", VOCABULARIES)
def test_the_marks_of_a_vocabulary_give_the_form_and_the_ends(model: str) -> None:
    vocabulary, shown, ends = VOCABULARIES[model]
    tokens = tokens_of(vocabulary)
    form = form_of(tokens.get)
    assert form is not None
    texts = {token: text for text, token in tokens.items()} | {1: "P", 2: "S", 3: "^"}
    filled = form.fill([3], [1], [2])
    assert "".join(texts[token] for token in filled.tokens) == "^" + shown
    assert filled.tokens[filled.prefix_at] == 1
    assert {texts[token] for token in form.ends} == ends
    assert len(filled.tokens) == 3 + form.marks


@pytest.mark.parametrize("model", VOCABULARIES)
def test_a_vocabulary_that_lacks_one_of_the_marks_gives_none(model: str) -> None:
    vocabulary, shown, _ = VOCABULARIES[model]
    for mark in (mark for mark in vocabulary if mark in shown and not mark.isspace()):
        assert form_of(tokens_of([other for other in vocabulary if other != mark]).get) is None
    assert form_of({"<s>": 0, "</s>": 1}.get) is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_can_be_found_and_has_each_part_once(family: object) -> None:
    (one,) = [other for other in FAMILIES if other is family]
    assert [part for part in one.form if isinstance(part, Part)].count(PREFIX) == 1
    assert [part for part in one.form if isinstance(part, Part)].count(SUFFIX) == 1
    words = {word: at for at, word in enumerate((*one.form, *one.beside)) if isinstance(word, str)}
    found = form_of(words.get)
    assert found is not None
    assert found.family == one.name


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 60))
def test_what_does_not_fit_loses_what_is_far_from_the_answer(prefix: int, suffix: int, room: int) -> None:
    before, after = kept(prefix, suffix, room)
    assert 0 <= before <= prefix
    assert 0 <= after <= suffix
    assert before + after == min(room, prefix + suffix)
    assert after >= min(suffix, room // 4)
