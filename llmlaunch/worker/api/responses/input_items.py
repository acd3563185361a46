"""The items that a response was made from, as clients read them: with ids, and page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmlaunch.worker.api.responses.items import kind_of
from llmlaunch.worker.errors import BadRequest

PREFIXES = {
    "message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs",
    "custom_tool_call": "ctc", "custom_tool_call_output": "ctco", "compaction": "cmp",
}  # fmt: skip
DEFAULT_LIMIT, MAX_LIMIT = 20, 100
"""Items on a page, as in OpenAI's API."""


def with_ids(items: Sequence[dict[str, Any]], new_id: Callable[[str], str]) -> Iterator[dict[str, Any]]:
    """Yield ``items`` as OpenAI shows them. Those without an id get one from ``new_id``, which takes its prefix."""
    for item in items:
        kind = kind_of(item) or ""
        fields = item | {"type": kind}
        if not isinstance(item.get("id"), str):
            fields["id"] = new_id(PREFIXES.get(kind, "item"))
        if kind == "message":
            fields |= {"status": item.get("status") or "completed", "content": _parts(item)}
        yield fields


def _parts(item: Mapping[str, Any]) -> list[Any]:
    content = item.get("content")
    kind = "output_text" if item.get("role") == "assistant" else "input_text"
    more: dict[str, Any] = {"annotations": []} if kind == "output_text" else {}
    given = [] if content is None else content if isinstance(content, list) else [content]
    return [{"type": kind, "text": part} | more if isinstance(part, str) else part for part in given]


def page(items: Sequence[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """Return OpenAI's list object of ``items``: the newest first, unless ``query`` says otherwise. Raises BadRequest."""
    limit = _limit(query.get("limit"))
    order = query.get("order") or "desc"
    if order not in ("asc", "desc"):
        raise BadRequest(f"order: {order!r} is not asc or desc", param="order")
    found = list(items) if order == "asc" else list(reversed(items))
    if after := query.get("after"):
        start = next((at for at, item in enumerate(found, 1) if item["id"] == after), None)
        if start is None:
            raise BadRequest(f"after: this response has no item {after!r}", param="after")
        found = found[start:]
    shown = found[:limit]
    ends = (
        {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]}
        if shown
        else {"first_id": None, "last_id": None}
    )
    return {"object": "list", "data": shown, **ends, "has_more": len(found) > limit}


def _limit(given: str | None) -> int:
    if not given:
        return DEFAULT_LIMIT
    digits = given.isascii() and given.isdigit() and len(given) <= len(str(MAX_LIMIT))
    if not digits or not 1 <= int(given) <= MAX_LIMIT:
        raise BadRequest(f"limit: {given[:20]!r} is not a number from 1 to {MAX_LIMIT}", param="limit")
    return int(given)
