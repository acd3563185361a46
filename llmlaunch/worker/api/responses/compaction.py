"""Compacts a conversation: the user's messages stay, and a summary by the model stands for everything else.

The summary travels in the item that OpenAI's API has for it, so any replica can go on with it. There it is encrypted; here it is
only encoded, as clients do not look into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from llmlaunch.worker.api.generation.inflight import InflightRequests
from llmlaunch.worker.api.generation.respond import ResponseWriter
from llmlaunch.worker.api.responses.input_items import with_ids
from llmlaunch.worker.api.responses.items import summary_item
from llmlaunch.worker.api.responses.prepare import Conversation, PreparedResponse
from llmlaunch.worker.api.responses.protocol import ResponsesBody
from llmlaunch.worker.api.responses.response import full_response, stream_response

MOST_TOKENS = 2048
"""The longest summary, unless a quarter of the context is less or the client wants another length."""
_ASK = """\
Summarise this conversation, so that somebody who has only the summary and the user's messages can go on with the work: what was \
asked for, what was done and found out, decisions and their reasons, names of files and other facts that are needed, and what is \
left to do. Write the summary alone."""


def as_compaction_request(
    body: ResponsesBody, conversation: Conversation, context: int
) -> tuple[ResponsesBody, Conversation]:
    """Return the request for a summary of ``conversation``; ``context``: tokens that the model takes."""
    ask = {"type": "message", "role": "user", "content": _ASK}
    changes = {
        "store": False,
        "stream": None,
        "tools": None,
        "tool_choice": None,
        "text": None,
        "truncation": "auto",  # the oldest turns make room for the summary
        "max_output_tokens": body.max_output_tokens or max(min(MOST_TOKENS, context // 4), 1),
    }
    return body.model_copy(update=changes), Conversation(conversation.earlier, [*conversation.given, ask])


def writer(conversation: Conversation) -> ResponseWriter[PreparedResponse]:
    """Return what writes the compacted ``conversation``."""
    every = (*conversation.earlier, *conversation.given)
    kept = [item for item in every if item.get("role") == "user"]
    return ResponseWriter(partial(_compacted, kept), stream_response)


async def _compacted(
    kept: Sequence[dict[str, Any]], prepared: PreparedResponse, inflight: InflightRequests
) -> dict[str, Any]:
    response = await full_response(prepared, inflight)
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    summary = "".join(part["text"] for part in parts).strip()
    new_id = prepared.store.new_id
    return {
        "id": response["id"],
        "object": "response.compaction",
        "created_at": response["created_at"],
        "output": list(with_ids([*kept, summary_item(summary)], new_id)),
        "usage": response["usage"],
    }
