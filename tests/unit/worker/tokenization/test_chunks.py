"""Pieces of a text make the tokens of the whole."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer

from llmlaunch.worker.tokenization import chunks
from tests.unit.worker.tokenization.test_length_bound import byte_level, sentencepiece

TEXTS = {
    "words": "hello world " * 400,
    "one word": "hello" * 1000,
    "code": "for x in y:\n    print(hello, world)\n\n" * 150,
    "no spaces": "日本語のテキスト。これは長い、とても長い文です。" * 100,
    "spaces": " " * 5000,
    "empty": "",
    "chance": "".join(random.Random(2).choices("ab c\n.,é🙂", k=6000)),
}


def encoder(made: Tokenizer) -> Callable[[str], list[int]]:
    return lambda text: list(made.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("made", [byte_level(), sentencepiece()], ids=["byte level", "sentencepiece"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("size", [300, 1000])
def test_pieces_make_the_tokens_of_the_whole(made: Tokenizer, text: str, size: int) -> None:
    encode = encoder(made)
    pieces = [piece for piece, _ in chunks.split_forward(text, size, encode)]
    assert [token for piece in pieces for token in encode(piece)] == encode(text)
    back = list(chunks.split_backward(text, size, encode))
    assert [token for piece in reversed(back) for token in encode(piece)] == encode(text)


@pytest.mark.parametrize("name", ["words", "code", "no spaces", "chance"])
def test_pieces_are_about_as_long_as_asked(name: str) -> None:
    text, encode = TEXTS[name], encoder(byte_level())
    forward = list(chunks.split_forward(text, 500, encode))
    assert max(len(piece) for piece, _ in forward) < 1000
    assert [read for _, read in forward] == sorted({read for _, read in forward})
    assert forward[-1][1] == len(text)
    assert max(map(len, chunks.split_backward(text, 500, encode))) < 1000


def test_a_text_that_cannot_be_cut_stays_whole() -> None:
    text = "x" * 5000
    assert list(chunks.split_forward(text, 500, encoder(byte_level()))) == [(text, 5000)]


def test_the_space_that_a_tokenizer_puts_before_each_text_is_left_out_between_pieces() -> None:
    text = "aa a " * 300
    pieces = [piece for piece, _ in chunks.split_forward(text, 300, encoder(sentencepiece()))]
    assert len(pieces) > 3
    assert not any(piece.startswith(" ") for piece in pieces)
