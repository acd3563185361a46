"""The response to a request for completions, whole or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from llmlaunch.worker.api.completions.logprobs import LogprobLists
from llmlaunch.worker.api.completions.prepare import PreparedCompletion
from llmlaunch.worker.api.generation.inflight import InflightRequests
from llmlaunch.worker.api.http import SSE_DONE, sse_event
from llmlaunch.worker.types import GenerationOutput


async def full_response(prepared: PreparedCompletion, inflight: InflightRequests) -> dict[str, Any]:
    """Return the response object, once every answer is complete."""
    answers = [_CompletionAnswer(prepared, index) for index in range(len(prepared.requests))]
    async for index, output in inflight.outputs():
        prepared.usage.take(index, index // prepared.n, output)
        answers[index].take(output)
    chosen = [
        answer
        for at in range(0, len(answers), prepared.n)
        # The best of several is the likeliest per token, as in OpenAI's API.
        for answer in sorted(answers[at : at + prepared.n], key=_CompletionAnswer.rank)[
            : prepared.body.n or 1
        ]
    ]
    choices = [answer.choice(index) for index, answer in enumerate(chosen)]
    return prepared.response_object(choices=choices, usage=prepared.usage.report())


class _CompletionAnswer:
    """One answer as it grows."""

    def __init__(self, prepared: PreparedCompletion, index: int) -> None:
        self._prepared = prepared
        self._text = prepared.echoed_text(index)
        self._prompt = prepared.prompts[index // prepared.n]
        self._logprobs = LogprobLists(0 if prepared.body.echo else len(self._text))
        self._last: GenerationOutput | None = None
        self._first = True

    def take(self, output: GenerationOutput) -> None:
        self._text += output.text
        if self._first:
            self._first = False
            if self._prepared.body.echo and self._prepared.body.logprobs is not None:
                self._logprobs.take_prompt(
                    self._prepared.tokenizer, self._prompt.tokens, output.prompt_logprobs, self._prompt.echoed
                )
        self._logprobs.take(self._prepared.tokenizer, output.logprobs)
        if output.last:
            self._last = output

    def rank(self) -> float:
        """The likeliest answer first; as generated, if all are wanted."""
        return -self._logprobs.mean() if self._prepared.n > (self._prepared.body.n or 1) else 0.0

    def choice(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "text": self._text,
            "logprobs": self._logprobs.report() if self._prepared.body.logprobs is not None else None,
            "finish_reason": self._last.finish if self._last else None,
            "stop_reason": self._last.stop_reason if self._last else None,
        }


async def stream_response(prepared: PreparedCompletion, inflight: InflightRequests) -> AsyncIterator[bytes]:
    """Yield server-sent events: the echoed prompt, the text; then the usage, if requested."""
    body = prepared.body
    usage_at_end, usage_in_chunks = body.streams_usage, body.streams_continuous_usage
    echoes_logprobs = body.echo and body.logprobs is not None
    logprobs = [
        LogprobLists(0 if echoes_logprobs else len(prepared.echoed_text(index)))
        for index in range(len(prepared.requests))
    ]
    begun: set[int] = set()

    def chunk(index: int, text: str, output: GenerationOutput | None = None) -> bytes:
        choice: dict[str, Any] = {
            "index": index, "text": text, "logprobs": None, "finish_reason": output.finish if output else None,
        }  # fmt: skip
        if output is not None and body.logprobs is not None:
            if echoes_logprobs and index not in begun:
                begun.add(index)
                prompt = prepared.prompts[index // prepared.n]
                logprobs[index].take_prompt(
                    prepared.tokenizer, prompt.tokens, output.prompt_logprobs, prompt.echoed
                )
            logprobs[index].take(prepared.tokenizer, output.logprobs)
            choice["logprobs"] = logprobs[index].report(only_new=True)
        if output is not None and output.last:
            choice["stop_reason"] = output.stop_reason
        usage = {"usage": prepared.usage.report() if usage_in_chunks else None} if usage_at_end else {}
        return sse_event(prepared.response_object(choices=[choice], **usage))

    if body.echo:
        for index in range(len(prepared.requests)):
            yield chunk(index, prepared.echoed_text(index))
    while (item := await inflight.next()) is not None:
        index, output = item
        prepared.usage.take(index, index // prepared.n, output)
        yield chunk(index, output.text, output)
    if usage_at_end:
        yield sse_event(prepared.response_object(choices=[], usage=prepared.usage.report()))
    yield SSE_DONE
