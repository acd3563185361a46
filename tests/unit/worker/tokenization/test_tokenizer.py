"""The model's own tokenizer and template."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from tests.unit.worker import tiny

HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.fresh("Llama", vocab_size=259), tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("text", ["hello", "naïve – 日本 🙂", "", " a  b\n"])
def test_text_survives(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_tokenizer_that_cuts_and_pads_is_told_not_to(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer._tokenizer.enable_padding(length=50)
    tokenizer._tokenizer.enable_truncation(max_length=3)
    tokenizer = Tokenizer(tokenizer)
    assert len(tokenizer.encode("four")) == 4
    assert len(tokenizer.encode("a")) == 1


def test_bytes_of_a_token_that_is_no_whole_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🙂")
    assert [tokenizer.token_bytes(token) for token in ids] == [[byte] for byte in "🙂".encode()]


def test_the_template_is_the_models_own(tokenizer: Tokenizer) -> None:
    assert tokenizer.render(HELLO, add_generation_prompt=True) == "u:Hi\na:"
    assert tokenizer.render(HELLO, add_generation_prompt=False) == "u:Hi\n"


def test_a_model_without_a_template_is_told_clearly(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    with pytest.raises(BadRequest, match="no chat template") as caught:
        Tokenizer(tokenizer).render(HELLO)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[5].content.x }}",
        "{% for %}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_that_refuses_is_a_bad_request(folder: Path, template: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    with pytest.raises(BadRequest) as caught:
        Tokenizer(tokenizer).render(HELLO)
    assert caught.value.param == "messages"


def test_special_tokens_are_left_out_of_text_unless_asked_for(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([0, *tokenizer.encode("x"), 1]) == "x"
    assert tokenizer.decode([0, *tokenizer.encode("x"), 1], skip_special=False) == "<s>x</s>"
