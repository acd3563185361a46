"""Between text and tokens: the model's own tokenizer and chat template, made safe for several threads."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization import chunks
from llmlaunch.worker.tokenization.length_bound import bound
from llmlaunch.worker.tokenization.threads import go_on

PIECE = 1 << 16
"""Characters that are tokenized in one go: some 30 ms."""
LEAST_PIECE = 1 << 12
"""The same for tokenizers written in Python, and where few tokens are wanted."""
SHORT = 8000
"""Characters that are tokenized where the interpreter waits: the way around that costs more than they do."""
NICENESS = 10
"""Of the threads that tokenize: behind whoever computes, and with a tenth of what one of them gets at least."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts as one sequence; ``types`` says of each token which text it is from, where the model wants that."""

    tokens: list[int]
    types: list[int]


class TooLong(Exception):
    """A text has more tokens than were asked for; ``tokens`` says how many, in words ("at least 1,234")."""

    def __init__(self, tokens: str) -> None:
        super().__init__(tokens)
        self.tokens = tokens


class Codec:
    """Wraps a transformers tokenizer. Every method may be called from any thread."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # tokenizers written in Python keep state between calls
        self._fast = bool(getattr(tokenizer, "is_fast", False))
        if self._fast:
            # Some tokenizer files cut and pad; here whole texts are counted, and padded where they are batched.
            tokenizer._tokenizer.no_truncation()
            tokenizer._tokenizer.no_padding()
            _start_threads(tokenizer._tokenizer)
        self.making_room: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        """Around the reading of a long text, which takes a core of its own."""
        self.vocabulary = len(tokenizer)
        self.special = frozenset(int(i) for i in tokenizer.all_special_ids)
        self._bound = bound(tokenizer._tokenizer, _BYTES) if self._fast else None
        self._around = self._special_around()

    @property
    def has_template(self) -> bool:
        return bool(getattr(self._tokenizer, "chat_template", None))

    @property
    def template_knows_tools(self) -> bool:
        """Whether the chat template has words of its own for tools."""
        template = getattr(self._tokenizer, "chat_template", None)
        return "tools" in str(template)  # some models have several, by name: one of them is for tools

    def knows(self, mark: str) -> bool:
        """Whether the chat template writes ``mark``, or the vocabulary has it as a token of its own."""
        template = getattr(self._tokenizer, "chat_template", None)
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        return mark in str(template or "") or any(token.content == mark for token in added.values())

    def hides(self, text: str) -> bool:
        """Whether ``text`` is a special token, which decoding leaves out."""
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        return any(token.special and token.content == text for token in added.values())

    @property
    def end_token(self) -> int | None:
        value = self._tokenizer.eos_token_id
        return None if value is None else int(value)

    def least(self, text: str) -> int:
        """So many tokens ``text`` makes at least: known by its length, without tokenizing it."""
        return 0 if self._bound is None else self._bound.least(text)

    def encode(self, text: str, *, special: bool = True, most: int | None = None) -> list[int]:
        """Token ids of ``text``; with ``special`` those added at the start and end as the model was trained.

        Raises TooLong where it is known early that there are more than ``most``. Where that is only known at the end,
        they are returned.
        """
        if most is not None and (least := self.least(text)) > most:
            raise TooLong(f"at least {least:,}")
        found: list[int] = []
        for tokens, read in self._read(text, special=special, most=most):
            found += tokens
            if most is not None and len(found) > most and read < len(text):
                raise TooLong(f"about {len(found) * len(text) // read:,}")
        return found

    def encode_start(self, text: str, most: int) -> list[int]:
        """The first ``most`` tokens, of which the last is the one that ends every text, where the model has such."""
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
        for piece in chunks.backward(text, self._size(most), self._plain):
            go_on()
            found += reversed(self._plain(piece))
            if len(found) >= most:
                break
        else:
            found += reversed(before)
        return found[:most][::-1]

    def start(self, text: str, most: int) -> str:
        """The beginning of ``text`` that makes at least ``most`` tokens; all of it, where it has no more."""
        count = 0
        for piece, read in chunks.forward(text, self._size(most), self._plain):
            go_on()
            if read == len(text):
                break
            count += len(self._plain(piece))
            if count >= most:
                return text[:read]
        return text

    def pieces(self, text: str, *, special: bool = True) -> Iterator[list[int]]:
        """Token ids of ``text``, as they are found."""
        return (tokens for tokens, _ in self._read(text, special=special))

    def count(self, text: str) -> int:
        """How many tokens :meth:`encode` would give."""
        return sum(map(len, self.pieces(text)))

    @property
    def closing(self) -> list[int]:
        """The token that ends every text, if there is one."""
        return self._around[1][-1:] if self._around else []

    def _read(self, text: str, *, special: bool, most: int | None = None) -> Iterator[tuple[list[int], int]]:
        """The tokens of each piece of ``text``, and with them how many characters are read."""
        size = self._size(most)
        if len(text) <= size or (special and self._around is None):
            yield self._plain(text, special=special), len(text)
            return
        before, after = self._around if special and self._around else ([], [])
        ahead = list(before)
        with self.making_room():
            for piece, read in chunks.forward(text, size, self._plain):
                go_on()
                yield ahead + self._plain(piece), read
                ahead = []
        if after:
            yield list(after), len(text)

    def _size(self, most: int | None) -> int:
        """Characters of a piece, where ``most`` tokens are wanted."""
        if not self._fast:
            return LEAST_PIECE
        return PIECE if most is None else min(PIECE, max(LEAST_PIECE, 8 * most))

    def _plain(self, text: str, *, special: bool = False) -> list[int]:
        if not self._fast:
            with self._lock:
                return [int(i) for i in self._tokenizer.encode(text, add_special_tokens=special)]
        tokenizer = self._tokenizer._tokenizer
        if len(text) <= SHORT:
            return list(tokenizer.encode(text, add_special_tokens=special).ids)
        # A batch does not hold the interpreter, and with a second text it goes to the tokenizer's own threads.
        return list(tokenizer.encode_batch_fast([text, ""], add_special_tokens=special)[0].ids)

    def _special_around(self) -> tuple[list[int], list[int]] | None:
        """What is added before and after every text; None where that cannot be told."""
        plain, full = self._plain("a"), self._plain("a", special=True)
        if not plain:
            return None
        for at in range(len(full) - len(plain) + 1):
            if full[at : at + len(plain)] == plain:
                return full[:at], full[at + len(plain) :]
        return None

    def encode_pair(self, left: str, right: str, longest: int | None = None) -> Pair:
        """Both texts as the model was trained to compare them; cut to ``longest`` tokens, the longer text first."""
        with self._lock:  # cutting is a setting of the tokenizer, not of the call
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
        if self._fast and len(tokens) > SHORT:  # a batch does not hold the interpreter
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
        """How one token reads on its own, special ones by their name."""
        return self.decode([token], skip_special=False)

    def token_bytes(self, token: int) -> list[int] | None:
        """The bytes that one token stands for; None when the tokenizer does not tell."""
        text = self.token_text(token)
        if "\ufffd" not in text:
            return list(text.encode())
        piece = self._tokenizer.convert_ids_to_tokens(token)
        return _byte_level(piece) if isinstance(piece, str) else None

    def guidance_tokenizer(self, ends: Sequence[int]) -> Any:
        """The vocabulary as llguidance wants it. Takes up to a second. Raises BadRequest for Python tokenizers."""
        if not self._fast:
            raise BadRequest("this model's tokenizer does not allow structured output", code="unsupported")
        from llguidance.hf import from_tokenizer

        return from_tokenizer(self._tokenizer, eos_token=list(ends) or None)

    def render(self, messages: Sequence[dict[str, Any]], **arguments: Any) -> str:
        """The conversation as the model's own chat template writes it.

        Raises BadRequest when the model has no template, or the template does not take these messages.
        """
        if not self.has_template:
            raise BadRequest(
                "this model has no chat template, so it can not take messages; use /v1/completions",
                param="messages",
                code="no_chat_template",
            )
        from jinja2.exceptions import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, return_dict=False, **arguments
            )
        except TemplateError as error:
            raise BadRequest(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error
        except Exception as error:  # a template is a program, and the messages are its input
            raise BadRequest(
                f"the model's chat template can not write these messages: {type(error).__name__}: {error}",
                param="messages",
            ) from error
        return str(text)


def _start_threads(tokenizer: Any) -> None:
    """Have the threads that tokenize batches started, behind the computing ones: they inherit it from their starter.

    A thread that holds the interpreter must never wait for a core behind others; these never do.
    """

    def start() -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        tokenizer.encode_batch_fast(["", ""])

    starter = threading.Thread(target=start, name="tokenizers")
    starter.start()
    starter.join()


def _byte_level(piece: str) -> list[int] | None:
    """Bytes behind the letters that byte-level BPE (GPT-2) writes them with; ``<0xE4>`` as sentencepiece does."""
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
