"""The model's own tokenizer and template."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import Codec
from tests.unit.worker import tiny

HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.fresh("Llama", vocab_size=259), tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def codec(folder: Path) -> Codec:
    return Codec(AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("text", ["hello", "naïve – 日本 🙂", "", " a  b\n"])
def test_text_survives(codec: Codec, text: str) -> None:
    assert codec.decode(codec.encode(text)) == text


def test_a_tokenizer_that_cuts_and_pads_is_told_not_to(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer._tokenizer.enable_padding(length=50)
    tokenizer._tokenizer.enable_truncation(max_length=3)
    codec = Codec(tokenizer)
    assert len(codec.encode("four")) == 4
    assert len(codec.encode("a")) == 1


def test_bytes_of_a_token_that_is_no_whole_character(codec: Codec) -> None:
    ids = codec.encode("🙂")
    assert [codec.token_bytes(token) for token in ids] == [[byte] for byte in "🙂".encode()]


def test_the_template_is_the_models_own(codec: Codec) -> None:
    assert codec.render(HELLO, add_generation_prompt=True) == "u:Hi\na:"
    assert codec.render(HELLO, add_generation_prompt=False) == "u:Hi\n"


def test_a_model_without_a_template_is_told_clearly(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    with pytest.raises(BadRequest, match="no chat template") as caught:
        Codec(tokenizer).render(HELLO)
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
        Codec(tokenizer).render(HELLO)
    assert caught.value.param == "messages"


def test_special_tokens_are_left_out_of_text_unless_asked_for(codec: Codec) -> None:
    assert codec.decode([0, *codec.encode("x"), 1]) == "x"
    assert codec.decode([0, *codec.encode("x"), 1], skip_special=False) == "<s>x</s>"
