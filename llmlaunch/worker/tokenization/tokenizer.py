"""Text to tokens and back: a thread-safe wrapper of the model's own tokenizer and chat template."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.worker.background import check_abandoned
from llmlaunch.worker.chat_template.template import ChatTemplate
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization import chunks
from llmlaunch.worker.tokenization.length_bound import bound

CHUNK_CHARS = 1 << 16
"""Characters that are tokenized at a time: about 30 ms."""
MIN_CHUNK_CHARS = 1 << 12
"""The same for tokenizers written in Python, and if few tokens are wanted."""
SHORT_CHARS = 8000
"""Texts up to this many characters are tokenized while holding the GIL: releasing it would cost more."""
NICENESS = 10
"""Niceness of the tokenizing threads: they yield to the computing ones, but still get at least a tenth of a core's time."""
_SPACE = "▁"
"""How sentencepiece writes a space."""
_ALONE = "☺"
"""A character that no token has together with others."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts as one sequence; ``types`` assigns each token to its text, if the model uses that."""

    tokens: list[int]
    types: list[int]


class TooLong(Exception):
    """A text has too many tokens; ``tokens`` is their number in words ("at least 1,234")."""

    def __init__(self, tokens: str) -> None:
        super().__init__(tokens)
        self.tokens = tokens


class Tokenizer:
    """Wraps a transformers tokenizer. All methods are thread-safe."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # tokenizers written in Python have state
        self._fast = bool(getattr(tokenizer, "is_fast", False))
        if self._fast:
            # Some tokenizer files truncate and pad; here texts are counted whole, and padded in batches.
            tokenizer._tokenizer.no_truncation()
            tokenizer._tokenizer.no_padding()
            _start_threads(tokenizer._tokenizer)
        self.free_core: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        """Wraps the tokenizing of a long text, which needs a core of its own."""
        self.vocabulary = len(tokenizer)
        self.special = frozenset(int(i) for i in tokenizer.all_special_ids)
        self._bound = bound(tokenizer._tokenizer, _BYTES) if self._fast else None
        self._around = self._special_around()
        self._chat_template = ChatTemplate(self._apply_template, self.template)

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    @property
    def template(self) -> str:
        """The text of the chat template; of all of them if it has several, as some models have one for tools."""
        return str(getattr(self._tokenizer, "chat_template", None) or "")

    def has_marker(self, marker: str) -> bool:
        """Whether ``marker`` occurs in the chat template, or is a token of the vocabulary."""
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        return marker in self.template or any(token.content == marker for token in added.values())

    def is_special(self, text: str) -> bool:
        """Whether ``text`` is a special token, which decoding skips."""
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        return any(token.special and token.content == text for token in added.values())

    def token_of(self, text: str) -> int | None:
        """The one token that ``text`` is; None if it is several, or is not known."""
        # A tokenizer that comes with the model may raise anything for what it does not know.
        with contextlib.suppress(Exception):
            found = self._tokenizer.convert_tokens_to_ids(text)
            if isinstance(found, int) and self._tokenizer.convert_ids_to_tokens(found) == text:
                return found
        tokens = self._plain(text)
        return tokens[0] if len(tokens) == 1 and self.token_text(tokens[0]) == text else None

    @property
    def end_token(self) -> int | None:
        """The token that ends an answer, as the tokenizer's own files name it; None if they do not."""
        value = self._tokenizer.eos_token_id
        return None if value is None else int(value)

    def min_tokens(self, text: str) -> int:
        """Minimum number of tokens of ``text``, from its length, without tokenizing it."""
        return 0 if self._bound is None else self._bound.min_tokens(text)

    def encode(self, text: str, *, special: bool = True, most: int | None = None) -> list[int]:
        """Token ids of ``text``; with ``special`` including the special tokens at its start and end.

        Raises TooLong if it is known early that there are more than ``most``. If that only turns out at the end, they are
        returned.
        """
        if most is not None and (least := self.min_tokens(text)) > most:
            raise TooLong(f"at least {least:,}")
        found: list[int] = []
        for tokens, read in self._read(text, special=special, most=most):
            found += tokens
            if most is not None and len(found) > most and read < len(text):
                raise TooLong(f"about {len(found) * len(text) // read:,}")
        return found

    def encode_within(self, text: str, *, most: int | None = None) -> list[int]:
        """Token ids of ``text`` as they are within a text: without special tokens, and without the space that some tokenizers
        put before a text. Raises TooLong, as :meth:`encode` does.
        """
        if not self._adds_space():
            return self.encode(text, special=False, most=most)
        # Meta's and Mistral's reference code does the same.
        before = self._plain(_ALONE)
        tokens = self.encode(_ALONE + text, special=False, most=None if most is None else most + len(before))
        joined = tokens[: len(before)] != before
        return self.encode(text, special=False, most=most) if joined else tokens[len(before) :]

    def encode_start(self, text: str, most: int) -> list[int]:
        """The first ``most`` tokens; the last of them is the model's closing special token, if it has one."""
        found: list[int] = []
        for tokens, _ in self._read(text, special=True, most=most):
            found += tokens
            if len(found) > most:
                break
        else:
            return found
        return found[: most - 1] + self.closing if self.closing and most > 1 else found[:most]

    def encode_end(self, text: str, most: int, *, special: bool = True) -> list[int]:
        """The last ``most`` tokens."""
        if len(text) <= self._size(most) or (special and self._around is None):
            return self.encode(text, special=special)[-most:]
        before, after = self._around if special and self._around else ([], [])
        found = list(reversed(after))
        for piece in chunks.split_backward(text, self._size(most), self._plain):
            check_abandoned()
            found += reversed(self._plain(piece))
            if len(found) >= most:
                break
        else:
            found += reversed(before)
        return found[:most][::-1]

    def prefix(self, text: str, most: int) -> str:
        """The shortest known beginning of ``text`` with at least ``most`` tokens; all of it if it has no more."""
        count = 0
        for piece, read in chunks.split_forward(text, self._size(most), self._plain):
            check_abandoned()
            if read == len(text):
                break
            count += len(self._plain(piece))
            if count >= most:
                return text[:read]
        return text

    def encode_chunks(self, text: str, *, special: bool = True) -> Iterator[list[int]]:
        """Token ids of ``text``, chunk by chunk."""
        return (tokens for tokens, _ in self._read(text, special=special))

    def count(self, text: str) -> int:
        """Number of tokens that :meth:`encode` returns."""
        return sum(map(len, self.encode_chunks(text)))

    @property
    def opening(self) -> list[int]:
        """The special tokens at the beginning of every text, if there are any."""
        return list(self._around[0]) if self._around else []

    @property
    def closing(self) -> list[int]:
        """The special token at the end of every text, if there is one."""
        return self._around[1][-1:] if self._around else []

    def _read(self, text: str, *, special: bool, most: int | None = None) -> Iterator[tuple[list[int], int]]:
        """The tokens of each chunk of ``text``, with the number of characters read so far."""
        size = self._size(most)
        if len(text) <= size or (special and self._around is None):
            yield self._plain(text, special=special), len(text)
            return
        before, after = self._around if special and self._around else ([], [])
        ahead = list(before)
        with self.free_core():
            for piece, read in chunks.split_forward(text, size, self._plain):
                check_abandoned()
                yield ahead + self._plain(piece), read
                ahead = []
        if after:
            yield list(after), len(text)

    def _size(self, most: int | None) -> int:
        """Characters in a chunk, if ``most`` tokens are wanted."""
        if not self._fast:
            return MIN_CHUNK_CHARS
        return CHUNK_CHARS if most is None else min(CHUNK_CHARS, max(MIN_CHUNK_CHARS, 8 * most))

    def _plain(self, text: str, *, special: bool = False) -> list[int]:
        if not self._fast:
            with self._lock:
                return [int(i) for i in self._tokenizer.encode(text, add_special_tokens=special)]
        tokenizer = self._tokenizer._tokenizer
        if len(text) <= SHORT_CHARS:
            return list(tokenizer.encode(text, add_special_tokens=special).ids)
        # Encoding a batch releases the GIL, and with a second text it uses the tokenizer's own threads.
        return list(tokenizer.encode_batch_fast([text, ""], add_special_tokens=special)[0].ids)

    def _special_around(self) -> tuple[list[int], list[int]] | None:
        """The special tokens before and after every text; None if they cannot be determined."""
        plain, full = self._plain("a"), self._plain("a", special=True)
        if not plain:
            return None
        for at in range(len(full) - len(plain) + 1):
            if full[at : at + len(plain)] == plain:
                return full[:at], full[at + len(plain) :]
        return None

    def _adds_space(self) -> bool:
        """Whether a space is put before every text."""
        pieces = self._tokenizer.convert_ids_to_tokens(self._plain("a"))
        return bool(pieces) and str(pieces[0]).startswith(_SPACE)

    def encode_pair(self, left: str, right: str, longest: int | None = None) -> Pair:
        """Both texts as one sequence; truncated to ``longest`` tokens, the longer text first."""
        with self._lock:  # truncation is a setting of the tokenizer, not of the call
            found = self._tokenizer(
                left,
                right,
                truncation="longest_first" if longest else False,
                max_length=longest,
                verbose=False,
            )
            if self._fast:
                self._tokenizer._tokenizer.no_truncation()
        return Pair(list(found["input_ids"]), list(found.get("token_type_ids", ())))

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ``tokens``. Bytes that are not valid UTF-8, such as half a letter, become U+FFFD."""
        if self._fast and len(tokens) > SHORT_CHARS:  # decoding a batch releases the GIL
            batch = [list(tokens), []]
            return str(self._tokenizer._tokenizer.decode_batch(batch, skip_special_tokens=skip_special)[0])
        if self._fast:
            return str(self._tokenizer._tokenizer.decode(list(tokens), skip_special_tokens=skip_special))
        with self._lock:
            text = self._tokenizer.decode(
                list(tokens), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False
            )
        return str(text)

    def token_text(self, token: int) -> str:
        """The text of one token; special tokens by their name."""
        return self.decode([token], skip_special=False)

    def token_bytes(self, token: int) -> list[int] | None:
        """The bytes of one token; None if the tokenizer does not provide them."""
        text = self.token_text(token)
        if "\ufffd" not in text:
            return list(text.encode())
        piece = self._tokenizer.convert_ids_to_tokens(token)
        return _byte_level(piece) if isinstance(piece, str) else None

    def guidance_tokenizer(self, ends: Sequence[int]) -> Any:
        """The vocabulary for llguidance. Takes up to a second. Raises BadRequest for tokenizers written in Python."""
        if not self._fast:
            raise BadRequest("this model's tokenizer does not support structured output", code="unsupported")
        from llguidance.hf import from_tokenizer

        return from_tokenizer(self._tokenizer, eos_token=list(ends) or None)

    def render(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = (), **arguments: Any
    ) -> str:
        """The conversation formatted by the model's chat template, in the form that the template takes.

        Raises BadRequest if the model has no template, or the template rejects these messages.
        """
        if not self.has_template:
            raise BadRequest(
                "this model has no chat template and cannot take messages; use /v1/completions",
                param="messages",
                code="no_chat_template",
            )
        from jinja2.exceptions import TemplateError

        try:
            return self._chat_template.render(messages, tools, **arguments)
        except TemplateError as error:
            raise BadRequest(
                f"the model's chat template rejects these messages: {error}", param="messages"
            ) from error
        except Exception as error:  # a template is a program, and can fail in any way
            raise BadRequest(
                f"the model's chat template failed on these messages: {type(error).__name__}: {error}",
                param="messages",
            ) from error

    def _apply_template(self, messages: Sequence[dict[str, Any]], **arguments: Any) -> str:
        text = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, return_dict=False, **arguments
        )
        return str(text)


def _start_threads(tokenizer: Any) -> None:
    """Start the tokenizer's thread pool with a lower priority, which threads inherit from the one that starts them.

    A thread that holds the GIL must not wait for a core; these never hold it.
    """

    def start() -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        tokenizer.encode_batch_fast(["", ""])

    starter = threading.Thread(target=start, name="tokenizers")
    starter.start()
    starter.join()


def _byte_level(piece: str) -> list[int] | None:
    """The bytes of a byte-level BPE token (GPT-2's letters), or of sentencepiece's ``<0xE4>``."""
    if piece.startswith("<0x") and piece.endswith(">") and len(piece) == 6:
        return [int(piece[3:5], 16)]
    try:
        return [_BYTES[letter] for letter in piece]
    except KeyError:
        return None


def _letters() -> dict[str, int]:
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + at): byte for at, byte in enumerate(hidden)}


_BYTES = _letters()
