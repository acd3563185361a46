"""A text is refused by its length only where it really has more tokens."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from llmlaunch.worker.tokenization.length_bound import LengthBound, bound
from llmlaunch.worker.tokenization.tokenizer import _BYTES

WORDS = ["hello", " world", "            ", "Kelvin"]


def byte_level(words: list[str] = WORDS, *, without: bytes = b"") -> Tokenizer:
    """All bytes, and ``words``, each by a merge of its first letters with its last one."""
    letters = {byte: letter for letter, byte in _BYTES.items()}
    vocabulary = {letter: at for at, letter in enumerate(_BYTES) if _BYTES[letter] not in without}
    merges: list[tuple[str, str]] = []
    for word in words:
        spelt = "".join(letters[byte] for byte in word.encode())
        for end in range(2, len(spelt) + 1):
            if spelt[:end] not in vocabulary:
                vocabulary[spelt[:end]] = len(vocabulary) + 300
                merges.append((spelt[: end - 1], spelt[end - 1]))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return made


def sentencepiece(**settings: Any) -> Tokenizer:
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a", "aa"]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    settings = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True} | settings
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "a"), ("a", "a")], **settings))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return made


def changed(change: Callable[[Tokenizer], object], made: Tokenizer | None = None) -> Tokenizer:
    made = made or byte_level()
    change(made)
    return made


def normalized(*parts: Any) -> Tokenizer:
    return changed(lambda made: setattr(made, "normalizer", normalizers.Sequence(list(parts))))


def cut(*parts: Any) -> Tokenizer:
    return changed(
        lambda made: setattr(made, "pre_tokenizer", pre_tokenizers.Sequence([*parts, made.pre_tokenizer]))
    )


def with_token(**settings: Any) -> Tokenizer:
    return changed(lambda made: made.add_tokens([AddedToken("<|a rather long one|>", **settings)]))


BOUNDED = {
    "byte level": byte_level(),
    "byte level without control characters": byte_level(without=b"\x04\x06\xf1\xf2\xc0\xff"),
    "sentencepiece with bytes for the unknown": sentencepiece(),
    "unknown letters one by one": sentencepiece(byte_fallback=False, fuse_unk=False),
    "composing": normalized(normalizers.NFC()),
    "compatibility, lower case": normalized(normalizers.NFKC(), normalizers.Lowercase()),
    "shorter replacements": normalized(normalizers.Replace("aaaa", "a")),
    "words": cut(pre_tokenizers.Split(Regex(r"\s+"), "isolated"), pre_tokenizers.Digits()),
    "a long special token": with_token(special=True),
}
FREE = {
    "unknown runs are one token": sentencepiece(byte_fallback=False),
    "whitespace is stripped": normalized(normalizers.Strip()),
    "a pattern is replaced": normalized(normalizers.Replace(Regex(" +"), " ")),
    "a text is removed": normalized(normalizers.Replace("a", "")),
    "accents are stripped": normalized(normalizers.NFD(), normalizers.StripAccents()),
    "BERT's": normalized(normalizers.BertNormalizer()),
    "spaces are removed": cut(pre_tokenizers.Whitespace()),
    "a split is removed": cut(pre_tokenizers.Split(" ", "removed")),
    "punctuation is removed": cut(pre_tokenizers.Punctuation("removed")),
    "a token that swallows what is before it": with_token(lstrip=True),
    "a token that swallows what is behind it": with_token(rstrip=True, special=True),
    "word pieces": Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")),
    "words alone": Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")),
    "unigram": Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0)),
}
PARTS = [
    *WORDS, "a", "aaaa", "é", "e\u0301", "\u212b", "\u212a", "한", "각", "𝐀", "ﷺ", "ﬃ", "🙂", "\x04", "\x06",
    "\U00040000", " ", "\n", "\t", "12345", "<|a rather long one|>", "!?", "日本",
]  # fmt: skip


@pytest.mark.parametrize("made", BOUNDED.values(), ids=BOUNDED)
def test_no_text_makes_fewer_tokens_than_said(made: Tokenizer) -> None:
    known = bound(made, _BYTES)
    assert known is not None
    chance = random.Random(5)
    texts = [part * 50 for part in PARTS]
    texts += ["".join(chance.choices(PARTS, k=chance.randrange(1, 60))) for _ in range(2000)]
    for text in texts:
        assert known.min_tokens(text) <= len(made.encode(text, add_special_tokens=False)), text


@pytest.mark.parametrize("made", FREE.values(), ids=FREE)
def test_where_a_text_may_vanish_nothing_is_said(made: Tokenizer) -> None:
    assert bound(made, _BYTES) is None


def test_the_bound_is_the_longest_token_in_bytes() -> None:
    assert bound(byte_level(["hello world"]), _BYTES) == LengthBound(longest=11)
    assert bound(with_token(), _BYTES) == LengthBound(longest=21)
    assert bound(byte_level(without=b"\x04\xff"), _BYTES) == LengthBound(longest=12, ignored=b"\x04")
    assert LengthBound(longest=11).min_tokens("x" * 111) == 11
    assert LengthBound(longest=11).min_tokens("") == 0
    assert LengthBound(longest=11, ignored=b"\x04").min_tokens("\x04" * 1000) == 0


def test_a_component_that_is_not_known_bounds_nothing() -> None:
    made = byte_level()
    state = json.loads(made.to_str())
    assert bound(Tokenizer.from_str(json.dumps(state)), _BYTES) is not None
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}]}
    assert bound(Tokenizer.from_str(json.dumps(state)), _BYTES) is None
