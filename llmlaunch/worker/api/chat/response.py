"""The response to a chat request, whole or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from llmlaunch.worker.api.chat.answer import ChatAnswer
from llmlaunch.worker.api.chat.prepare import PreparedChat
from llmlaunch.worker.api.generation.inflight import InflightRequests
from llmlaunch.worker.api.http import SSE_DONE, sse_event
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import GenerationOutput, TokenLogprob


async def full_response(prepared: PreparedChat, inflight: InflightRequests) -> dict[str, Any]:
    """Return the response object, once every answer is complete."""
    answers = [ChatAnswer(prepared) for _ in prepared.requests]
    async for index, output in inflight.outputs():
        prepared.usage.take(index, 0, output)
        answers[index].take(output)
    choices = [
        {
            "index": index,
            "message": answer.message(),
            "logprobs": chat_logprobs(prepared, answer.logprobs),
            "finish_reason": answer.finish,
            "stop_reason": answer.last.stop_reason if answer.last else None,
        }
        for index, answer in enumerate(answers)
    ]
    return prepared.response_object(
        "chat.completion", choices=choices, usage=prepared.usage.report(), system_fingerprint=None
    )


async def stream_response(prepared: PreparedChat, inflight: InflightRequests) -> AsyncIterator[bytes]:
    """Yield server-sent events: the role of each answer, its deltas, its end; then the usage, if requested."""
    usage_at_end, usage_in_chunks = prepared.body.streams_usage, prepared.body.streams_continuous_usage
    answers = [ChatAnswer(prepared) for _ in prepared.requests]

    def chunk(index: int, delta: dict[str, Any], output: GenerationOutput | None = None) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": chat_logprobs(prepared, output.logprobs) if output else None,
            "finish_reason": answers[index].finish,
        }
        if output is not None and output.last:
            choice["stop_reason"] = output.stop_reason
        usage = {"usage": prepared.usage.report() if usage_in_chunks else None} if usage_at_end else {}
        return sse_event(
            prepared.response_object(
                "chat.completion.chunk", choices=[choice], system_fingerprint=None, **usage
            )
        )

    for index in range(len(prepared.requests)):
        yield chunk(index, {"role": "assistant", "content": ""})
    while (item := await inflight.next()) is not None:
        index, output = item
        prepared.usage.take(index, 0, output)
        delta = answers[index].take(output)
        if delta or output.last or output.logprobs:
            yield chunk(index, delta, output)
    if usage_at_end:
        yield sse_event(
            prepared.response_object(
                "chat.completion.chunk", choices=[], usage=prepared.usage.report(), system_fingerprint=None
            )
        )
    yield SSE_DONE


def chat_logprobs(prepared: PreparedChat, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """Return OpenAI's ``logprobs`` object of a chat choice; None if none were requested."""
    if not prepared.body.logprobs:
        return None
    return {"content": [_entry(prepared.tokenizer, token) for token in tokens], "refusal": None}


def _entry(tokenizer: Tokenizer, entry: TokenLogprob) -> dict[str, Any]:
    top = [_token(tokenizer, token, logprob) for token, logprob in entry.top]
    return _token(tokenizer, entry.token, entry.logprob) | {"top_logprobs": top}


def _token(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    # JSON has no infinity; OpenAI reports impossible tokens as -9999.
    shown = max(logprob, -9999.0)
    return {"token": tokenizer.token_text(token), "logprob": shown, "bytes": tokenizer.token_bytes(token)}
