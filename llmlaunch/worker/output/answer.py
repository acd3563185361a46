"""One answer as it is generated: tokens in, text and finish reason out. Pure apart from the decoder it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmlaunch.worker.output.stops import Detokenizer, StopHolder
from llmlaunch.worker.types import FinishReason, GenerationRequest, Piece, TokenLogprob


class AnswerBuilder:
    """Follows one request from its first token to its end."""

    def __init__(
        self, request: GenerationRequest, decode: Callable[[Sequence[int]], str], ends: frozenset[int]
    ) -> None:
        """``ends``: the model's own end tokens."""
        self.request = request
        self._detokenizer = Detokenizer(decode)
        self._stops = StopHolder(request.ending.stop, include=request.ending.include_stop)
        # A constrained answer ends where it is complete; after that only an end token is allowed.
        own = frozenset() if request.ending.ignore_eos and request.constraint is None else ends
        self.ends = own | request.ending.stop_token_ids
        self.count = 0
        self._prompt: list[TokenLogprob] = []
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def banned(self) -> tuple[int, ...]:
        """End tokens, as long as the answer must not end yet."""
        if self.request.constraint is not None:
            return ()
        return tuple(self.ends) if self.count < self.request.ending.min_tokens else ()

    def read(self, logprobs: Sequence[TokenLogprob]) -> None:
        """Add logprobs of the next prompt tokens: they are sent with the first piece."""
        self._prompt.extend(logprobs)

    def end_of_prompt(self) -> Piece | None:
        """The only piece of a request that wants no answer; None for others."""
        return self._piece("", FinishReason.LENGTH) if self.request.ending.max_tokens == 0 else None

    def push(self, token: int, logprob: TokenLogprob | None) -> Piece | None:
        """The output that ``token`` completes; None if there is none yet. The last piece has ``finish`` set."""
        self.count += 1
        early = self.count <= self.request.ending.min_tokens and self.request.constraint is None
        if token in self.ends and not early:
            return self._piece(self._stops.flush_after(self._detokenizer.flush()), FinishReason.STOP, token)
        self._tokens.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        text = self._detokenizer.push(token)
        if not early:
            text = self._stops.push(text)
        if self._stops.hit is not None:
            return self._piece(text, FinishReason.STOP, self._stops.hit)
        if self.count >= self.request.ending.max_tokens:
            text += self._stops.flush_after(self._detokenizer.flush())
            reason = self._stops.hit
            return self._piece(text, FinishReason.STOP if reason is not None else FinishReason.LENGTH, reason)
        return self._piece(text) if text else None

    def _piece(self, text: str, finish: FinishReason | None = None, reason: str | int | None = None) -> Piece:
        own_end = isinstance(reason, int) and reason not in self.request.ending.stop_token_ids
        piece = Piece(
            text=text,
            tokens=tuple(self._tokens),
            logprobs=tuple(self._logprobs),
            prompt_logprobs=tuple(self._prompt),
            finish=finish,
            stop_reason=None if own_end else reason,
            completion_tokens=self.count,
        )
        self._tokens, self._logprobs, self._prompt = [], [], []
        return piece
