"""Text that is ready to send: whole characters only, and nothing that may still become a stop string. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
MAX_INCOMPLETE_TOKENS = 6
"""Tokens to wait for the end of a character. UTF-8 uses at most four bytes, and a token has at least one."""


class Detokenizer:
    """Decodes token by token, and never returns an incomplete character.

    ``decode`` turns token ids into text. Decoding starts a few tokens before the new ones, because a decoder may treat
    the first token of a sequence differently (sentencepiece strips its leading space). The method is that of
    text-generation-inference and vLLM.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = 0
        self._shown = 0

    def push(self, token: int) -> str:
        """Return the text that ``token`` completes; empty while a character is incomplete."""
        self._ids.append(token)
        end = len(self._ids)
        text = self._text(end)
        if text.endswith(REPLACEMENT):
            if end - self._shown <= MAX_INCOMPLETE_TOKENS:
                return ""
            end, text = self._without_tail(end, text)
        return self._show(end, text)

    def flush(self) -> str:
        """Return the remaining text, when no token follows."""
        return self._show(len(self._ids), self._text(len(self._ids)))

    def _text(self, end: int) -> str:
        """Text of the tokens before ``end``, from the window's start on."""
        return self._decode(self._ids[self._start : end])

    def _without_tail(self, end: int, text: str) -> tuple[int, str]:
        """Cut off a tail that may still become a character, unless the cut splits another one."""
        for cut in (end - 3, end - 2, end - 1):
            before = self._text(cut)
            if text.startswith(before):
                return cut, before
        return end, text

    def _show(self, end: int, text: str) -> str:
        before = self._text(self._shown)
        if len(text) <= len(before):
            return ""
        self._start, self._shown = self._shown, end
        if self._start > 64:  # tokens before the window are never decoded again
            del self._ids[: self._start]
            self._shown -= self._start
            self._start = 0
        return text[len(before) :]


class StopStringFilter:
    """Passes text through, but holds back a tail that may be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._include = include
        self._held = ""
        self.matched: str | None = None
        self.remainder = ""
        """Text after the stop string that was matched."""

    def push(self, text: str) -> str:
        """Return the text that may be sent now. Sets ``matched`` when a stop string is complete: do not push any more then."""
        if not self._stops:
            return text
        self._held += text
        found = self._first()
        if found is not None:
            at, stop = found
            self.matched = stop
            shown = self._held[: at + len(stop) if self._include else at]
            self.remainder = self._held[at + len(stop) :]
            self._held = ""
            return shown
        keep = self._possible_stop_length()
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush_after(self, text: str) -> str:
        """Return the held text and the final ``text``, when no text follows. ``text`` may still complete a stop string."""
        shown = self.push(text)
        held, self._held = self._held, ""
        return shown + held

    def _first(self) -> tuple[int, str] | None:
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        # Of two that begin at the same position, the shorter one was complete first.
        return min(found, key=lambda match: (match[0] + len(match[1]), match[0])) if found else None

    def _possible_stop_length(self) -> int:
        """Length of the longest suffix of the held text that a stop string begins with."""
        longest = min(max(map(len, self._stops)) - 1, len(self._held))
        for size in range(longest, 0, -1):
            tail = self._held[-size:]
            if any(stop.startswith(tail) for stop in self._stops):
                return size
        return 0
