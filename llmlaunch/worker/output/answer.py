"""One answer as it is generated: tokens in, text and finish reason out. Pure apart from the decoder it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmlaunch.worker.output.stops import Detokenizer, StopStringFilter
from llmlaunch.worker.types import FinishReason, GenerationOutput, GenerationRequest, TokenLogprob


class AnswerBuilder:
    """Builds the outputs of one request, from its first token to its end."""

    def __init__(
        self, request: GenerationRequest, decode: Callable[[Sequence[int]], str], end_tokens: frozenset[int]
    ) -> None:
        """``end_tokens``: the model's own end tokens."""
        self.request = request
        self._detokenizer = Detokenizer(decode)
        self._stops = StopStringFilter(request.stopping.stop, include=request.stopping.include_stop)
        # A constrained answer ends where it is complete; after that only an end token is allowed.
        own = end_tokens | request.stopping.middle_ends
        if request.stopping.ignore_eos and request.constraint is None:
            own = frozenset()
        self.end_tokens = own | request.stopping.stop_token_ids
        self.count = 0
        self._prompt: list[TokenLogprob] = []
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def banned(self) -> tuple[int, ...]:
        """The tokens that may not come next: end tokens, until the answer has its minimum length."""
        if self.request.constraint is not None:
            return ()
        return tuple(self.end_tokens) if self.count < self.request.stopping.min_tokens else ()

    def add_prompt_logprobs(self, logprobs: Sequence[TokenLogprob]) -> None:
        """Add logprobs of the next prompt tokens: they are part of the first output."""
        self._prompt.extend(logprobs)

    def end_of_prompt(self) -> GenerationOutput | None:
        """Return the only output of a request with ``max_tokens`` 0; None for other requests."""
        return self._output("", FinishReason.LENGTH) if self.request.stopping.max_tokens == 0 else None

    def push(self, token: int, logprob: TokenLogprob | None) -> GenerationOutput | None:
        """Add ``token``; return the output that it completes, or None. The last output has ``finish`` set."""
        self.count += 1
        early = self.count <= self.request.stopping.min_tokens and self.request.constraint is None
        if token in self.end_tokens and not early:
            return self._output(self._stops.flush_after(self._detokenizer.flush()), FinishReason.STOP, token)
        self._tokens.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        text = self._detokenizer.push(token)
        if not early:
            text = self._stops.push(text)
        if self._stops.matched is not None:
            return self._output(text, FinishReason.STOP, self._stops.matched)
        if self.count >= self.request.stopping.max_tokens:
            text += self._stops.flush_after(self._detokenizer.flush())
            reason = self._stops.matched
            return self._output(
                text, FinishReason.STOP if reason is not None else FinishReason.LENGTH, reason
            )
        return self._output(text) if text else None

    def _output(
        self, text: str, finish: FinishReason | None = None, reason: str | int | None = None
    ) -> GenerationOutput:
        own_end = isinstance(reason, int) and reason not in self.request.stopping.stop_token_ids
        output = GenerationOutput(
            text=text,
            tokens=tuple(self._tokens),
            logprobs=tuple(self._logprobs),
            prompt_logprobs=tuple(self._prompt),
            finish=finish,
            stop_reason=None if own_end else reason,
            completion_tokens=self.count,
        )
        self._tokens, self._logprobs, self._prompt = [], [], []
        return output
