"""Chat templates with the checks of well-known models' own, rendered by transformers as the worker does it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from tests.unit.worker import tiny

TEMPLATES = {path.stem: path for path in sorted((Path(__file__).parent / "templates").glob("*.jinja"))}

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@cache
def tokenizer(name: str) -> Tokenizer:
    """A tokenizer with the template ``name``."""
    made = tiny.tokenizer()
    made.chat_template = TEMPLATES[name].read_text()
    return Tokenizer(made)


def render(name: str, messages: list[dict[str, Any]], *tools: dict[str, Any], **arguments: Any) -> str:
    """``messages`` as the template ``name`` writes them, before an answer."""
    return tokenizer(name).render(messages, tools, **({"add_generation_prompt": True} | arguments))


def system(text: str) -> dict[str, Any]:
    """A system message."""
    return {"role": "system", "content": text}


def developer(text: str) -> dict[str, Any]:
    """A developer message."""
    return {"role": "developer", "content": text}


def user(text: str) -> dict[str, Any]:
    """A message of the user."""
    return {"role": "user", "content": text}


def assistant(text: str, *calls: dict[str, Any]) -> dict[str, Any]:
    """A message of the assistant, with calls if there are any."""
    return {"role": "assistant", "content": text} | ({"tool_calls": list(calls)} if calls else {})


def call(name: str, *, id: str = "call_1", arguments: str = '{"city": "Rome"}') -> dict[str, Any]:
    """A call as clients send it back."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(text: str, *, id: str = "call_1") -> dict[str, Any]:
    """What a tool returned."""
    return {"role": "tool", "tool_call_id": id, "content": text}
