"""The model's own tokenizer and template."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import Tokenizer, TooLong
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


def of_sentencepiece(scheme: str) -> Tokenizer:
    """Like CodeLlama's: pieces without special tokens, whole words, and a space before every text, or none."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", "▁<PRE>", "▁", "☺", "a", "b", "\n", "▁a", "ab", "▁ab"]
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b")]
    fast = Fast(models.BPE({piece: at for at, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    fast.decoder = decoders.Metaspace(prepend_scheme=scheme)
    fast.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="<unk>", bos_token="<s>"))


@pytest.mark.parametrize("scheme", ["first", "always"])
@pytest.mark.parametrize(
    ("text", "alone", "within"),
    [("ab", [11], [10]), ("\nab", [4, 8, 10], [8, 10]), (" ab", [11], [11]), ("", [], [])],
    ids=["a word", "a line", "a space", "nothing"],
)
def test_a_text_within_another_has_no_space_before_it(
    scheme: str, text: str, alone: list[int], within: list[int]
) -> None:
    tokenizer = of_sentencepiece(scheme)
    assert tokenizer.encode(text, special=False) == alone
    assert tokenizer.encode_within(text) == within
    assert tokenizer.encode_within(text, most=len(within)) == within
    assert tokenizer.opening == [1]


def test_other_tokenizers_put_no_space_anywhere(tokenizer: Tokenizer) -> None:
    assert of_sentencepiece("never").encode_within("ab") == [10]
    assert tokenizer.encode_within(" ab") == tokenizer.encode(" ab", special=False)
    with pytest.raises(TooLong):
        of_sentencepiece("first").encode_within("ab" * 40_000, most=5)


def test_the_token_that_a_text_is(tokenizer: Tokenizer) -> None:
    pieces = of_sentencepiece("first")
    assert (pieces.token_of("▁<PRE>"), pieces.token_of("<unk>"), pieces.token_of("<PRE>")) == (3, 0, None)
    assert tokenizer.token_of("<pad>") == 2
    assert tokenizer.token_of("\n") == tokenizer.encode("\n")[0]
    assert tokenizer.token_of("ab") is None
