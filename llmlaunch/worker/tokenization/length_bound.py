"""A lower bound for the number of tokens of a text, so that one that is too long is refused without tokenizing it.

A text of ``b`` bytes has at least ``b / longest`` tokens, where ``longest`` is the longest token of the vocabulary.
That only holds if every byte of the text ends up in a token. Many tokenizers drop some (whitespace, accents, control
characters) or turn a run of unknown letters into one token; for these there is no bound (None). Unknown components also
mean None: a text that would fit must never be refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

CANONICAL = 3
"""How much canonical normalization and lower case shrink UTF-8 at most: Hangul (9 bytes → 3), the Kelvin sign (3 → 1)."""
COMPATIBLE = 4
"""The same for compatibility normalization: mathematical alphanumeric symbols (4 bytes → 1)."""
SHRINKS = {
    "NFC": CANONICAL, "NFD": CANONICAL, "NFKC": COMPATIBLE, "NFKD": COMPATIBLE, "Lowercase": CANONICAL,
    "Prepend": 1, "ByteLevel": 1,
}  # fmt: skip
KEEPS_ALL = {"ByteLevel", "Metaspace", "Digits", "UnicodeScripts", "FixedLength"}
CUTS = {"Split", "Punctuation"}
BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
NEVER = {0xC0, 0xC1, *range(0xF5, 0x100)}
"""Bytes that never occur in UTF-8."""
MOST_IGNORED = 32
"""Maximum number of ignored byte values worth counting: most vocabularies lack some control characters."""


@dataclass(frozen=True, slots=True)
class LengthBound:
    """A lower bound on the number of tokens of any text, for one tokenizer."""

    longest: int
    """Maximum number of bytes of text per token."""
    ignored: bytes = b""
    """Bytes without a token: they may be dropped."""

    def min_tokens(self, text: str) -> int:
        """Minimum number of tokens of ``text``."""
        data = text.encode("utf-8", "surrogatepass")
        size = len(data) - sum(data.count(byte) for byte in self.ignored)
        return -(-size // self.longest)


def bound(tokenizer: Any, letters: dict[str, int]) -> LengthBound | None:
    """The bound for a ``tokenizers.Tokenizer``; None if there is none.

    ``letters``: those that byte-level tokenizers represent bytes with.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    if any(token.lstrip or token.rstrip for token in added):  # they swallow adjacent whitespace
        return None
    before, within = _state(tokenizer.normalizer), _state(tokenizer.pre_tokenizer)
    shrinks = _shrinks(before)
    if shrinks is None or not _keeps(within):
        return None
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    byte_level = _has(before, "ByteLevel") or _has(within, "ByteLevel")
    ignored = _ignored(tokenizer.model, vocabulary, letters if byte_level else None)
    if ignored is None or len(ignored) > MOST_IGNORED:
        return None
    pieces = max(map(len, vocabulary)) if byte_level else max(len(piece.encode()) for piece in vocabulary)
    names = [token.content for token in added]
    if before is not None:
        names += [tokenizer.normalizer.normalize_str(name) for name in names]
    return LengthBound(max([pieces, 4, *(len(name.encode()) for name in names)]) * shrinks, ignored)


def _ignored(model: Any, vocabulary: dict[str, int], letters: dict[str, int] | None) -> bytes | None:
    """Bytes that are dropped from texts; None if whole runs of unknown letters may be."""
    if type(model).__name__ != "BPE":
        return None
    if letters is not None:
        missing = {byte for letter, byte in letters.items() if letter not in vocabulary}
        return bytes(sorted(missing - NEVER))
    if model.byte_fallback and vocabulary.keys() >= BYTES:
        return b""
    return b"" if model.unk_token is not None and not model.fuse_unk else None


def _state(component: Any) -> dict[str, Any] | None:
    return None if component is None else json.loads(component.__getstate__())


def _parts(state: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return state[name] if state["type"] == "Sequence" else [state]


def _shrinks(normalizer: dict[str, Any] | None) -> int | None:
    """By what factor the normalizer shrinks a text at most; None if unknown."""
    factor = 1
    for part in _parts(normalizer, "normalizers") if normalizer else []:
        own = _replaced(part) if part["type"] == "Replace" else SHRINKS.get(part["type"])
        if own is None:
            return None
        factor *= own
    return factor


def _replaced(part: dict[str, Any]) -> int | None:
    pattern, content = part["pattern"].get("String"), part["content"]
    if not pattern or not content:  # a regular expression, or a removal
        return None
    return max(1, -(-len(pattern.encode()) // len(content.encode())))


def _keeps(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether splitting a text into words removes nothing."""
    parts = _parts(pre_tokenizer, "pretokenizers") if pre_tokenizer else []
    return all(
        part["type"] in KEEPS_ALL or (part["type"] in CUTS and part["behavior"] != "Removed")
        for part in parts
    )


def _has(state: dict[str, Any] | None, kind: str) -> bool:
    """Whether a normalizer or pre-tokenizer is of type ``kind``, or contains one."""
    if state is None:
        return False
    parts = state.get("normalizers") or state.get("pretokenizers") or [state]
    return any(part["type"] == kind for part in parts)
