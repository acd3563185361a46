"""Between text and tokens: the model's own tokenizer and chat template, made safe for several threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.worker.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts as one sequence; ``types`` says of each token which text it is from, where the model wants that."""

    tokens: list[int]
    types: list[int]


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
        self.vocabulary = len(tokenizer)
        self.special = frozenset(int(i) for i in tokenizer.all_special_ids)

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

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of ``text``; with ``special`` those added at the start and end as the model was trained."""
        if self._fast:
            ids = self._tokenizer._tokenizer.encode(text, add_special_tokens=special).ids
            return list(ids)
        with self._lock:
            return [int(i) for i in self._tokenizer.encode(text, add_special_tokens=special)]

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
