"""/v1/completions: text in, text out; several prompts in one call, echo, token ids."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.api import prompts
from llmlaunch.worker.api.http import DONE, event
from llmlaunch.worker.api.inflight import InflightRequests
from llmlaunch.worker.api.protocol import MOST_CHOICES, CompletionBody
from llmlaunch.worker.api.usage import Usage
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import GenerationOutput, GenerationRequest, TokenLogprob


@dataclass(slots=True)
class CompletionCall:
    """One completion request. Answer ``i`` is to prompt ``i // n``."""

    body: CompletionBody
    prompts: list[list[int]]
    requests: list[GenerationRequest]
    usage: Usage
    tokenizer: Tokenizer
    id: str = field(default_factory=lambda: prompts.new_id("cmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def n(self) -> int:
        """Number of answers generated for each prompt."""
        return max(self.body.n or 1, self.body.best_of or 1)

    def frame(self, **fields: Any) -> dict[str, Any]:
        frame = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": None,
        }
        return frame | fields

    def echoed(self, index: int) -> str:
        """The text before answer ``index``."""
        return self.tokenizer.decode(self.prompts[index // self.n]) if self.body.echo else ""


def prepare(body: CompletionBody, loaded: LoadedGenerator) -> CompletionCall:
    """Validate and tokenize ``body``. Raises ApiError."""
    _refuse(body, loaded)
    given, count = prompts.count(body.prompt), max(body.n or 1, body.best_of or 1)
    if given * count > MOST_CHOICES:
        raise BadRequest(
            f"{given} prompts with {count} answers each exceed the limit of {MOST_CHOICES} answers",
            param="prompt",
        )
    asked = 16 if body.max_tokens is None else body.max_tokens  # OpenAI's default
    last = prompts.kept(body.truncate_prompt_tokens, asked, loaded.context)
    special = body.add_special_tokens is not False

    def read(text: str, where: str) -> list[int]:
        return prompts.encoded(text, loaded, where, special=special, last=last)

    found = prompts.token_lists(body.prompt, loaded.tokenizer, "prompt", read)
    if last is not None:
        found = [tokens[-last:] for tokens in found]
    requests: list[GenerationRequest] = []
    for tokens in found:
        stopping = prompts.stopping_criteria(
            body,
            loaded.tokenizer,
            prompt=len(tokens),
            asked=asked,
            context=loaded.context,
            param="prompt",
        )
        requests += prompts.choices(
            body,
            loaded,
            tokens,
            stopping,
            logprobs=0 if body.logprobs is None and count > (body.n or 1) else body.logprobs,
            count=count,
            prompt_logprobs=(body.logprobs or 0) if _reads(body) else None,
        )
    return CompletionCall(body, found, requests, Usage(sum(map(len, found))), loaded.tokenizer)


def _refuse(body: CompletionBody, loaded: LoadedGenerator) -> None:
    if body.suffix:
        raise BadRequest("suffix is not supported by this engine", param="suffix", code="unsupported")
    n, best = body.n or 1, body.best_of
    if best is not None and best < n:
        raise BadRequest(f"best_of: {best} is less than n, which is {n}", param="best_of")
    if best is not None and best > n and body.stream:
        raise BadRequest(
            "best_of cannot be streamed: the best answer is only known at the end", param="best_of"
        )
    if body.max_tokens == 0 and not body.echo:
        raise BadRequest("max_tokens: must be at least 1 without echo", param="max_tokens")
    if _reads(body) and not loaded.reads_prompts:
        raise BadRequest(
            "echo with logprobs or without new tokens is not supported for models that run one request at a time",
            param="echo",
            code="unsupported",
        )


def _reads(body: CompletionBody) -> bool:
    """Whether logits of the prompt itself are needed."""
    return bool(body.echo) and (body.logprobs is not None or body.max_tokens == 0)


async def whole(call: CompletionCall, inflight: InflightRequests) -> dict[str, Any]:
    """The response object, once every answer is complete."""
    answers = [_CompletionAnswer(call, index) for index in range(len(call.requests))]
    async for index, output in inflight.outputs():
        call.usage.take(index, index // call.n, output)
        answers[index].take(output)
    chosen = [
        answer
        for at in range(0, len(answers), call.n)
        # The best of several is the likeliest per token, as in OpenAI's API.
        for answer in sorted(answers[at : at + call.n], key=_CompletionAnswer.badness)[: call.body.n or 1]
    ]
    choices = [answer.choice(index) for index, answer in enumerate(chosen)]
    return call.frame(choices=choices, usage=call.usage.report())


class _CompletionAnswer:
    """One answer as it grows."""

    def __init__(self, call: CompletionCall, index: int) -> None:
        self._call = call
        self._text = call.echoed(index)
        self._prompt = call.prompts[index // call.n]
        self._track = _LogprobTrack(0 if call.body.echo else len(self._text))
        self._last: GenerationOutput | None = None
        self._first = True

    def take(self, output: GenerationOutput) -> None:
        self._text += output.text
        if self._first:
            self._first = False
            if self._call.body.echo and self._call.body.logprobs is not None:
                self._track.take_prompt(self._call.tokenizer, self._prompt, output.prompt_logprobs)
        self._track.take(self._call.tokenizer, output.logprobs)
        if output.last:
            self._last = output

    def badness(self) -> float:
        return -self._track.mean() if self._call.n > (self._call.body.n or 1) else 0.0

    def choice(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "text": self._text,
            "logprobs": self._track.report() if self._call.body.logprobs is not None else None,
            "finish_reason": self._last.finish if self._last else None,
            "stop_reason": self._last.stop_reason if self._last else None,
        }


async def events(
    call: CompletionCall, inflight: InflightRequests, first: tuple[int, GenerationOutput] | None
) -> AsyncIterator[bytes]:
    """Server-sent events: the echoed prompt, the text; then the usage, if requested."""
    options = call.body.stream_options
    counted = options is not None and bool(options.include_usage)
    running = counted and options is not None and bool(options.continuous_usage_stats)
    read = call.body.echo and call.body.logprobs is not None
    tracks = [_LogprobTrack(0 if read else len(call.echoed(index))) for index in range(len(call.requests))]

    begun: set[int] = set()

    def chunk(index: int, text: str, output: GenerationOutput | None = None) -> bytes:
        choice: dict[str, Any] = {
            "index": index, "text": text, "logprobs": None, "finish_reason": output.finish if output else None,
        }  # fmt: skip
        if output is not None and call.body.logprobs is not None:
            if read and index not in begun:
                begun.add(index)
                tracks[index].take_prompt(
                    call.tokenizer, call.prompts[index // call.n], output.prompt_logprobs
                )
            tracks[index].take(call.tokenizer, output.logprobs)
            choice["logprobs"] = tracks[index].report(fresh=True)
        if output is not None and output.last:
            choice["stop_reason"] = output.stop_reason
        usage = {"usage": call.usage.report() if running else None} if counted else {}
        return event(call.frame(choices=[choice], **usage))

    if call.body.echo:
        for index in range(len(call.requests)):
            yield chunk(index, call.echoed(index))
    item = first
    while item is not None:
        index, output = item
        call.usage.take(index, index // call.n, output)
        yield chunk(index, output.text, output)
        item = await inflight.next()
    if counted:
        yield event(call.frame(choices=[], usage=call.usage.report()))
    yield DONE


class _LogprobTrack:
    """Logprobs of one answer in the format of completions: parallel lists, with offsets into the text."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._entries: list[tuple[str, float | None, dict[str, float] | None, int]] = []
        self._reported = 0

    def take(self, tokenizer: Tokenizer, tokens: Sequence[TokenLogprob]) -> None:
        for entry in tokens:
            text = tokenizer.token_text(entry.token)
            top = {tokenizer.token_text(token): max(value, -9999.0) for token, value in entry.top}
            self._entries.append((text, max(entry.logprob, -9999.0), top, self._offset))
            self._offset += len(text)

    def take_prompt(
        self, tokenizer: Tokenizer, prompt: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> None:
        """The echoed prompt. Its first token has no logprob, because nothing precedes it."""
        first = tokenizer.token_text(prompt[0]) if prompt[0] not in tokenizer.special else ""
        self._entries.append((first, None, None, self._offset))
        self._offset += len(first)
        self.take(tokenizer, logprobs)

    def mean(self) -> float:
        """Mean logprob of the tokens so far."""
        known = [logprob for _, logprob, _, _ in self._entries if logprob is not None]
        return sum(known) / max(1, len(known))

    def report(self, *, fresh: bool = False) -> dict[str, Any]:
        """All so far; with ``fresh`` only those that were not reported yet."""
        entries = self._entries[self._reported if fresh else 0 :]
        self._reported = len(self._entries)
        return {
            "tokens": [text for text, _, _, _ in entries],
            "token_logprobs": [logprob for _, logprob, _, _ in entries],
            "top_logprobs": [top for _, _, top, _ in entries],
            "text_offset": [offset for _, _, _, offset in entries],
        }
