"""Content blocks of Anthropic's messages as content of OpenAI's. Pure."""

from __future__ import annotations

from typing import Any

from llmlaunch.anthropic.errors import InvalidRequest

PARAGRAPH = "\n\n"
_SERVER_TOOL_BLOCKS = (
    "server_tool_use", "mcp_tool_use", "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result",
    "bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_search_tool_result",
    "mcp_tool_result", "container_upload", "compaction", "fallback",
)  # fmt: skip
"""What tools that run at Anthropic left in a conversation. Nobody here can read it."""
_BILLING = "x-anthropic-billing-header:"

Part = dict[str, Any]


def blocks_of(content: Any, where: str) -> list[dict[str, Any]]:
    """``content``, a string or a list of blocks, as blocks. Raises InvalidRequest."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise InvalidRequest(f"{where} must be a string or a list of content blocks", where)
    for at, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise InvalidRequest(f"{where}[{at}] must be an object with a type", f"{where}[{at}]")
    return content


def system_text(system: Any) -> str:
    """The system prompt as one text.

    Claude Code begins it with a block for Anthropic's billing, which differs with every request: left in, no KV cache
    would ever find a prompt again.
    """
    texts = []
    for at, block in enumerate(blocks_of(system, "system")):
        if block["type"] != "text":
            raise InvalidRequest(f"system[{at}] must be text, not {block['type']!r}", f"system[{at}].type")
        text = _string(block, "text", f"system[{at}]")
        if text and not text.startswith(_BILLING):
            texts.append(text)
    return PARAGRAPH.join(texts)


def parts_of(block: dict[str, Any], where: str, *, images: bool) -> list[Part]:
    """What one block of a user or of a tool's result becomes; nothing for a block that only Anthropic could read.

    ``images``: whether images are translated, too. Raises InvalidRequest for what cannot be shown to the model.
    """
    kind = block["type"]
    if kind == "text":
        return [_text(_string(block, "text", where))]
    if kind == "image":
        if not images:
            raise InvalidRequest(f"{where}: this model cannot read images; send text", where)
        return [{"type": "image_url", "image_url": {"url": _image_url(block, where)}}]
    if kind == "document":
        return _document(block, where, images=images)
    if kind == "search_result":
        found = blocks_of(block.get("content"), f"{where}.content")
        texts = [_string(inner, "text", f"{where}.content[{at}]") for at, inner in enumerate(found)]
        return [_text("\n".join(filter(None, (_label(block, "title"), _label(block, "source"), *texts))))]
    if kind == "tool_reference":
        return [_text(f"The tool {_label(block, 'tool_name')} is available.")]
    if kind in _SERVER_TOOL_BLOCKS:
        return []
    raise InvalidRequest(f"{where}: content of the type {kind!r} is not supported", f"{where}.type")


def content_of(parts: list[Part]) -> str | list[Part]:
    """``parts`` as the content of a message: a string if all of it is text, because every engine takes that."""
    if all(part["type"] == "text" for part in parts):
        return PARAGRAPH.join(part["text"] for part in parts)
    return parts


def _document(block: dict[str, Any], where: str, *, images: bool) -> list[Part]:
    source = block.get("source")
    if not isinstance(source, dict):
        raise InvalidRequest(f"{where}.source is missing", f"{where}.source")
    kind = source.get("type")
    heads = [_text(label) for key in ("title", "context") if (label := _label(block, key))]
    if kind == "text":
        return [*heads, _text(_string(source, "data", f"{where}.source"))]
    if kind == "content":
        inner = f"{where}.source.content"
        found = blocks_of(source.get("content"), inner)
        return heads + [
            part for at, each in enumerate(found) for part in parts_of(each, f"{inner}[{at}]", images=images)
        ]
    raise InvalidRequest(
        f"{where}: documents of the type {kind!r}, such as PDF files, cannot be read here; send their text",
        where,
    )


def _image_url(block: dict[str, Any], where: str) -> str:
    source = block.get("source")
    if isinstance(source, dict):
        if source.get("type") == "url" and isinstance(source.get("url"), str):
            return str(source["url"])
        if source.get("type") == "base64" and isinstance(source.get("data"), str):
            return f"data:{source.get('media_type') or 'image/png'};base64,{source['data']}"
    raise InvalidRequest(f"{where}.source must be base64 data or a URL", f"{where}.source")


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _label(block: dict[str, Any], key: str) -> str:
    found = block.get(key)
    return found if isinstance(found, str) else ""


def _string(block: dict[str, Any], key: str, where: str) -> str:
    found = block.get(key)
    if not isinstance(found, str):
        raise InvalidRequest(f"{where}.{key} must be a string", f"{where}.{key}")
    return found
