"""How many prompt tokens each step computes, so that running streams do not stall. Pure: it is told how long steps took."""

from __future__ import annotations

from collections.abc import Sequence

from llmlaunch.worker.engine.scheduled_request import PendingPrompt

MOST_SLOWDOWN = 2.0
"""A step that also computes prompts may take this many times as long as one that only decodes."""
MOST_BURST_S = 0.8
"""Maximum seconds for a step that computes several prompts at once to return their first tokens together."""
FIRST_TOKEN_PAUSES = 4
"""Each further first token is worth this many ordinary pauses between two tokens of one running stream."""
SMALLEST_CHUNK = 16


class PrefillBudget:
    """How many prompt tokens a step may compute besides the decodes, learned from how long past steps took."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._decode_s = 0.0
        self._prompt_s = 0.0
        self._prompt_tokens = 0.0
        """Moving averages over the steps that compute prompts."""

    @property
    def _prompt_token_s(self) -> float:
        """Seconds that one prompt token adds to a step; 0 if unknown.

        The weights are read once for all tokens of a step, and that is most of the time of a decode.
        """
        if not self._prompt_tokens:
            return 0.0
        return max(self._prompt_s - self._decode_s, self._prompt_s / 4) / self._prompt_tokens

    def tokens(self, decoding: int) -> int:
        """Prompt tokens for the next step. Constant while nothing decodes, so that equal prompts are rounded equally."""
        if not decoding:
            return self._most
        if not self._decode_s:
            return 1  # measures a decode: while there are prompts, a step that only decodes may never come
        if not self._prompt_token_s:
            return SMALLEST_CHUNK
        tokens = int((MOST_SLOWDOWN - 1) * self._decode_s / self._prompt_token_s)
        return max(SMALLEST_CHUNK, min(self._most, tokens))

    def burst(self, decoding: int, prompts: Sequence[PendingPrompt]) -> int:
        """Prompt tokens for a step that completes the first of ``prompts``; 0 if that is not worth it.

        Running streams lose the same time to the prompts either way: in one long pause, or in many slower steps. First
        tokens that come together justify one long pause, a longer one the more they are and the fewer streams wait.
        One prompt alone does not justify it, nor do prompts that would not complete, nor the last chunk of a prompt
        computed in chunks: those are computed in ordinary steps.
        """
        if not (decoding and self._decode_s and self._prompt_token_s):
            return 0
        most, total, complete = 0, 0, 0
        for prompt in prompts:
            total += prompt.tokens
            complete += not prompt.begun
            worth = min(MOST_BURST_S, FIRST_TOKEN_PAUSES * self._decode_s * (complete - 1) / decoding)
            if total <= self._most and total * self._prompt_token_s <= worth:
                most = total
        return most

    def observe(self, decoded: int, prompt: int, seconds: float) -> None:
        """Tell how many ``seconds`` a step with ``decoded`` decodes and ``prompt`` prompt tokens took."""
        if decoded and prompt <= 1:
            self._decode_s = _blend(self._decode_s, seconds)
        elif prompt >= SMALLEST_CHUNK:
            self._prompt_s = _blend(self._prompt_s, seconds)
            self._prompt_tokens = _blend(self._prompt_tokens, prompt)


def _blend(old: float, new: float) -> float:
    return new if not old else 0.8 * old + 0.2 * new
