"""Logprobs in the format of completions: parallel lists, with offsets into the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import TokenLogprob


class LogprobLists:
    """Collects the logprobs of one answer."""

    def __init__(self, offset: int) -> None:
        """``offset``: of the first token in the answer's text, in characters."""
        self._offset = offset
        self._entries: list[tuple[str, float | None, dict[str, float] | None, int]] = []
        self._reported = 0

    def take(self, tokenizer: Tokenizer, tokens: Sequence[TokenLogprob]) -> None:
        """Add the next tokens."""
        for entry in tokens:
            text = tokenizer.token_text(entry.token)
            logprob = max(entry.logprob, -9999.0)
            top = {tokenizer.token_text(token): max(value, -9999.0) for token, value in entry.top}
            top.setdefault(text, logprob)  # the chosen token is always there, as in OpenAI's API
            self._entries.append((text, logprob, top, self._offset))
            self._offset += len(text)

    def take_prompt(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        logprobs: Sequence[TokenLogprob],
        echoed: range,
    ) -> None:
        """Add what is ``echoed`` of the prompt. The prompt's first token has no logprob, because nothing precedes it."""
        if not echoed:
            return
        if echoed.start == 0:
            first = tokenizer.token_text(prompt[0]) if prompt[0] not in tokenizer.special else ""
            self._entries.append((first, None, None, self._offset))
            self._offset += len(first)
        self.take(tokenizer, logprobs[max(0, echoed.start - 1) : echoed.stop - 1])

    def mean(self) -> float:
        """Return the mean logprob of the tokens so far."""
        known = [logprob for _, logprob, _, _ in self._entries if logprob is not None]
        return sum(known) / max(1, len(known))

    def report(self, *, only_new: bool = False) -> dict[str, Any]:
        """Return OpenAI's ``logprobs`` object; ``only_new``: without the tokens of earlier reports."""
        entries = self._entries[self._reported if only_new else 0 :]
        self._reported = len(self._entries)
        return {
            "tokens": [text for text, _, _, _ in entries],
            "token_logprobs": [logprob for _, logprob, _, _ in entries],
            "top_logprobs": [top for _, _, top, _ in entries],
            "text_offset": [offset for _, _, _, offset in entries],
        }
